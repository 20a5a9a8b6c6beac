"""Ready-made instruments: the layouts of real arrays, at a size that is simulated in seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from gpucal.errors import ConfigError
from gpucal.simulate.setup import (
    BandSetup,
    InstrumentSetup,
    Line,
    Loads,
    Opacity,
    Receiver,
    Site,
    Sky,
    Timing,
    Weather,
)

GHZ = 1e9
MHZ = 1e6


def _lines(signal_hz: float, image_hz: float, width_hz: float, peak_k: float) -> tuple[Line, ...]:
    """Three lines in the signal band and one in the image band."""
    w = abs(width_hz)
    return (
        Line(signal_hz, 0.02 * w, peak_k),
        Line(signal_hz - 0.21 * w, 0.008 * w, 0.4 * peak_k),
        Line(signal_hz + 0.27 * w, 0.012 * w, 0.25 * peak_k),
        Line(image_hz - 0.12 * w, 0.01 * w, 0.5 * peak_k),
    )


def _hera() -> InstrumentSetup:
    signal, image, width = 230.538 * GHZ, 238.538 * GHZ, 1.0 * GHZ
    band = BandSetup(
        "",
        (signal, signal),
        (image, image),
        width,
        512,
        Opacity(0.055, 0.012, 0.03),
        Receiver(110.0, gain_image=0.1),
        _lines(signal, image, width, 8.0),
        60 * MHZ,
    )
    return InstrumentSetup(
        name="hera",
        telescope="IRAM-30M",
        site=Site(37.06611, -3.39278, 2850.0),
        bands=(band,),
        receivers=2,
        pixels=9,
        pixel_spacing_deg=24 / 3600,
        weather=Weather(3.0, t_amb=275.0, p_amb=545.0, elevation_deg=55.0),
        line="CO(2-1)",
        loads=Loads(290.0, 80.0),
        f_eff=0.92,
        kinds=("otf", "tp", "otf", "fsw", "otf", "wsw-chopped", "tp", "otf"),
        sky="layered",
    )


def _upgreat() -> InstrumentSetup:
    h, v, if_hz, width = 1900.537 * GHZ, 1900.937 * GHZ, 1.5 * GHZ, -2.0 * GHZ
    band = BandSetup(
        "",
        (h, v),
        (h - 2 * if_hz, v - 2 * if_hz),
        width,
        512,
        Opacity(9.0, 0.03, 0.3),
        Receiver(900.0, gain_image=1.0, gain_drift_per_h=0.02),
        _lines(h, h - 2 * if_hz, width, 15.0),
    )
    return InstrumentSetup(
        name="upgreat",
        telescope="SOFIA",
        site=Site(34.64, -118.08, 12500.0),
        bands=(band,),
        receivers=2,
        pixels=7,
        pixel_spacing_deg=32 / 3600,
        weather=Weather(0.01, t_amb=217.0, p_amb=135.0, elevation_deg=40.0),
        line="[CII]",
        timing=Timing(dumps=10),
        loads=Loads(295.0, 150.0, separate=True),
        f_eff=0.97,
        kinds=("otf-chopped", "otf", "tp"),
    )


def _chai() -> InstrumentSetup:
    bands = []
    for name, signal, t_rec, opacity in (
        ("band_1", 461.041 * GHZ, 130.0, Opacity(0.66, 0.053, 0.2)),
        ("band_2", 809.342 * GHZ, 280.0, Opacity(1.1, 0.08, 0.15)),
    ):
        image, width = signal + 12 * GHZ, 4.0 * GHZ
        bands.append(
            BandSetup(
                name,
                (signal,),
                (image,),
                width,
                256,
                opacity,
                Receiver(t_rec, gain_image=0.95, gain_drift_per_h=0.01, bad_per_pixel=2),
                _lines(signal, image, width, 12.0),
            )
        )
    return InstrumentSetup(
        name="chai",
        telescope="FYST",
        site=Site(-22.985639, -67.740278, 5600.0),
        bands=tuple(bands),
        receivers=1,
        pixels=64,
        pixel_spacing_deg=30 / 3600,
        weather=Weather(0.5, t_amb=268.0, p_amb=390.0, elevation_deg=60.0),
        line="CO(4-3), [CI]",
        timing=Timing(dumps=6, n_on=4),
        loads=Loads(295.0, 77.0, separate=True),
        kinds=("otf", "otf-chopped"),
        sky="layered",
    )


def _argus() -> InstrumentSetup:
    signal, width = 93.1735 * GHZ, 0.1875 * GHZ
    image = signal - 2.8 * GHZ
    band = BandSetup(
        "",
        (signal,),
        (image,),
        width,
        1024,
        Opacity(0.006, 0.05, 0.004),
        Receiver(60.0, gain_image=0.0, bad_per_pixel=0),
        _lines(signal, image, width, 4.0),
        20 * MHZ,
    )
    return InstrumentSetup(
        name="argus",
        telescope="GBT",
        site=Site(38.43312, -79.83983, 825.0),
        bands=(band,),
        receivers=1,
        pixels=16,
        pixel_spacing_deg=30.4 / 3600,
        weather=Weather(9.0, pwv_drift_per_h=0.0, t_amb=278.0, p_amb=690.0),
        line="N2H+(1-0)",
        timing=Timing(dumps=8),
        loads=Loads(285.0, 0.0, vane=True),
        f_eff=1.0,
        kinds=("nod", "tp", "fsw", "otf"),
        sky="layered",
    )


def _superc() -> InstrumentSetup:
    signal, width = 345.796 * GHZ, 0.9 * GHZ
    image = signal - 10 * GHZ
    band = BandSetup(
        "",
        (signal,),
        (image,),
        width,
        256,
        Opacity(0.2, 0.02, 0.06),
        Receiver(90.0, gain_image=1.0),
        _lines(signal, image, width, 10.0),
    )
    return InstrumentSetup(
        name="superc",
        telescope="APEX",
        site=Site(-23.005792, -67.759142, 5107.0),
        bands=(band,),
        receivers=1,
        pixels=64,
        pixel_spacing_deg=22 / 3600,
        weather=Weather(0.8, t_amb=270.0, p_amb=415.0),
        line="CO(3-2)",
        timing=Timing(dumps=6),
        loads=Loads(293.0, 77.0),
        kinds=("otf", "tp", "wsw"),
        sky="layered",
    )


PRESETS: dict[str, Callable[[], InstrumentSetup]] = {
    "hera": _hera,
    "upgreat": _upgreat,
    "chai": _chai,
    "argus": _argus,
    "superc": _superc,
}
"""hera 2 x 9 pixels, upgreat 2 x 7, chai 2 bands x 64, argus 16 with a vane, superc 64. All but upgreat, which is above
1 THz, under a layered sky."""


def preset(
    name: str,
    *,
    channels: int | None = None,
    dumps: int | None = None,
    n_on: int | None = None,
    sky: str | None = None,
) -> InstrumentSetup:
    """Return a preset, with other numbers of channels, dumps per subscan or ON subscans per scan, or another sky.

    The bandwidth stays, so fewer channels are wider. Raises ConfigError for an unknown name or sky.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset is {name!r}, expected one of {', '.join(PRESETS)}.")
    setup = PRESETS[name]()
    if channels is not None:
        bands = tuple(replace(band, channels=channels) for band in setup.bands)
        setup = replace(setup, bands=bands)
    if sky is not None:
        setup = replace(setup, sky=cast(Sky, sky))  # checked by the setup
    timing = setup.timing
    timing = replace(timing, dumps=dumps or timing.dumps, n_on=n_on or timing.n_on)
    return replace(setup, timing=timing)
