"""Scans whose arrays, documents, chunks or subscans are damaged; each must fail alone."""

from __future__ import annotations

import google_crc32c
import numpy as np

from builders.broken.cases import Case, steps
from builders.broken.night import Night


def _other_shape(n: Night) -> None:
    n.edit(2, "calibration/data_5d", lambda counts: counts[:32])


def _more_of_beam_a(n: Night) -> None:
    n.modes(3, ["OTFSWA-ON", "OTFSWA-OFF"] * 3 + ["OTFSWB-ON", "OTFSWB-OFF"])


def _frame_of_text(n: Night) -> None:
    """Bytes with a true checksum that are no zstd frame."""
    content = b"this is no frame" * 8
    checksum = google_crc32c.value(content).to_bytes(4, "little")
    n.chunk(2, "source", 0).write_bytes(content + checksum)


LAYOUT = (
    Case("counts missing", lambda n: n.remove(2, "source/data_5d"), ("data_5d is missing",)),
    Case(
        "counts of rank 4",
        lambda n: n.edit(2, "source/data_5d", lambda x: x[:, 0]),
        ("data_5d has shape (64, 2, 9, 4)", "expected five axes"),
    ),
    Case(
        "counts of a wrong type",
        lambda n: n.edit(2, "source/data_5d", lambda x: x.astype(np.int64)),
        ("data_5d has dtype int64", "expected int32, uint32, float32, float64"),
    ),
    Case(
        "counts without dumps",
        lambda n: n.edit(2, "source/data_5d", lambda x: x[:, :0]),
        ("data_5d has shape (64, 0, 2, 9, 4)", "there is no dump"),
    ),
    Case(
        "array missing",
        lambda n: n.remove(2, "source/elevation"),
        ("array elevation is missing", "(4,) or (3, 4)", "rad"),
    ),
    Case(
        "array too short",
        lambda n: n.edit(2, "source/exptime", lambda x: x[:3]),
        ("array exptime has shape (3,)", "expected (4) = [S] or (3, 4) = [D,S]"),
    ),
    Case(
        "array of integers",
        lambda n: n.edit(2, "source/mjd", lambda x: x.astype(np.int32)),
        ("array mjd has dtype int32", "expected floating point"),
        hint="Write it as float64",
    ),
    Case(
        "image frequency missing",
        lambda n: n.remove(2, "source/image_freq"),
        ("image_freq is missing", "gain_image is not 0"),
        hint="gain_image = 0",
    ),
    Case("modes missing", lambda n: n.modes(2, None), ("sobsmode is missing", "list of strings")),
    Case(
        "modes too few",
        lambda n: n.modes(2, ["OFF", "ON", "OFF"]),
        ("sobsmode has 3 entries", "expected 4"),
    ),
    Case(
        "mode unknown",
        lambda n: n.modes(2, ["OFF", "ON", "OM", "OFF"]),
        ("scan 2, subscan 2", "sobsmode 'OM'", "is unknown", "OTF-ON"),
        hint="Did you mean ON?",
    ),
    Case(
        "load among the sky",
        lambda n: n.modes(2, ["OFF", "ON", "HOT", "OFF"]),
        ("scan 2, subscan 2", "'HOT' stands in source/", "expected it in calibration/"),
    ),
    Case("no ON", lambda n: n.modes(2, ["OFF"] * 4), ("no ON subscan", "only OFF")),
    Case(
        "no OFF",
        lambda n: n.modes(2, ["ON"] * 4),
        ("no OFF subscan for ON", "found ON", "expected OFF or OTF-OFF"),
    ),
    Case(
        "loads of another shape",
        _other_shape,
        ("source/ has", "(64, 2, 9)", "calibration/ has (32, 2, 9)"),
    ),
    Case(
        "scan document broken",
        lambda n: (n.scan(2) / "zarr.json").write_text('{"zarr_format": 3, '),
        ("scan 2", "scan_000002", "zarr.json", "not valid JSON"),
    ),
    Case(
        "scan document missing",
        lambda n: (n.scan(2) / "zarr.json").unlink(),
        ("scan_000002 is not a Zarr group",),
        hint="zarr.json or .zgroup is missing",
    ),
    Case(
        "array document broken",
        lambda n: (n.scan(2, "source/mjd") / "zarr.json").write_text("[]"),
        ("scan 2", "source/mjd", "zarr.json"),
    ),
    Case(
        "group without document",
        lambda n: (n.scan(2, "source") / "zarr.json").unlink(),
        ("scan 2", "source", "not a Zarr group"),
    ),
    Case(
        "bands of an unknown layout",
        steps(
            lambda n: n.scan(2, "source").rename(n.scan(2, "raw")),
            lambda n: n.remove(2, "calibration"),
        ),
        ("neither source/ nor calibration/",),
    ),
    Case(
        "attribute of a wrong type",
        lambda n: n.attrs(2, n_subscans_planned="four"),
        ("attribute n_subscans_planned is 'four'", "expected a number"),
    ),
    Case(
        "scan incomplete",
        lambda n: n.attrs(2, complete=False, n_subscans_planned=6),
        ("the scan is incomplete", "4 subscans", "6 planned"),
        hint="--partial",
    ),
)

CHUNKS = (
    Case(
        "no zstd frame in an OFF",
        _frame_of_text,
        ("scan 2, subscan 0", "data_5d/c/0/0/0/0/0", "does not start with a zstd frame"),
        error="CorruptDataError",
        hint="Restore it from a copy",
    ),
    Case(
        "bit flipped in an ON",
        lambda n: n.spoil(2, "source", 1, "flip"),
        ("scan 2, subscan 1", "data_5d/c/0/0/0/0/1", "crc32c is"),
        error="CorruptDataError",
        hint="Restore it from a copy",
    ),
    Case(
        "foreign bytes in an OFF",
        lambda n: n.spoil(2, "source", 0, "text"),
        ("scan 2, subscan 0", "data_5d/c/0/0/0/0/0", "cannot be decoded"),
        error="CorruptDataError",
        hint="Restore it from a copy",
    ),
    Case(
        "file cut off",
        lambda n: n.spoil(2, "source", 2, "cut"),
        ("scan 2, subscan 2", "data_5d/c/0/0/0/0/2", "cannot be decoded"),
        error="CorruptDataError",
        hint="Restore it from a copy",
    ),
    Case(
        "file empty",
        lambda n: n.chunk(2, "source", 3).write_bytes(b""),
        ("scan 2, subscan 3", "0 bytes"),
        error="CorruptDataError",
        hint="Restore it from a copy",
    ),
    Case(
        "a directory in place of a file",
        steps(
            lambda n: n.chunk(2, "source", 2).unlink(),
            lambda n: n.chunk(2, "source", 2).mkdir(),
        ),
        ("scan 2, subscan 2", "Is a directory"),
        error="CorruptDataError",
    ),
)

MODES = (
    Case(
        "frequency throw missing",
        lambda n: n.remove(2, "source/freq_throw"),
        ("freq_throw", "cannot be folded"),
        error="PairingError",
        stage="prepare",
        night="fsw",
        hint="Use --no-fold",
    ),
    Case(
        "chop phases 0 to 3",
        lambda n: n.at(2, "source/chop_phase", (slice(None), 0), [0, 1, 2, 3]),
        ("scan 2: chop_phase is 2 in subscan 0", "expected 0 or 1"),
        night="wsw",
    ),
    Case(
        "nod beam that is not there",
        lambda n: n.attrs(2, nod_beams=[[0, 0], [0, 12]]),
        ("nod_beams is [[0, 0], [0, 12]]", "2 receivers and 9 pixels"),
        error="PairingError",
        stage="prepare",
        night="nod",
    ),
    Case(
        "beams that do not pair",
        _more_of_beam_a,
        ("as many A as B subscans", "3 of A and 1 of B"),
        error="PairingError",
        stage="prepare",
        night="upgreat",
        options=("--dbs-coupling",),
        failed=(3,),
        hint="Leave out --dbs-coupling",
    ),
    Case(
        "mode that does not fit",
        lambda n: None,
        ("mode fsw needs a signal phase (FSW-SIG)", "OFF, ON"),
        error="PairingError",
        stage="prepare",
        options=("--mode", "fsw", "--scans", "1,2"),
        failed=(1, 2),
        unasked=(3,),
        hint="Use --mode",
    ),
)

OUTPUT = (
    Case(
        "scan that is not there",
        lambda n: ("--scans", "1-3,7"),
        ("scan 7: it is not in", "l0.zarr"),
        stage="read",
        failed=(7,),
        hint="gpucal inspect",
    ),
)

BROKEN_SCANS = LAYOUT + CHUNKS + MODES + OUTPUT
