"""What options may hold: types with their meaning and bounds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gpucal.option_model import Bandwidth, K

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
KernelForm = Annotated[
    Literal["fused", "plain"],
    Field(description="Kernels on a card: fused, or their readable, slower form."),
]
CalBandwidth = Annotated[
    Bandwidth,
    Field(
        description="Average T_rec in bins of this width, such as 20MHz, and interpolate; each channel by default.",
        json_schema_extra={"placeholder": "WIDTH"},
    ),
]
NoiseBandwidth = Annotated[
    Annotated[float, Field(gt=0, allow_inf_nan=False)] | None,
    Field(
        description="Noise bandwidth of a channel over its width, instead of the recorded one (else 1)."
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
