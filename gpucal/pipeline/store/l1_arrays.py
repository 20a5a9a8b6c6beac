"""The L1 arrays and attributes of one calibrated band, as the formats page lists them."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.axes import FLAG_DTYPE, Flag
from gpucal.backend.lanes import Lane
from gpucal.io.chunks.array_writer import ArrayWriter
from gpucal.io.chunks.codecs import Payload
from gpucal.io.chunks.device import frames_payload
from gpucal.io.l1.writer import ScanWriter
from gpucal.physics.atm import AtmosphereTable
from gpucal.pipeline.scan.noise import noise_attribute
from gpucal.pipeline.scan.work_units import l1_blocks, t_sys_blocks
from gpucal.pipeline.store.provenance import Origin
from gpucal.steps.loads import describe_loads
from gpucal.steps.precision import AS_COMPUTED, Precision
from gpucal.steps.scale import gamma_of_scan
from gpucal.steps.sky_diff import SkyDifferences
from gpucal.steps.sky_model import zenith_opacity
from gpucal.steps.solution import ScanSolution

Array = Any
Layout = dict[str, tuple[npt.NDArray[Any], tuple[str, ...], str]]
SPECTRUM_DIMS = ("channel", "dump", "receiver", "array", "subscan")
CRA = ("channel", "receiver", "array")
T_SYS_DIMS = (*CRA, "subscan")
RAS = ("receiver", "array", "subscan")
COORDINATES = "frequency mjd"
PAYLOADS_KEPT = 64


def root_attributes(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Root attributes of the calibrated store, taken from ``attrs`` of the raw store."""
    return {k: attrs[k] for k in ("telescope", "site", "instrument") if k in attrs}


def scan_attributes(
    solution: ScanSolution,
    failed_bands: Sequence[str],
    table: AtmosphereTable | None,
    origin: Origin,
) -> dict[str, Any]:
    """Attributes of a whole scan: those of L0 that users look for in L1, and those by which a repeat is decided.

    ``solution``: of its first band.
    """
    not_of_l1 = {"complete", "raw_headers"}
    return {
        **{k: v for k, v in solution.scan.attrs.items() if k not in not_of_l1},
        "scan_number": solution.scan.number,
        "failed_bands": list(failed_bands),
        "config_sha256": solution.config.fingerprint(),
        "config": solution.config.result_keys(),
        "l0_metadata_sha256": dict(origin.checksums),
        "l0_subscans": solution.group.shape[4],
        "atmosphere_sha256": table.sha256 if table is not None else None,
    }


def streamed_attributes(solution: ScanSolution) -> dict[str, dict[str, Any]]:
    """Attributes of the arrays that stream: name -> units, names, what the bits mean."""
    return {
        "spectra": {"units": "K", "long_name": "T_A*"},
        "flags": {
            "flag_masks": [int(f) for f in Flag],
            "flag_meanings": " ".join(str(f.name) for f in Flag),
        },
        "t_sys": {
            "units": "K",
            "long_name": "T_sys at the receiver's input",
            "t_sys_convention": solution.setup.sidebands,
        },
        "t_sys_star": {
            "units": "K",
            "long_name": "T_sys* above the air, on the scale of T_A*",
            "t_sys_convention": "T_sys*",
            "formula": _star_formula(solution),
        },
    }


def _star_formula(solution: ScanSolution) -> str:
    """T_sys* from T_sys, in the names of L1; physics equations (6.3) and (9.6)."""
    if solution.loads.scheme == "vane":
        return "t_sys / (f_eff exp(-A <tau_signal>))"
    gain = "g_s f_eff" if solution.setup.ssb else "f_eff"
    return f"t_sys / ({gain} exp(-A tau_signal))"


class L1Sink:
    """A StoredSink that writes the tiles of one band into a staged scan; ``precision``: how the spectra are kept."""

    def __init__(self, writer: ScanWriter, solution: ScanSolution) -> None:
        self._writer = writer
        self._solution = solution
        self.precision = AS_COMPUTED
        band = solution.scan.band
        c, d, r, a, s = solution.output_shape
        self._step = l1_blocks(solution)[0][1]
        self._t_sys_step = t_sys_blocks(solution)[0][1]
        chunk = (self._step, d, r, a, 1)
        of = streamed_attributes(solution)
        self._spectra = self._spectra_writer()
        self._flags: ArrayWriter = writer.array(
            band,
            "flags",
            (c, d, r, a, s),
            chunk,
            FLAG_DTYPE,
            SPECTRUM_DIMS,
            attrs={**of["flags"], "coordinates": COORDINATES},
        )
        self._t_sys: list[ArrayWriter] = [
            writer.array(
                band,
                name,
                (c, r, a, s),
                (self._t_sys_step, r, a, 1),
                np.float64,
                T_SYS_DIMS,
                fill_value=np.nan,
                attrs={**of[name], "coordinates": "frequency"},
            )
            for name in ("t_sys", "t_sys_star")
        ]
        self._payloads: dict[tuple[Any, ...], Payload] = {}
        self._lock = threading.Lock()

    def begin(self, precision: Precision) -> None:
        """Declare the spectra anew; see ``StoredSink``."""
        self.precision = precision
        self._writer.drop(self._spectra.key)
        self._spectra = self._spectra_writer()

    def _spectra_writer(self) -> ArrayWriter:
        shape = self._solution.output_shape
        store, of_array = self._writer.store, streamed_attributes(self._solution)["spectra"]
        return self._writer.array(
            self._solution.scan.band,
            "spectra",
            shape,
            (self._step, *shape[1:4], 1),
            np.float32 if self.precision.rounding else store.dtype,
            SPECTRUM_DIMS,
            fill_value=np.nan,
            attrs={**of_array, **self.precision.attributes(), "coordinates": COORDINATES},
        )

    def write_tile(
        self, output: int, channels: tuple[int, int], spectra: Array, flags: Array, n_own: int
    ) -> None:
        """Encode and store one tile; see ``TileSink``."""
        index = (channels[0] // self._step, 0, 0, 0, output)
        self._spectra.write_chunk(index, spectra[..., None])
        if n_own:
            self._flags.write_chunk(index, flags[..., None])
        else:
            self._same_flags(index, flags.shape, flags[:, 0])

    def write_on_device(
        self,
        lane: Lane,
        output: int,
        channels: tuple[int, int],
        spectra: Array,
        flags: Array,
        n_own: int,
    ) -> None:
        """Store one tile that the device encodes; see ``EncodedSink``."""
        index = (channels[0] // self._step, 0, 0, 0, output)
        self._encoded(lane, self._spectra, index, spectra, np.nan)
        if n_own:
            self._encoded(lane, self._flags, index, flags, 0)
            return
        first = lane.output(2, (flags.shape[0], *flags.shape[2:]), FLAG_DTYPE)
        first[...] = flags[:, 0, ...]
        (of_one_dump,) = lane.download(first)
        self._same_flags(index, tuple(flags.shape), of_one_dump)

    def _encoded(
        self, lane: Lane, array: ArrayWriter, index: tuple[int, ...], tile: Array, fill: Any
    ) -> None:
        """One chunk encoded by the device, or by the host where the bytes of the device are wrong."""
        data = lane.encode(
            tile, array.chunks[:-1], fill, lambda here: array.encode(here[..., None])
        )
        if data is not None:
            nbytes = math.prod(array.chunks) * array.dtype.itemsize
            try:
                payload = frames_payload(data, nbytes)
            except ValueError as error:
                lane.distrust(str(error))
            else:
                array.write_chunk(index, None, encoded=payload)
                return
        (here,) = lane.download(tile)
        array.write_chunk(index, here[..., None])

    def _same_flags(
        self, index: tuple[int, ...], shape: tuple[int, ...], of_one_dump: npt.NDArray[Any]
    ) -> None:
        """Encoded flags of a tile whose dumps are all equal, so tiles with equal flags share the bytes."""
        key = (shape, of_one_dump.tobytes())
        payload = self._payloads.get(key)
        if payload is None:
            flags = np.broadcast_to(of_one_dump[:, None], shape)
            payload = self._flags.encode(flags[..., None])
            with self._lock:
                if len(self._payloads) >= PAYLOADS_KEPT:
                    self._payloads.clear()
                self._payloads[key] = payload
        self._flags.write_chunk(index, None, encoded=payload)

    def write_t_sys(
        self, output: int, channels: tuple[int, int], t_sys: Array, t_sys_star: Array
    ) -> None:
        """Encode and store one block of T_sys and T_sys*; see ``TileSink``."""
        index = (channels[0] // self._t_sys_step, 0, 0, output)
        for array, values in zip(self._t_sys, (t_sys, t_sys_star), strict=True):
            array.write_chunk(index, self._solution.backend.to_host(values)[..., None])


def small_arrays(
    solution: ScanSolution,
) -> Layout:
    """All L1 arrays that do not stream: name -> (values, dims, units)."""
    host = solution.backend.to_host
    loads, atmosphere, setup = solution.loads, solution.atmosphere, solution.setup
    n_axes = setup.nu_sig.shape[1]
    per_axis = ("channel",) if n_axes == 1 else ("channel", "receiver")

    def axis(values: Array) -> npt.NDArray[Any]:
        array = np.asarray(host(values))
        return array[:, 0] if n_axes == 1 else array

    pwv = atmosphere.pwv[np.isfinite(atmosphere.pwv)]
    mean_pwv = float(pwv.mean()) if pwv.size else 0.0
    # Nothing is known of an image sideband that the receiver does not see.
    tau_image = axis(zenith_opacity(atmosphere.model, 1, mean_pwv))
    if not bool(np.any(np.asarray(host(setup.g_img)) > 0)):
        tau_image = np.full_like(tau_image, np.nan)
    out: Layout = {
        "t_rec": (np.asarray(host(loads.t_rec)), CRA, "K"),
        "gamma": (np.asarray(host(gamma_of_scan(solution))), CRA, "K"),
        "tau_signal": (axis(zenith_opacity(atmosphere.model, 0, mean_pwv)), per_axis, "Np"),
        "tau_image": (tau_image, per_axis, "Np"),
        "frequency": (axis(setup.nu_sig), per_axis, "Hz"),
        "image_frequency": (axis(setup.nu_img), per_axis, "Hz"),
        "on_index": (solution.pairing.on_index, ("subscan",), ""),
        "off_index_per_on": (solution.pairing.off_index_per_on, ("subscan",), ""),
    }
    out.update(_track(solution))
    errors = solution.errors
    assert errors is not None
    for name, values, unit in (
        ("pwv", atmosphere.pwv, "mm"),
        ("pwv_error", errors.pwv, "mm"),
        ("pwv_error_noise", errors.pwv_noise, "mm"),
        ("pwv_error_systematic", errors.pwv_systematic, "mm"),
        ("pwv_chi2", atmosphere.chi2, ""),
        ("pwv_chi2_noise", errors.chi2_noise, ""),
    ):
        out[name] = (*_by_scope(values, atmosphere.scope), unit)
    out["t_a_star_error"] = (errors.t_a_star, RAS, "1")
    return out


def _by_scope(
    values: npt.NDArray[np.float64], scope: str
) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    """[R|1, A|1, S_on|1] -> R,A (per pixel), S_on (per pair; median over pixels) or 0-d."""
    if scope == "per-pixel":
        return values[:, :, 0], ("receiver", "array")
    if scope == "per-pair":
        return np.median(values, axis=(0, 1)), ("subscan",)
    return values[0, 0, 0].reshape(()), ()


def _track(solution: ScanSolution) -> Layout:
    """Times and directions of the output subscans, [D,S_on] as in L0."""
    group, recipes = solution.group, solution.pairing.recipes
    n_dumps = solution.pairing.n_dumps
    out: Layout = {}
    units = {"mjd": "d", "exptime": "s", "elevation": "rad", "azimuth": "rad"}
    units |= {"otf_lon": "deg", "otf_lat": "deg"}
    for name, unit in units.items():
        values = np.asarray(getattr(group, name), dtype=np.float64)
        columns = [r.track(values, n_dumps, total=name == "exptime") for r in recipes]
        out[name] = (np.stack(columns, axis=-1), ("dump", "subscan"), unit)
    pixels = [recipe.pixel_offsets(group) for recipe in recipes]
    for i, name in enumerate(("pixel_offset_lon", "pixel_offset_lat")):
        out[name] = (np.stack([p[i] for p in pixels], axis=-1), RAS, "deg")
    return out


def write_band(
    writer: ScanWriter,
    solution: ScanSolution,
    attributes: Mapping[str, Any],
    diagnostics: Mapping[str, SkyDifferences],
) -> None:
    """Write everything of one band but the streamed arrays."""
    band = solution.scan.band
    for name, (values, dims, units) in small_arrays(solution).items():
        writer.put(band, name, values, dims, units=units)
    for kind, found in diagnostics.items():
        group = f"{band}/{kind}" if band else kind
        writer.group(group, {"units": "K"})
        writer.put(
            group,
            "spectrum_K",
            found.spectrum,
            ("difference", *CRA),
            units="K",
            attrs=found.attributes,
        )
    writer.set_attrs(band, attributes)


def band_attributes(solution: ScanSolution, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Attributes that say how a band was calibrated; notes: more warnings."""
    setup, atmosphere = solution.setup, solution.atmosphere
    g_sig = np.asarray(solution.backend.to_host(setup.g_sig))
    return {
        "mode": solution.pairing.mode,
        "pwv_scope": atmosphere.scope,
        "forward_efficiency": setup.f_eff,
        "gain_signal": float(g_sig.mean()),
        "line_scale": solution.config.line_scale,
        "noise_bandwidth": setup.noise_bandwidth,
        "folded": any(r.fold_throw() is not None for r in solution.pairing.recipes),
        "gain_drift_corrected": solution.drift is not None,
        "noise": noise_attribute(solution),
        "warnings": list(dict.fromkeys((*solution.warnings, *atmosphere.warnings, *notes))),
        **describe_loads(solution.loads),
    }
