"""SAM45 logs for tests, written from the table of records, field after field, and not from the reader.

The layout is spelled out here once more, in the order of the records, with sizes of its own; offsets follow from it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal import Scan
from gpucal.simulate import SimulatedScan
from gpucal.simulate.setup import (
    BandSetup,
    InstrumentSetup,
    Line,
    Loads,
    Opacity,
    Receiver,
    Site,
    Timing,
    Weather,
)

N = 32
LIGHT = 299792458.0
JST = timedelta(hours=9)
EPOCH = datetime(1858, 11, 17)

CTL = "crec_type S4,irec_len i,cversion S8,clog_name S64,cbe_type S8"
OBS = """
crec_type S4,irec_len i,dant_off 2d,dsub_off 3d,dsrc_pos 6d,dstrv d,dmap_pos d,dmult_off d,dbsw_freq d,
dsw_freq 32d,dflif 32d,dcent_freq 32d,dtrk_freq 32d,dbebw 32d,dfqdat_f0 32d,dfqdat_fq 64d,dfqdat_ch 64d,
dbechwid 32d,dberes 32d,deffa 32d,deffb 32d,deffl 32d,defss 32d,dgain 32d,dhpbw 32d,dpoldr 32d,dbin_dwell 4d,
diptim d,reserve8 15d,ich_bind 32i,ich_range 64i,icalb_int i,ichannel 32i,iipint 32i,ipordr 32i,ichan_avg 4i,
istart_chan 4i,iend_chan 4i,drms_value f,on_axis 20f,irms_judge i,irms_mode i,irms_onnum i,
autofeedback_weight f,reserve4 64i,imd_obs B,icoord_type B,iscan_coord B,isw_mod B,ivdef B,ivref B,imlt_no 32B,
iary_ifatt 32B,iary_refno 32B,iary_usefg 32B,ibin_num B,in_spec_window 2B,clog_id S20,cst_time S16,cobs_file S20,
cobj_name S16,csrc_comment S24,cobs_user S40,cgroup S10,cproject S10,ctrk_type S8,cepoch S8,cscan_coord S8,
cseq_ptn S120,csid_type 32S4,cfe_type 32S10,chorn_typ 32S2,cpol_typ 32S5,csub_array S4,cinput_mode 2S6,
cbut_scale 2S64,crequant_rescale 2S64,crequant_scale 2S64,cmake_hfs_table 2S4,cmisc_flags_hfs 2S4,
cmisc_flags_lfs 2S4,cmisc_flags_mult 2S7,cfreq_prof_synth 4S4,cwin_func_id 4S16,crms_array S4,i2beam_mode B,
imlt_mode B,iary_num B,iotf_mode B,iotf_dumpall B,reserve1 S508
"""
DAT = """
crec_type S4,irec_len i,dant_prog 2d,dant_real 2d,dant_vel d,dmap_center 6d,dobs_pos 6d,dch_center 2d,
dscan_pos_xy 2d,dscan_pos_xy_origin 2d,dsun_distance d,dsun_ps_angle d,dint_edmjd d,dint_stmjd d,dtsys d,
dweather 5d,dcenter_frequency d,reserve8 15d,iinteg_time i,iline_no i,iscan_line i,iscan_no i,istart_channel i,
inumber_channels i,fwindow_overlap f,reserve4 11i,iary_no B,idmy_flag B,cary_name S4,cint_edtm S16,cint_sttm S32,
cscan_type S6,cscanid S20,clog_time S16,icdpc_endcode S1,iquantization_correction B,cpoln_products S6,
cwindow_function S17,reserve1 S87,fary_data 4096f
"""
END = "crec_type S4,irec_len i"
SIZES = {CTL: 88, OBS: 8472, DAT: 17064, END: 8}


def _fields(layout: str) -> list[tuple[str, str, int, int]]:
    """(name, letter, count, bytes of one text) of each field."""
    found = []
    for word in layout.replace("\n", "").split(","):
        name, form = word.split()
        letter = form.lstrip("0123456789")
        count = int(form[: len(form) - len(letter)] or 1)
        found.append((name, letter[0], count, int(letter[1:] or 0)))
    return found


def offset(layout: str, wanted: str) -> int:
    """Where a field begins in its record."""
    at = 0
    for name, letter, count, width in _fields(layout):
        if name == wanted:
            return at
        at += count * (width if letter == "S" else struct.calcsize("<" + letter))
    raise KeyError(wanted)


def record(layout: str, kind: bytes, values: dict[str, Any]) -> bytes:
    """A record of this type; what is not given is 0 or blank."""
    assert set(values) <= {name for name, *_ in _fields(layout)}, values.keys()
    parts = []
    size = SIZES[layout]
    given = {"crec_type": kind, "irec_len": size - 8, **values}
    for name, letter, count, width in _fields(layout):
        value = given.get(name)
        if letter == "S":
            words = [value] if isinstance(value, bytes | str) else list(value or [])
            texts = [w.encode() if isinstance(w, str) else bytes(w) for w in words]
            texts += [b""] * (count - len(texts))
            parts += [text.ljust(width, b"\0")[:width] for text in texts]
            continue
        flat = np.zeros(count) if value is None else np.asarray(value, float).ravel()
        padded = np.concatenate([flat, np.zeros(count - flat.size)])
        numbers = padded if letter in "df" else padded.astype(np.int64)
        parts.append(struct.pack(f"<{count}{letter}", *numbers.tolist()))
    made = b"".join(parts)
    assert len(made) == size, (len(made), size)
    return made


@dataclass
class Array:
    """One array: what the obs record says of it. width Hz, signed; frequencies Hz, in the rest frame."""

    centre: float
    width: float
    channels: int
    sideband: str = "USB"
    beam: int = 0
    polarisation: str = "H"
    frontend: str = "FOREST"
    attenuation: int = 0
    load: int = 290
    intermediate: float = 6e9
    throw: float = 0.0

    def points(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Two channels, counted from 1, and their frequencies: not the ends, and not symmetric."""
        a, b = 3.0, float(self.channels - 1)
        middle = self.channels // 2 + 1  # the centre lies on channel index C // 2 from 0
        return (a, b), tuple(self.centre + (c - middle) * self.width for c in (a, b))  # type: ignore[return-value]


@dataclass
class Log:
    """A log being made: records are added in any order of arrays, and written as they came."""

    arrays: Sequence[Array]
    otf: bool = True
    dump_s: float = 1.0
    source: str = "Orion-KL"
    velocity: float = 9000.0
    position: tuple[float, float] = (83.809, -5.3764)
    obs: dict[str, Any] = field(default_factory=dict)
    dats: list[bytes] = field(default_factory=list)
    numbers: list[int] = field(default_factory=lambda: list(range(1, N + 1)))

    def head(self) -> bytes:
        """ctl and obs."""
        a = self.arrays
        spread = {n: np.zeros(N) for n in ("chan", "cent", "wid", "lif", "sw")}
        axis_ch, axis_fq = np.zeros((N, 2)), np.zeros((N, 2))
        for k, x in enumerate(a):
            (axis_ch[k], axis_fq[k]) = x.points()
            spread["chan"][k], spread["cent"][k] = x.channels, x.centre
            spread["wid"][k], spread["lif"][k], spread["sw"][k] = (
                abs(x.width),
                x.intermediate,
                x.throw,
            )
        galactic = (208.99, -19.38)
        place = [self.position[0], galactic[0], 0.0, self.position[1], galactic[1], 0.0]
        values: dict[str, Any] = {
            "dsrc_pos": place,
            "dstrv": self.velocity,
            "dsw_freq": spread["sw"],
            "dflif": spread["lif"],
            "dcent_freq": spread["cent"],
            "dtrk_freq": spread["cent"],
            "dfqdat_f0": spread["cent"],
            "dfqdat_fq": axis_fq,
            "dfqdat_ch": axis_ch,
            "dbechwid": spread["wid"],
            "diptim": self.dump_s if self.otf else 0.0,
            "ichannel": spread["chan"],
            "iipint": [x.load for x in a],
            "imd_obs": 1,
            "isw_mod": 1,
            "ivdef": 1,
            "ivref": 1,
            "imlt_no": [x.beam for x in a],
            "iary_ifatt": [x.attenuation for x in a],
            "iary_usefg": [1] * len(a),
            "clog_id": "20251121120000",
            "cst_time": "20251121120000",
            "cobj_name": self.source,
            "cgroup": "gpucal",
            "cproject": "P1",
            "cepoch": "J2000",
            "csid_type": [x.sideband for x in a],
            "cfe_type": [x.frontend for x in a],
            "chorn_typ": [x.polarisation for x in a],
            "iary_num": len(a),
            "iotf_mode": int(self.otf),
        }
        ctl = {"cversion": "1.0", "clog_name": "log.synthetic", "cbe_type": "SAM45"}
        return record(CTL, b"L0", ctl) + record(OBS, b"L1", {**values, **self.obs})

    def add(self, kind: str, array: int, mjd: float, spectrum: Any, **fields: Any) -> None:
        """One dat record; mjd: UTC, the middle (OTF) or the beginning; array from 0; seconds with ms in OTF."""
        form = time_text(mjd, 4 if self.otf else 0)
        values: dict[str, Any] = {
            "cscan_type": kind,
            "cary_name": f"A{array + 1}",
            "iary_no": 41 + array,
            "cint_sttm": form,
            "cint_edtm": time_text(mjd + self.dump_s / 86400.0, 0),
            "iinteg_time": self.dump_s,
            "dweather": [6.85, 866.6, 5.0, 2.0, 120.0],
            "dant_real": [0.0, 0.0],
            "fary_data": np.asarray(spectrum, np.float32),
        }
        if not self.otf:
            values["dint_stmjd"], values["dint_edmjd"] = (
                mjd * 86400.0,
                mjd * 86400.0 + self.dump_s,
            )
        self.dats.append(record(DAT, b"L2", {**values, **fields}))

    def write(self, path: Path, *, end: bool = True) -> Path:
        """The log as a file."""
        closing = record(END, b"ED", {"irec_len": 0}) if end else b""
        path.write_bytes(self.head() + b"".join(self.dats) + closing)
        return path


def time_text(mjd: float, digits: int) -> str:
    """JST as the spectrometer writes it."""
    when = EPOCH + timedelta(microseconds=round(mjd * 86400e6)) + JST
    text = when.strftime("%Y%m%d%H%M%S")
    return f"{text}.{when.microsecond:06d}"[: 15 + digits] if digits else text


def mjd(text: str) -> float:
    """MJD (UTC) of a time in JST: YYYY-MM-DDThh:mm:ss.f."""
    return (datetime.fromisoformat(text) - JST - EPOCH) / timedelta(days=1)


# --- the antenna log ------------------------------------------------------------------------------

TITLES = "time ra_prog dec_prog az_prog el_prog az_real el_real az_error el_error"


def antenna_log(
    path: Path,
    times: npt.NDArray[np.float64],
    angles: Iterable[Sequence[float]],
    *,
    titles: str = "# antenna log",
    zone: timedelta = JST,
) -> Path:
    """Times: MJD (UTC); angles: the eight of each sample, deg."""
    lines = [titles]
    for when, sample in zip(times.tolist(), angles, strict=True):
        stamp = EPOCH + timedelta(microseconds=round(when * 86400e6)) + zone
        text = stamp.strftime("%Y%m%d%H%M%S.") + f"{stamp.microsecond:06d}"
        lines.append(" ".join([text, *(f"{x:.9f}" for x in sample)]))
    path.write_text("\n".join(lines) + "\n")
    return path


def elevation_of(when: Any, ra: Any, dec: Any) -> Any:
    """Elevation at the telescope, deg, from the mean sidereal time of the Astronomical Almanac; MJD (UTC), deg."""
    greenwich = 280.46061837 + 360.98564736629 * (np.asarray(when) - 51544.5)
    hour, d, lat = np.deg2rad(greenwich + 138.4725556 - ra), np.deg2rad(dec), np.deg2rad(35.9446944)
    sine = np.sin(lat) * np.sin(d) + np.cos(lat) * np.cos(d) * np.cos(hour)
    return np.rad2deg(np.arcsin(sine))


# --- a simulated night ----------------------------------------------------------------------------

GHZ = 1e9


def forest_setup(channels: int = 32, **changes: Any) -> InstrumentSetup:
    """FOREST: 4 beams, 2 polarisations, 2 sidebands of one mixer, a chopper wheel; a sky that does not change."""
    bands = []
    for name, signal, width in (
        ("band_1", 98.0 * GHZ, 1.0 * GHZ),
        ("band_2", 110.2 * GHZ, -1.0 * GHZ),
    ):
        image = 98.0 * GHZ + 110.2 * GHZ - signal
        lines = (Line(signal + 0.07 * GHZ, 0.15 * GHZ, 12.0),)
        bands.append(
            BandSetup(
                name,
                (signal, signal),
                (image, image),
                width,
                channels,
                Opacity(0.006, 0.05, 0.004),
                Receiver(60.0, gain_image=0.0, bad_per_pixel=0, gain_drift_per_h=0.0),
                lines,
                channels // 8 * width / channels,
            )
        )
    values: dict[str, Any] = {
        "name": "forest",
        "telescope": "NRO45M",
        "site": Site(35.9446944, 138.4725556, 1350.0),
        "bands": tuple(bands),
        "receivers": 2,
        "pixels": 4,
        "pixel_spacing_deg": 50 / 3600,
        "weather": Weather(6.0, pwv_drift_per_h=0.0, t_amb=280.0, p_amb=650.0),
        "line": "13CO",
        "timing": Timing(dumps=4, n_on=3, cal_dumps=3),
        "loads": Loads(290.0, 0.0, vane=True),
        "f_eff": 1.0,
        "kinds": ("otf",),
        "sky_drift": "none",
        "fill_fraction": 0.0,
    }
    return InstrumentSetup(**{**values, **changes})


VEL = -23456.0
"""dant_vel of the simulated logs, m/s."""

ATTENUATION = 6
"""dB that are put in during R."""


def zero_level(array: int, channels: int) -> npt.NDArray[np.float64]:
    """Counts of ZERO of an array."""
    return np.asarray(1000.0 + 10.0 * array + 0.25 * np.arange(channels), dtype=np.float64)


def forest_arrays(setup: InstrumentSetup, vel: float = VEL) -> list[Array]:
    """16 arrays, not in the order of beams: sideband fastest, then polarisation, then beam."""
    found = []
    rest = 1.0 - vel / LIGHT
    for beam in range(setup.pixels):
        for pol in range(setup.receivers):
            for band in setup.bands:
                signal, image = band.signal_freq[0], band.image_freq[0]
                found.append(
                    Array(
                        centre=signal / rest,
                        width=band.freq_res / rest,
                        channels=band.channels,
                        sideband="USB" if signal > image else "LSB",
                        beam=beam + 1,
                        polarisation="HV"[pol],
                        attenuation=ATTENUATION,
                        load=round(setup.loads.t_hot),
                        intermediate=abs(signal - image) / 2,
                        throw=band.throw_hz,
                    )
                )
    return found


def add_scan(log: Log, made: SimulatedScan, setup: InstrumentSetup, *, line: int = 0) -> None:
    """The subscans of a simulated scan as records: ZERO taken off again, R attenuated."""
    types = {"HOT": "R", "SKY": "SKY", "OTF-ON": "ON", "OTF-OFF": "OFF", "ON": "ON", "OFF": "OFF"}
    types |= {"FSW-SIG": "ON", "FSW-REF": "OFF"}
    for s, (name, index, mode) in enumerate(_subscans(made.scans[0])):
        for d in range(_group(made.scans[0], name).shape[1]):
            for k, (array, block) in enumerate(_spectra(made, setup, name, index, d)):
                mid = float(_group(made.scans[0], name).mjd[d, index])
                counts = block.astype(np.float64)
                if types[mode] == "R":
                    counts = counts / 10 ** (array.attenuation / 10.0)
                fields = {"dant_vel": VEL, "iline_no": line + s if types[mode] == "ON" else 0}
                begin = mid if log.otf else mid - 0.5 * log.dump_s / 86400.0
                values = counts + zero_level(k, array.channels)
                log.add(types[mode], k, begin, values, **fields)


def add_zero(log: Log, when: float, **fields: Any) -> None:
    """A ZERO of all arrays."""
    for k, array in enumerate(log.arrays):
        log.add("ZERO", k, when, zero_level(k, array.channels), dant_vel=VEL, **fields)


def _group(scan: Scan, name: str) -> Any:
    group = getattr(scan, name)
    assert group is not None
    return group


def _subscans(scan: Scan) -> list[tuple[str, int, str]]:
    """(group, index, mode) of all subscans, in order of time."""
    found = []
    for name in ("calibration", "source"):
        group = getattr(scan, name)
        if group is not None:
            mids = group.mjd_mid
            found += [(float(mids[i]), name, i, m) for i, m in enumerate(group.sobsmode)]
    return [(name, i, m) for _, name, i, m in sorted(found)]


def _spectra(
    made: SimulatedScan, setup: InstrumentSetup, name: str, index: int, d: int
) -> Iterable[tuple[Array, npt.NDArray[Any]]]:
    """Each array with its counts, in the order of ``forest_arrays``."""
    arrays = iter(forest_arrays(setup))
    for a in range(setup.pixels):
        for r in range(setup.receivers):
            for scan in made.scans:
                counts = np.asarray(_group(scan, name).counts.read(0, scan_channels(scan), index))
                yield next(arrays), counts[:, d, r, a]


def scan_channels(scan: Scan) -> int:
    """C of a scan."""
    group = scan.source or scan.calibration
    assert group is not None
    return int(group.shape[0])


# --- a small log of known counts ------------------------------------------------------------------

CHANNELS = 16
LEVEL = {"R": 900.0, "SKY": 400.0, "OFF": 410.0, "ON": 430.0}
"""Counts above ZERO; channel c has c more, array k 100 k more."""


def small_arrays(n: int = 2, **changes: Any) -> list[Array]:
    """Beams of one polarisation and sideband, 16 channels of 1 MHz at 110.2 GHz."""
    values = {"attenuation": 6, "frontend": "FOREST", **changes}
    return [Array(110.2e9, 1e6, CHANNELS, beam=k + 1, **values) for k in range(n)]


def counts_of(kind: str, array: int) -> npt.NDArray[np.float64]:
    """Counts of an array less ZERO, R with its attenuation undone."""
    return np.asarray(LEVEL[kind] + np.arange(CHANNELS) + 100.0 * array, dtype=np.float64)


def add_dump(log: Log, kind: str, when: float, **fields: Any) -> None:
    """One dump of all arrays."""
    for k, array in enumerate(log.arrays):
        values = zero_level(k, CHANNELS)
        if kind.startswith("R"):
            values = values + counts_of("R", k) / 10 ** (array.attenuation / 10.0)
        elif kind != "ZERO":
            values = values + counts_of(kind.partition("\0")[0].strip(), k)
        log.add(kind, k, when, values, **fields)


SMALL = ("ZERO", "R", "SKY", "OFF", "ON", "ON", "OFF")
SMALL_START = mjd("2025-11-21T21:00:00")
STEP = 2.0 / 86400.0


def small_log(kinds: Sequence[str] = SMALL, *, start: float = SMALL_START, **changes: Any) -> Log:
    """A position-switched log, a dump of 1 s every 2 s, with its elevation and position in the records."""
    fields = {"dant_real": [120.0, 50.0], "dobs_pos": [83.809, 0, 0, -5.3764, 0, 0]}
    log = Log(changes.pop("arrays", small_arrays()), **{"otf": False, **changes})
    for n, kind in enumerate(kinds):
        add_dump(log, kind, start + n * STEP, **fields)
    return log
