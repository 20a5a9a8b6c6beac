"""One scan calibrated in memory, and what a notebook wants to do with it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gpucal.axes import FLAG_DTYPE, Flag
from gpucal.backend.protocol import Backend
from gpucal.backend.select import select_backend
from gpucal.config import CalibrationConfig, as_config
from gpucal.errors import ConfigError
from gpucal.io.atmosphere.choice import atmosphere_for
from gpucal.io.chunks.zarr_metadata import json_safe
from gpucal.io.l1.memory_scan import MemoryArray, MemoryScan
from gpucal.notebook import Picture, html_of
from gpucal.physics.atm import AtmosphereTable
from gpucal.physics.rounding import with_error
from gpucal.pipeline.scan.in_memory import stream_in_memory
from gpucal.pipeline.scan.rules_in_memory import marks_of
from gpucal.pipeline.store.l1_arrays import (
    SPECTRUM_DIMS,
    T_SYS_DIMS,
    band_attributes,
    scan_attributes,
    small_arrays,
    streamed_attributes,
)
from gpucal.pipeline.store.outcome import band_quality
from gpucal.pipeline.store.provenance import Origin
from gpucal.scan import Scan
from gpucal.steps.precision import AS_COMPUTED, Precision, precision_notes
from gpucal.steps.scale import gamma_of_scan
from gpucal.steps.solution import ScanSolution

Array = Any
Host = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class CalibratedScan:
    """Result of ``calibrate_scan``; arrays of the backend.

    spectra [C,D,R,A,S_on] K (T_A*, NaN where flagged bit 0 or 1); flags u16, same shape; t_sys,
    t_sys_star f64 [C,R,A,S_on] K (at the receiver's input, and above the air on the scale of the spectra);
    t_rec, gamma f64 [C,R,A] K; quality: the ``qa`` attribute of L1; solution: pairing, loads, atmosphere;
    precision: how the spectra are kept; notes: what to know of that.
    ``frequency``, ``to_xarray()``,
    ``to_spectrum1d()`` and ``plot()`` give what a notebook wants; ``l1`` is the scan as a store would hold it.
    """

    spectra: Array
    flags: Array
    t_sys: Array
    t_sys_star: Array
    t_rec: Array
    gamma: Array
    quality: dict[str, Any]
    solution: ScanSolution
    precision: Precision = AS_COMPUTED
    notes: tuple[str, ...] = ()

    @property
    def frequency(self) -> Array:
        """Topocentric sky frequency of the signal sideband, f64 [C] Hz; [C,R] where receivers differ."""
        values = self.solution.setup.nu_sig
        return values[:, 0] if values.shape[1] == 1 else values

    @cached_property
    def l1(self) -> MemoryScan:
        """The scan as L1 would hold it: arrays by name, attributes, ``to_xarray``."""
        solution = self.solution
        host = solution.backend.to_host
        streamed = streamed_attributes(solution)
        streamed["spectra"] |= self.precision.attributes()
        arrays = {
            name: MemoryArray(np.asarray(host(getattr(self, name))), dims, streamed[name])
            for name, dims in (
                ("spectra", SPECTRUM_DIMS),
                ("flags", SPECTRUM_DIMS),
                ("t_sys", T_SYS_DIMS),
                ("t_sys_star", T_SYS_DIMS),
            )
        }
        for name, (values, dims, units) in small_arrays(solution).items():
            arrays[name] = MemoryArray(values, dims, {"units": units} if units else {})
        of_store = ("failed_bands", "l0_metadata_sha256", "atmosphere_sha256")
        whole = scan_attributes(solution, (), None, Origin("", {}))
        attrs = {k: v for k, v in whole.items() if k not in of_store}
        attrs |= {**band_attributes(solution, self.notes), "qa": self.quality}
        scan = solution.scan
        return MemoryScan(scan.number, scan.band, json_safe(attrs), dict(scan.store_attrs), arrays)

    def to_xarray(self) -> Any:
        """An ``xarray.Dataset`` with the names, axes and coordinates of L1, see ``open_l1``.

        Raises L1Error when xarray is not installed.
        """
        return self.l1.to_xarray()

    def to_spectrum1d(self, **which: Any) -> Any:
        """The spectra of one pixel as ``specutils.Spectrum``.

        which: receiver, pixel, subscan and average, as for ``gpucal.to_spectrum1d``; raises as that.
        """
        from gpucal.export.spectrum1d import to_spectrum1d

        return to_spectrum1d(self.l1, **which)

    def plot(self, kind: Literal["spectra", "waterfall"] = "spectra") -> Picture:
        """A picture, shown by a notebook; ``.save("x.png")`` keeps it.

        kind: "spectra", T_A*, transmission and T_sys against frequency; "waterfall", dump by dump. Raises
        ConfigError for another kind, GpucalError without matplotlib.
        """
        from gpucal.plot.binning import read_binned
        from gpucal.plot.source import ScanView
        from gpucal.plot.spectra import plot_spectra
        from gpucal.plot.style import require_matplotlib
        from gpucal.plot.waterfall import central_pixel, plot_waterfall

        kinds = {"spectra": plot_spectra, "waterfall": plot_waterfall}
        if kind not in kinds:
            raise ConfigError(f"kind is {kind!r}, expected {' or '.join(kinds)}.")
        require_matplotlib()
        scan = self.l1
        view = ScanView(scan.number, scan.band, scan.attrs, scan, scan.store_attrs)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture.png"
            kinds[kind](view, read_binned(view, central_pixel(view)), path)
            return Picture(path.read_bytes())

    def _facts(self) -> dict[str, str]:
        """What is said of it, line by line."""
        q, shape = self.quality, self.spectra.shape
        numbers = {
            "PWV": (with_error(q["pwv"], q["pwv_error"], unknown=".4g"), " mm"),
            "T_rec": (f"{q['t_rec_median']:.4g}", " K"),
            "T_sys": (f"{q['t_sys_median']:.4g}", f" K {q['t_sys_sidebands']}"),
            "T_sys*": (f"{q['t_sys_star_median']:.4g}", " K"),
            "rms/expected": (f"{float(np.nanmedian(q['rms_ratio'])):.3g}", ""),
        }
        sizes = ", ".join(f"{axis} {n}" for axis, n in zip("CDRAS", shape, strict=True))
        known = {name: text + unit for name, (text, unit) in numbers.items() if text != "nan"}
        return {
            "mode": self.solution.pairing.mode,
            "spectra": f"[{sizes}] {self.spectra.dtype} K, T_A*",
            **known,
        }

    def __repr__(self) -> str:
        said = ", ".join(
            text if name in ("mode", "spectra") else f"{name} {text}"
            for name, text in self._facts().items()
        )
        return f"<CalibratedScan {self.solution.scan.label}: {said}>"

    def _repr_html_(self) -> str:
        warnings = {f"warning {n}": text for n, text in enumerate(self.solution.warnings, 1)}
        rows = list({**self._facts(), **warnings}.items())
        return html_of(f"calibrated {self.solution.scan.label}", ("", ""), rows)


class _ArraySink:
    """A StoredSink that keeps the whole scan in arrays of the backend."""

    def __init__(self, solution: ScanSolution) -> None:
        c, d, r, a, s = solution.output_shape
        xp = solution.backend.xp
        self._asarray = solution.backend.asarray
        self._xp, self._exact = xp, solution.config.dtype
        # Subscan first, so that a tile is written to one piece of memory.
        self._shape = (s, c, d, r, a)
        self.begin(AS_COMPUTED)
        self.flags = xp.empty((s, c, d, r, a), dtype=xp.uint16)
        self.t_sys = xp.empty((s, c, r, a), dtype=xp.float64)
        self.t_sys_star = xp.empty((s, c, r, a), dtype=xp.float64)

    def begin(self, precision: Precision) -> None:
        """See ``StoredSink``."""
        self.precision = precision
        exact = self._xp.float64 if self._exact == "f64" else self._xp.float32
        dtype = exact if precision.rounding is None else self._xp.float32
        self.spectra = self._xp.empty(self._shape, dtype=dtype)

    def write_tile(
        self, output: int, channels: tuple[int, int], spectra: Host, flags: Host, n_own: int
    ) -> None:
        place = (output, slice(*channels), ...)
        self.spectra[place] = self._asarray(spectra)
        self.flags[place] = self._asarray(flags)

    def write_t_sys(
        self, output: int, channels: tuple[int, int], t_sys: Array, t_sys_star: Array
    ) -> None:
        self.t_sys[output, channels[0] : channels[1], ...] = t_sys
        self.t_sys_star[output, channels[0] : channels[1], ...] = t_sys_star


def calibrate_scan(
    scan: Scan,
    config: CalibrationConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    load: Scan | None = None,
    later_load: Scan | None = None,
    table: AtmosphereTable | None = None,
    backend: Backend | None = None,
) -> CalibratedScan:
    """Calibrate one scan and band in memory.

    ``config``: as in ``calibrate_store``; ``load``: the scan whose ``calibration`` serves (default: the scan
    itself); ``later_load``: the one after it, for gain interpolation; ``table``: the atmosphere, in place of
    what ``config`` chooses, by default the packaged table of the site in ``scan.store_attrs``. Raises
    TableError when none fits the site, ConfigError for a wrong option, and the GpucalError of the step that
    fails.
    """
    config = as_config(config)
    given: dict[str, Any] = {"scan": scan, "load": load, "later_load": later_load}
    for name, value in given.items():
        if not isinstance(value, Scan) and (name == "scan" or value is not None):
            kind = type(value).__name__
            raise ConfigError(
                f"{name} is a {kind}, expected a Scan.", hint="Take gpucal.open_l0(path)[number]."
            )
    backend = backend or select_backend(config.backend, kernels=config.kernels)
    table = table or atmosphere_for(config, scan.store_attrs, scan.path)
    streamed = stream_in_memory(
        scan,
        config,
        _ArraySink,
        load=load,
        later_load=later_load,
        table=table,
        backend=backend,
    )
    solution, sink = streamed.solution, streamed.sink
    xp = backend.xp
    for mark in marks_of(solution):
        by_hand = np.moveaxis(mark.within((slice(None),) * 5), -1, 0)
        sink.flags = sink.flags | backend.asarray(by_hand.astype(FLAG_DTYPE) * int(Flag.MANUAL))
    return CalibratedScan(
        spectra=xp.moveaxis(sink.spectra, 0, -1),
        flags=xp.moveaxis(sink.flags, 0, -1),
        t_sys=xp.moveaxis(sink.t_sys, 0, -1),
        t_sys_star=xp.moveaxis(sink.t_sys_star, 0, -1),
        t_rec=solution.loads.t_rec,
        gamma=gamma_of_scan(solution),
        quality=band_quality(solution, streamed.sums, table),
        solution=solution,
        precision=sink.precision,
        notes=tuple(precision_notes(sink.precision, streamed.sums)),
    )
