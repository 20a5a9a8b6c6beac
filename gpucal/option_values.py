"""What options may hold: types with their meaning and bounds, and texts that name several things."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from gpucal.option_model import K

AirmassPer = Annotated[
    Literal["auto", "dump", "subscan"],
    Field(
        description="Airmass of T_A*: each dump's own, or its subscan's; auto: each dump's where it moves "
        "T_A* by 0.1 %."
    ),
]

PixelTRec = Annotated[
    float,
    Field(
        ge=0,
        description="Leave a pixel out of the common fit of the water whose T_rec is off by this factor; "
        "0: none.",
    ),
]
PixelSky = Annotated[
    float,
    Field(
        ge=0,
        description="The same for one whose OFF shows a sky that is off by this fraction of HOT - COLD; "
        "0: none.",
    ),
]
HotCoupling = Annotated[
    float,
    Field(
        gt=0, le=1, description="Part of the beam that is on the hot load; the rest is at t_cab."
    ),
]
ColdCoupling = Annotated[
    float,
    Field(
        gt=0, le=1, description="Part of the beam that is on the cold load; the rest is at t_cab."
    ),
]
TCab = Annotated[
    Literal["amb", "hot"] | Annotated[float, Field(ge=150, le=350)],
    Field(
        description="Temperature of what the beam sees beside sky and loads: T_amb, that of the hot load, or K.",
        json_schema_extra=K,
    ),
]
FitSky = Annotated[
    Literal["off", "loads", "both"],
    Field(description="What the water is fitted to: the OFFs, the SKY of the load scan, or both."),
]
Ozone = Annotated[
    Literal["table", "fit"],
    Field(
        description="Ozone as the table has it, or its column fitted where its lines are in the band."
    ),
]
OffAirmass = Annotated[
    bool,
    Field(
        description="Move the sky of the OFF to the elevation of the ON, by the fitted atmosphere."
    ),
]


def useless_fits(fit_sky: str, ozone: str, scope: str, *, fitted: bool) -> str:
    """Why ``fit_sky`` or ``ozone`` cannot do anything; "" where they can. fitted: whether the water is fitted."""
    wanted = [
        f"{name} is {value!r}"
        for name, value, usual in (("fit_sky", fit_sky, "off"), ("ozone", ozone, "table"))
        if value != usual
    ]
    if wanted and not fitted:
        return f"{' and '.join(wanted)}, but the water is not fitted: leave out pwv, tau and the vane schemes"
    if fit_sky != "off" and scope == "per-pair":
        return (
            f"fit_sky is {fit_sky!r}, but pwv_scope per-pair gives each ON the sky of its own OFF"
        )
    return ""


def codec_name(value: str) -> str:
    """The codec of L1; ``zstd`` becomes ``zstd:1``, as level 0 would mean the default of the library.

    Raises ValueError for anything but zstd:LEVEL, blosc-lz4, blosc-zstd and none.
    """
    name, _, level = value.partition(":")
    if name == "zstd":
        if level and not (level.lstrip("-").isdigit() and -7 <= int(level) <= 22 and int(level)):
            raise ValueError(f"zstd level is {level!r}, expected -7..22 without 0")
        return f"zstd:{int(level) if level else 1}"
    if name not in ("blosc-lz4", "blosc-zstd", "none") or level:
        raise ValueError(f"codec is {value!r}, expected zstd:LEVEL, blosc-lz4, blosc-zstd or none")
    return name


def device_names(value: str) -> str:
    """``all``, "" or a list such as 0,1; raises ValueError for other names and for one that comes twice."""
    if value.strip() in ("", "all"):
        return value.strip()
    names = [name.strip() for name in value.split(",")]
    if not all(re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", name) for name in names):
        raise ValueError(f"devices is {value!r}, expected all, or device numbers such as 0,1")
    if len(set(names)) < len(names):
        raise ValueError(f"devices is {value!r}, which names a device twice")
    return ",".join(names)
