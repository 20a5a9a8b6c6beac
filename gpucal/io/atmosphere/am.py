"""Import of opacities computed with am (S. Paine): two or three runs that differ in water."""

from __future__ import annotations

import gzip
import itertools
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import ImportFormatError
from gpucal.io.atmosphere.am_emission import AmOutput, configured_output, departure_seen
from gpucal.io.atmosphere.tables import save_table
from gpucal.physics.atm import EMISSION, AtmosphereTable

F64 = npt.NDArray[np.float64]

STANDARD_GRAVITY = 9.80665
"""m/s^2; what am itself uses between pressure levels unless told otherwise."""

WATER_OVER_AIR = 18.01528 / 28.964
HPA = {
    "mbar": 1.0,
    "hpa": 1.0,
    "pa": 0.01,
    "kpa": 10.0,
    "bar": 1000.0,
    "torr": 1.33322368,
    "atm": 1013.25,
}
_PWV_NOTE = re.compile(rb"pwv[\w ]*[=:]\s*([0-9.eE+-]+)\s*(mm|um)?", re.IGNORECASE)


def import_am(
    paths: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    pwv_mm: Sequence[float] | None = None,
) -> AtmosphereTable:
    """Make a table of two or three am outputs (frequency GHz, opacity Np, ...; text or gzip).

    All must have the same frequencies and point to the zenith. The PWV of each is that of ``pwv_mm``, of a comment
    ``# pwv = 1.2 mm`` in the file, or the integral over the layers of the configuration of the same name (``.amc``
    beside it). Two runs give b and c (q = 0), three b, q and c, exactly. Everything that is not water,
    ozone included, goes to c_dry. Where the configuration of every run says that the output holds the brightness (Trj
    or Tb), the emission columns come from it in the same way. Written to ``out`` when given.
    Raises ImportFormatError for files that cannot be understood or do not belong together.
    """
    files = [Path(p) for p in paths]
    if len(files) not in (2, 3):
        raise ImportFormatError(
            f"{len(files)} am outputs were given, expected 2 or 3 that differ in water.",
            hint="Two runs give b and c, three give b, q and c.",
        )
    if pwv_mm is not None and len(pwv_mm) != len(files):
        raise ImportFormatError(f"{len(pwv_mm)} PWV values were given for {len(files)} am outputs.")
    texts = [_read(path) for path in files]
    configured = [_configured(path) for path in files]
    runs = [
        _columns(path, text, config)
        for path, text, config in zip(files, texts, configured, strict=True)
    ]
    for path, run in zip(files[1:], runs[1:], strict=True):
        if run[0].size != runs[0][0].size or not np.array_equal(run[0], runs[0][0]):
            raise ImportFormatError(
                f"{path} has other frequencies than {files[0]} ({_span(run[0])} against "
                f"{_span(runs[0][0])}).",
                hint="Run am with the same frequency grid each time.",
            )
    if pwv_mm is None:
        pwv = np.array([_found_pwv(path, text) for path, text in zip(files, texts, strict=True)])
    else:
        pwv = np.array([float(p) for p in pwv_mm])
    _check_pwv(files, pwv)
    b, q, c = _solve(pwv, [run[1] for run in runs])
    zero = np.zeros(b.shape)
    emission: dict[str, Any] = {}
    departures = [
        departure_seen(run, config, path) if config is not None and config.brightness else None
        for run, config, path in zip(runs, configured, files, strict=True)
    ]
    if all(d is not None for d in departures):
        solved = _solve(pwv, [d for d in departures if d is not None])
        emission = dict(zip(EMISSION, (*solved, zero), strict=True))
    attrs = _attributes(files, pwv, bool(emission))
    table = AtmosphereTable(runs[0][0] * 1e9, b, q, c, zero, zero, attrs=attrs, **emission)
    if out is not None:
        save_table(out, table)
    return table


def _solve(pwv: F64, values: Sequence[F64]) -> tuple[F64, F64, F64]:
    """Coefficients of P, P^2 and 1 through two values (that of P^2 is then 0) or three, each f64 [N]."""
    design = np.stack([pwv, pwv**2, np.ones(pwv.size)], axis=1)
    if len(values) == 2:
        linear, constant = np.linalg.solve(design[:, [0, 2]], np.stack(values))
        return linear, np.zeros(linear.shape), constant
    linear, square, constant = np.linalg.solve(design, np.stack(values))
    return linear, square, constant


def amc_pwv_mm(text: str, path: str = "configuration") -> float:
    """PWV of an am configuration, mm: sum over layers of vmr dP m_w/(m_air g rho_w).

    Layers lie between the Pbase of one and of the next; ``Nscale GAS h2o`` counts when it is a
    number and is 1 when it is a command-line argument (%N). Raises ImportFormatError when the
    water of a layer is not given as ``vmr``.
    """
    return _layers(text, path)["pwv_mm"]


def _layers(text: str, path: str) -> dict[str, float]:
    """Water column (mm), pressure (hPa) and temperature (K) at the ground of an am configuration."""
    scale: dict[str, float] = {}
    kind, top, bottom, temperature, total = "", 0.0, 0.0, float("nan"), 0.0
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        if not words or words[0] == "?":
            continue
        try:
            if words[0] == "layer":
                kind, top = (words[1] if len(words) > 1 else ""), bottom
            elif words[0] == "Nscale" and "h2o" in words:
                tag = words[1] if words[1] != "h2o" else ""
                scale[tag] = 1.0 if words[-1].startswith("%") else float(words[-1])
            elif words[0] == "Pbase":
                bottom = float(words[1]) * HPA[words[2].lower()]
            elif words[0] == "Tbase":
                temperature = float(words[1])
            elif words[0] == "column" and words[1].startswith("h2o"):
                if "vmr" not in words[2:-1]:
                    raise ImportFormatError(
                        f"{path} line {number}: the water of this layer is given as "
                        f"{' '.join(words[2:])!r}, expected vmr.",
                        hint="Give the PWV of each run with --pwv.",
                    )
                vmr = float(words[-1]) * scale.get(kind, scale.get("", 1.0))
                total += vmr * (bottom - top) * 100 / STANDARD_GRAVITY * WATER_OVER_AIR
        except ImportFormatError:
            raise
        except (ValueError, IndexError, KeyError) as error:
            raise ImportFormatError(
                f"{path} line {number} is not understood: {line.strip()!r}."
            ) from error
    if not total > 0:
        raise ImportFormatError(
            f"{path} holds no water column.", hint="Give the PWV of each run with --pwv."
        )
    return {"pwv_mm": total, "pressure_hpa": bottom, "t_ground_k": temperature}


def _read(path: Path) -> bytes:
    """The file's bytes, unpacked when it is gzip."""
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise ImportFormatError(f"{path} cannot be read: {error}.") from error


def _columns(path: Path, text: bytes, config: AmOutput | None) -> F64:
    """Frequency in GHz, opacity in Np and, where the configuration tells of it, brightness in K: f64 [2|3, N]."""
    rows = [
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(b"#")
    ]
    wanted = [0, 1]
    if config is not None and config.brightness:
        wanted.append(config.column)
    try:
        data = np.array(
            [[row[i] for i in wanted] for row in map(bytes.split, rows)], dtype=np.float64
        )
    except (ValueError, IndexError):
        bad = next((row for row in rows if not _numeric(row, max(wanted) + 1)), rows[0])
        shown = bad.decode("utf-8", "replace").strip()[:60]
        third = f" and {config.brightness} in K" if config is not None and len(wanted) > 2 else ""
        raise ImportFormatError(
            f"{path} holds the line {shown!r}, expected frequency in GHz and opacity in Np{third}."
        ) from None
    if data.ndim != 2 or len(data) < 2:
        raise ImportFormatError(
            f"{path} holds {len(data)} rows, expected at least 2 of frequency in GHz and opacity in Np."
        )
    freq, tau = data.T[:2]
    if not np.all(np.isfinite(data)) or np.any(tau < 0):
        raise ImportFormatError(f"{path} holds an opacity that is negative or not finite.")
    if freq[0] <= 0 or not np.all(np.diff(freq) > 0):
        raise ImportFormatError(f"{path}: the frequencies are not positive and strictly rising.")
    return np.ascontiguousarray(data.T)


def _numeric(row: bytes, n: int) -> bool:
    """Whether a line begins with n numbers, so that it belongs to the table."""
    words = row.split()[:n]
    try:
        return len([float(word) for word in words]) == n
    except ValueError:
        return False


def _companion(path: Path) -> Path:
    """The am configuration of the same name beside an output file."""
    name = path.name.removesuffix(".gz")
    return path.with_name(re.sub(r"\.[^.]*$", "", name) + ".amc")


def _configured(path: Path) -> AmOutput | None:
    """What the configuration beside an output says of it; None without a configuration."""
    companion = _companion(path)
    if not companion.is_file():
        return None
    return configured_output(companion.read_text(encoding="utf-8", errors="replace"))


def _found_pwv(path: Path, text: bytes) -> float:
    """PWV in mm of an am output: from its comment, else from the configuration beside it."""
    for line in text.splitlines():
        if line.lstrip().startswith(b"#") and (match := _PWV_NOTE.search(line)):
            try:
                return float(match[1]) * (1e-3 if (match[2] or b"").lower() == b"um" else 1.0)
            except ValueError:
                continue
    companion = _companion(path)
    if companion.is_file():
        return amc_pwv_mm(companion.read_text(encoding="utf-8", errors="replace"), str(companion))
    raise ImportFormatError(
        f"the PWV of {path} is not known: it has no comment '# pwv = ... mm' and there is no {companion.name}.",
        hint="Give the PWV of each run with --pwv.",
    )


def _check_pwv(files: Sequence[Path], pwv: F64) -> None:
    """Raise ImportFormatError unless all PWVs are positive and differ by more than 0.1 %."""
    if not np.all(np.isfinite(pwv)) or np.any(pwv <= 0):
        raise ImportFormatError(f"PWV values are {pwv.tolist()} mm, expected positive numbers.")
    order = np.argsort(pwv)
    for i, j in itertools.pairwise(order):
        if pwv[j] - pwv[i] < 1e-3 * pwv[j]:
            raise ImportFormatError(
                f"{files[i]} and {files[j]} have the same PWV, {pwv[i]:.4g} mm.",
                hint="Use runs that differ in water.",
            )


def _span(freq_ghz: F64) -> str:
    """The number of frequencies and their range, in words."""
    return f"{freq_ghz.size} from {freq_ghz[0]:g} to {freq_ghz[-1]:g} GHz"


def _attributes(files: Sequence[Path], pwv: F64, layered: bool) -> dict[str, Any]:
    """What the table records of its origin; ground values from the am configuration, if there is one."""
    attrs: dict[str, Any] = {
        "model": "am",
        "profile": "am runs " + ", ".join(path.name for path in files),
        "pwv_range_mm": np.array([pwv.min(), pwv.max()]),
        "pwv_solved_mm": pwv,
        "credit": "am, S. Paine, Smithsonian Astrophysical Observatory (doi:10.5281/zenodo.640645).",
        "notes": "Solved from am opacities at the zenith; c_dry holds all that is not water, ozone "
        "included, so an ozone scale has no effect. What else differs between the runs goes into the "
        "coefficients. "
        + (
            "The emission columns come from the brightness in the outputs."
            if layered
            else "No emission columns: no configuration beside every output names its brightness (Trj), T0 and Tbase."
        ),
    }
    companion = _companion(files[0])
    if companion.is_file():
        try:
            found = _layers(companion.read_text(encoding="utf-8", errors="replace"), str(companion))
        except ImportFormatError:
            return attrs
        attrs |= {key: found[key] for key in ("pressure_hpa", "t_ground_k")}
    return attrs
