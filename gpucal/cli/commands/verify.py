"""``gpucal verify``: read every chunk of a store and check it against its checksums."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gpucal.io.files.verify import VerifyReport

EXIT_UNUSABLE = 1
EXIT_FAULTS = 2
SHOWN_MISSING = 5


def verify(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Raw (L0) or calibrated (L1).")],
    write_checksums: Annotated[
        bool,
        typer.Option(
            "--write-checksums",
            help="Write the crc32c of every chunk file to STORE.crc32c.json, which later runs check.",
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Read all chunk files of a store, and check every checksum there is.

    Exit codes: 0 no faults, 1 not a store, 2 chunk files at fault (each is named), 130 interrupted.
    """
    from gpucal.io.files.json_text import dumps
    from gpucal.io.files.verify import verify_store, write_sidecar

    report = verify_store(store, _progress if sys.stderr.isatty() and not json else None)
    if sys.stderr.isatty() and not json:
        print("\r\x1b[K", end="", file=sys.stderr)
    written = str(write_sidecar(report)) if write_checksums and report.ok else None
    if json:
        print(dumps({**_facts(report), "written": written}, indent=2))
    else:
        for line in _lines(report):
            print(line)
        if written:
            print(f"Checksums are in {written}: keep it beside the store.")
        elif write_checksums:
            print("No checksums were written: they would call the files at fault right.")
    if not report.files and not report.faults:
        raise typer.Exit(EXIT_UNUSABLE)
    raise typer.Exit(0 if report.ok else EXIT_FAULTS)


def _progress(name: str) -> None:
    print(f"\r\x1b[K{name[:76]}", end="", file=sys.stderr, flush=True)


def _facts(report: VerifyReport) -> dict[str, object]:
    return {
        "path": report.path,
        "files": report.files,
        "with_checksum": report.with_checksum,
        "without_checksum": report.decoded_only,
        "faults": [{"file": f.path, "text": f.text} for f in report.faults],
        "missing": list(report.missing),
    }


def _lines(report: VerifyReport) -> list[str]:
    """What is told of a store, the faults last."""
    from gpucal.io.files.verify import sidecar_of

    if not report.files and not report.faults:
        return [f"{report.path}: no chunk file is in it."]
    lines = [f"{report.path}: {report.files} chunk files, {report.with_checksum} with a checksum."]
    if report.decoded_only:
        lines.append(
            f"remark: {report.decoded_only} chunk files have no checksum: they can be decoded, a flipped bit "
            f"would not be noticed. gpucal verify {report.path} --write-checksums writes them to "
            f"{sidecar_of(report.path).name}."
        )
    if report.missing:
        some = ", ".join(report.missing[:SHOWN_MISSING])
        more = ", ..." if len(report.missing) > SHOWN_MISSING else ""
        lines.append(f"remark: {len(report.missing)} chunk files are not there: {some}{more}")
    lines += [f"fault: {fault}" for fault in report.faults]
    return lines
