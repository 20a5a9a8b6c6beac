"""A simulated night in the form that the GBT's sdfits program 1.22 writes: its columns, formats and cards.

The list of columns is that of a real Argus session (74 columns; TELESCOP, CTYPE4, PROJID, BACKEND and the site
stand in the header, the unit of DATA in a column TUNIT7), the values of what is not simulated are those
found there: "Unknown" and blank words, NaN, AZ and EL for a vane. Strings are padded with blanks or, as other
programs write them, with NUL.

What the format cannot hold: an image sideband (GBT data are single sideband), a cold load but that of
the W-band wheel, a chopper, and maps, whose reference is another scan. ``gbt_form`` and ``w_band_form``
are presets without those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gpucal import Scan
from gpucal.simulate import SimulatedScan, simulate_scan
from gpucal.simulate.presets import preset
from gpucal.simulate.setup import InstrumentSetup, Loads, Receiver

ARGUS, W_BAND = "RcvrArray75_115", "Rcvr68_92"
KELVIN = 273.15
Row = dict[str, Any]

COLUMNS = (
    """
OBJECT 32A|BANDWID 1D Hz|DATE-OBS 22A|DURATION 1D s|EXPOSURE 1D s|TSYS 1D K|DATA E|TDIM7 16A|TUNIT7 6A
CTYPE1 8A Hz|CRVAL1 1D Hz|CRPIX1 1D|CDELT1 1D Hz|CTYPE2 4A|CRVAL2 1D deg|CTYPE3 4A|CRVAL3 1D deg|CRVAL4 1I
OBSERVER 32A|OBSID 32A|SCAN 1J|OBSMODE 32A|FRONTEND 16A|TCAL 1E K|VELDEF 8A|VFRAME 1D m/s|RVSYS 1D m/s
OBSFREQ 1D Hz|LST 1D s|AZIMUTH 1D deg|ELEVATIO 1D deg|TAMBIENT 1D K|PRESSURE 1D mmHg|HUMIDITY 1D
RESTFREQ 1D Hz|FREQRES 1D Hz|EQUINOX 1D|RADESYS 8A|TRGTLONG 1D deg|TRGTLAT 1D deg|SAMPLER 12A|FEED 1I|SRFEED 1I
FEEDXOFF 1D deg|FEEDEOFF 1D deg|SUBREF_STATE 1I|SIDEBAND 1A|PROCSEQN 1I|PROCSIZE 1I|PROCSCAN 16A|PROCTYPE 16A
LASTON 1J|LASTOFF 1J|TIMESTAMP 22A UTC|QD_XEL 1D deg|QD_EL 1D deg|QD_BAD 1I|QD_METHOD 1A|VELOCITY 1D m/s
ZEROCHAN 1E|DOPFREQ 1D Hz|ADCSAMPF 1D|VSPDELT 1D|VSPRVAL 1D|VSPRPIX 1D|SIG 1A|CAL 1A|CALTYPE 8A|TWARM 1E K
TCOLD 1E K|CALPOSITION 16A|IFNUM 1I|PLNUM 1I|FDNUM 1I
""".strip()
    .replace("\n", "|")
    .split("|")
)
"""Name, TFORM, unit of the columns, in their order."""

CARDS: dict[str, Any] = {
    "TELESCOP": "NRAO_GBT",
    "CTYPE4": "STOKES",
    "PROJID": "AGBT25A_001_01",
    "BACKEND": "VEGAS",
    "SITELONG": -79.83983,
    "SITELAT": 38.43312,
    "SITEELEV": 824.551,
    "EXTNAME": "SINGLE DISH",
}
PRIMARY: dict[str, Any] = {
    "ORIGIN": "NRAO Green Bank",
    "TELESCOP": "NRAO_GBT",
    "INSTRUME": "VEGAS",
    "SDFITVER": "sdfits ver1.22",
    "FITSVER": "1.9",
}
CONSTANT: Row = {
    "TSYS": 1.0,
    "TUNIT7": "Counts",
    "CTYPE1": "FREQ-OBS",
    "CRVAL4": -5,
    "OBSERVER": "A. Nobody",
    "OBSID": "unknown",
    "TCAL": 1.0,
    "VELDEF": "RADI-LSR",
    "VFRAME": -4510.7,
    "RVSYS": -4510.7,
    "LST": 58318.1,
    "HUMIDITY": 0.981,
    "SRFEED": 0,
    "SUBREF_STATE": 1,
    "SIDEBAND": "U",
    "PROCTYPE": "SIMPLE",
    "LASTON": 0,
    "LASTOFF": 0,
    "QD_XEL": np.nan,
    "QD_EL": np.nan,
    "QD_BAD": 1,
    "QD_METHOD": "A",
    "VELOCITY": 0.0,
    "ZEROCHAN": np.nan,
    "ADCSAMPF": 3e9,
    "VSPDELT": 32.0,
    "VSPRVAL": 16.0,
    "VSPRPIX": 17.0,
    "SIG": "T",
    "CAL": "F",
    "CALTYPE": "LOW",
    "TCOLD": np.nan,
    "CALPOSITION": "Observing",
    "EQUINOX": 2000.0,
    "RADESYS": "FK5",
}
ON_SKY: Row = {"CTYPE2": "RA", "CTYPE3": "DEC", "TRGTLONG": 148.97, "TRGTLAT": 69.68}
ON_VANE: Row = {
    "CTYPE2": "AZ",
    "CTYPE3": "EL",
    "EQUINOX": 0.0,
    "RADESYS": "",
    "TRGTLONG": 290.47,
    "TRGTLAT": 63.27,
}


def gbt_form(name: str, kinds: Sequence[Any] = ("tp", "nod", "fsw")) -> InstrumentSetup:
    """A preset as far as the GBT's format can hold it: four pixels, one sideband, a vane, f_eff 1."""
    setup = preset(name, channels=32, dumps=3, n_on=1, sky="isothermal")
    bands = tuple(
        replace(
            band,
            receiver=Receiver(
                band.receiver.t_rec, gain_image=0.0, gain_drift_per_h=0.0, bad_per_pixel=0
            ),
            throw_hz=band.throw_hz or 2 * abs(band.bandwidth_hz) / 32,
        )
        for band in setup.bands
    )
    return replace(
        setup,
        bands=bands,
        pixels=4,
        f_eff=1.0,
        weather=replace(setup.weather, pwv_drift_per_h=0.0),
        loads=Loads(285.0, 0.0, vane=True, separate=True),
        kinds=tuple(kinds),
        sky_drift="none",
        fill_fraction=0.0,
    )


def w_band_form(name: str = "argus") -> InstrumentSetup:
    """A preset with the loads of the W-band wheel and its two feeds; T_cold is that of the observatory."""
    setup = gbt_form(name, ("tp", "nod"))
    cold = 54.0 - 0.6 * (setup.bands[0].signal_freq[0] / 1e9 - 77.0)
    return replace(setup, pixels=2, loads=Loads(285.0, cold, separate=True))


class Session:
    """The rows of a night, scan after scan; ``truth``: scan number and band -> what must come back.

    counts are the simulated ones, without noise, in f4 as the telescope writes them.
    """

    def __init__(
        self, setup: InstrumentSetup, frontend: str = ARGUS, start: float = 60000.25
    ) -> None:
        self.setup, self.frontend, self.now = setup, frontend, start
        self.begin = start
        self.rows: list[Row] = []
        self.truth: dict[tuple[int, str], Any] = {}
        self.table: Any = None
        self._stamps: dict[int, str] = {}

    def _simulated(self, kind: Any, number: int) -> SimulatedScan:
        load = -1 if kind == "load" else 1
        self._stamps = {}
        made = simulate_scan(
            self.setup, kind, number, start=self.now, mjd0=self.begin, lloadsn=load
        )
        self.now = made.plan.end + 30.0 / 86400.0
        self.table = made.table
        return made

    def loads(self, number: int, *, phases: str = "T") -> None:
        """A vane scan and the sky scan after it, or the W-band sequence as one scan."""
        made = self._simulated("load", number)
        word = "Track:FSWITCH:FSW12NOCAL" if phases == "TF" else "Track:NONE:TPNOCAL"
        if not self.setup.loads.vane:
            self._wheel(made, number)
            return
        for s, target in enumerate(("VANE", "SKY")):
            where = ON_VANE | {"OBJECT": target, "OBSMODE": word, "PROCSIZE": 1, "PROCSCAN": "ON"}
            where["CALPOSITION"] = "Vane" if target == "VANE" else "Observing"
            for n, phase in enumerate(phases):
                before = len(self.rows)
                self._add(made, "calibration", s, number + s, {**where, "SIG": phase})
                for row in self.rows[before:] if phases == "TF" else ():
                    row["CRVAL1"] += self.setup.bands[row["IFNUM"]].throws[n]

    def _wheel(self, made: SimulatedScan, number: int) -> None:
        """CALSEQ: each feed sees its warm load where the other one sees its cold load."""
        sky = simulate_scan(self.setup, "tp", number, start=self.now, mjd0=self.begin, lloadsn=1)
        word = {"OBSMODE": "CALSEQ:NONE:TPNOCAL", "PROCSIZE": 1, "PROCSCAN": "AUTO"}
        word |= ON_SKY | {"OBJECT": "M82", "PROCTYPE": "CALIBRATION"}
        warm = {0: "Cold2", 1: "Cold1"}
        cold = {0: "Cold1", 1: "Cold2"}
        for s, at in ((0, warm), (1, cold)):
            for feed, position in at.items():
                self._add(made, "calibration", s, number, {**word, "CALPOSITION": position}, feed)
        self._add(sky, "source", 0, number, word)
        self.now = sky.plan.end + 30.0 / 86400.0

    def pair(self, number: int, procedure: str) -> None:
        """OnOff, OffOn or Nod: two scans; the words of OBSMODE are those of the telescope."""
        made = self._simulated("nod" if procedure == "Nod" else "tp", number)
        parts = {"Nod": (0, 1), "OnOff": (1, 2), "OffOn": (0, 1)}[procedure]
        state = {"Nod": ("NONE", "NONE"), "OnOff": ("PSWITCHON", "PSWITCHOFF")}
        words = state.get(procedure, ("PSWITCHOFF", "PSWITCHON"))
        roles = {"Nod": ("BEAM1", "BEAM2"), "OnOff": ("ON", "OFF"), "OffOn": ("OFF", "ON")}
        for half, (s, word) in enumerate(zip(parts, words, strict=True)):
            where = ON_SKY | {"OBJECT": "M82", "OBSMODE": f"{procedure}:{word}:TPNOCAL"}
            where |= {"PROCSEQN": half + 1, "PROCSIZE": 2, "PROCSCAN": roles[procedure][half]}
            lead = self.setup.nod_beams[half][1] if procedure == "Nod" else 0
            self._add(made, "source", s, number + half, where, lead=lead)
        self._keep(made, number, 0 if procedure == "Nod" else 1)

    def switched(self, number: int) -> None:
        """Frequency switching: both phases in every integration."""
        made = self._simulated("fsw", number)
        word = ON_SKY | {"OBJECT": "M82", "OBSMODE": "Track:FSWITCH:FSW12NOCAL", "PROCSIZE": 1}
        first = made.scan.source
        assert first is not None
        for s, phase in enumerate("TF"):
            where = {**word, "SIG": phase, "PROCSCAN": "ON"}
            self._add(made, "source", s, number, where, time_of=0)
        self._keep(made, number, 0)

    def _keep(self, made: SimulatedScan, number: int, subscan: int) -> None:
        for truth in made.truths:
            self.truth[number, truth.band] = (truth, subscan)

    def _add(
        self,
        made: SimulatedScan,
        name: str,
        s: int,
        number: int,
        where: Row,
        only: int = -1,
        lead: int = 0,
        time_of: int | None = None,
    ) -> None:
        """The rows of one subscan of all bands; ``lead``: the feed on the tracked position."""
        begin: list[str] = []
        for band, scan in enumerate(made.scans):
            for d, r, a, row in self._rows(scan, name, s, s if time_of is None else time_of):
                if only in (-1, a):
                    begin.append(row["DATE-OBS"])
                    offset = 0.008444 * (a - lead)
                    row |= {"SCAN": number, "IFNUM": band, "PLNUM": r, "FDNUM": a, "FEED": a + 1}
                    row |= {"FEEDXOFF": offset, "FEEDEOFF": 0.0, "SAMPLER": f"A{a + 1}_0"}
                    row["CRVAL2"], row["CRVAL3"] = (
                        148.97 + offset / np.cos(np.radians(69.68)),
                        69.68,
                    )
                    self.rows.append({**CONSTANT, "PROCSEQN": 1, **row, **where, "_dump": d})
        # the start of the scan, the same in all its rows
        stamp = self._stamps.setdefault(
            number, min(begin)[:19].translate(str.maketrans("-T", "__"))
        )
        for row in self.rows:
            row.setdefault("TIMESTAMP", stamp)

    def _rows(
        self, scan: Scan, name: str, s: int, time_of: int
    ) -> Iterator[tuple[int, int, int, Row]]:
        group = scan.source if name == "source" else scan.calibration
        assert group is not None
        c, dumps, receivers, pixels, _ = group.shape
        counts = np.asarray(group.counts.read(0, c, s))
        hot = self.setup.loads.t_hot - (KELVIN if self.frontend == ARGUS else 0.0)
        for d, r, a in np.ndindex(dumps, receivers, pixels):
            length = float(group.exptime[d, time_of])
            throw = 0.0 if group.freq_throw is None else float(group.freq_throw[r, s])
            frequency = float(group.signal_freq[r, s]) + throw
            yield (
                d,
                r,
                a,
                {
                    "DATA": counts[:, d, r, a].astype(np.float32),
                    "TDIM7": f"({c},1,1,1)",
                    "DATE-OBS": date_obs(float(group.mjd[d, time_of]) - 0.5 * length / 86400.0),
                    "DURATION": length,
                    "EXPOSURE": 0.99 * length,
                    "BANDWID": abs(float(group.freq_res[r, s])) * c,
                    "CRVAL1": frequency,
                    "OBSFREQ": frequency,
                    "CRPIX1": float(group.ref_channel[r, s]) + 1.0,
                    "CDELT1": float(group.freq_res[r, s]),
                    "FREQRES": abs(float(group.freq_res[r, s])),
                    "RESTFREQ": float(scan.attrs["rest_freq_hz"]),
                    "DOPFREQ": float(scan.attrs["rest_freq_hz"]),
                    "AZIMUTH": float(np.degrees(group.azimuth[d, s])),
                    "ELEVATIO": float(np.degrees(group.elevation[d, s])),
                    "TAMBIENT": float(group.tamb[s]),
                    "PRESSURE": float(group.pamb[s]),
                    "FRONTEND": self.frontend,
                    "TWARM": hot,
                },
            )


def date_obs(mjd: float) -> str:
    """DATE-OBS as the telescope writes it, to 0.01 s."""
    hundredths = np.timedelta64(round(mjd * 8640000.0) * 10, "ms")
    return str(np.datetime64("1858-11-17T00:00:00.000", "ms") + hundredths)[:22]


def write_bank(path: Path, rows: Iterable[Row], *, pad: bytes = b" ") -> Path:
    """Rows as a file of one bank; strings padded with ``pad``."""
    from astropy.io import fits

    rows = list(rows)
    columns = [text.split() for text in COLUMNS]
    n_channels = rows[0]["DATA"].size
    layout = {"XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 0, "NAXIS2": len(rows)}
    layout |= {"PCOUNT": 0, "GCOUNT": 1, "TFIELDS": len(columns)}
    head = fits.Header(list(layout.items()))
    fields: list[Any] = []
    for n, (name, form, *unit) in enumerate(columns, 1):
        form = f"{n_channels}E" if name == "DATA" else form
        # in real files the unit of DATA is blank here: it stands in the column TUNIT7
        head[f"TTYPE{n}"], head[f"TFORM{n}"], head[f"TUNIT{n}"] = name, form, "".join(unit)
        count, letter = int(form[:-1]), form[-1]
        kind = {"A": f"S{count}", "D": ">f8", "E": ">f4", "I": ">i2", "J": ">i4"}[letter]
        fields.append((name, kind, (count,)) if count > 1 and letter != "A" else (name, kind))
    for key, value in CARDS.items():
        head[key] = value
    table = np.zeros(len(rows), fields)
    head["NAXIS1"] = table.dtype.itemsize
    for i, row in enumerate(rows):
        for name, kind, *_ in fields:
            value = row[name]
            if kind.startswith("S"):
                value = str(value).encode().ljust(int(kind[1:]), pad)
            table[name][i] = value
    data = table.tobytes()
    first = fits.PrimaryHDU(header=fits.Header(list(PRIMARY.items())))
    with open(path, "wb") as stream:
        stream.write(first.header.tostring().encode())
        stream.write(head.tostring().encode())
        stream.write(data + bytes(-len(data) % 2880))
    return path
