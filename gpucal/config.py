"""Options of a calibration, validated before data are touched."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from gpucal import option_texts as texts
from gpucal import option_values as kinds
from gpucal.errors import ConfigError
from gpucal.option_model import DEG, MIB, MM, NP, K, M, OptionModel, S, read_toml
from gpucal.scan_numbers import parse_scans

Mode = Literal["auto", "tp", "otf", "otf-chopped", "nod", "fsw", "wsw"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Sigma = Annotated[float, Field(ge=0, le=50)]

GROUPS: dict[str, str] = {
    "What": "scans",
    "Loads": "cal_scheme",
    "Atmosphere": "atmosphere",
    "Errors of the inputs": "error_t_hot",
    "Elevation": "scale_off_airmass",
    "Reference and diagnostics": "reference",
    "Output and execution": "precision",
    "Alarms": "alarm_rms_low",
}
"""Headings of the help and of the pages -> the first field below each."""


class CalibrationConfig(OptionModel):
    """Options of ``gpucal calibrate``; every field is also a key of the TOML file.

    Temperatures in K, PWV in mm, opacity in Np, times in s, angles in degrees, sizes in MiB. Frozen:
    ``config.model_copy(update={...})`` makes another. Raises ConfigError, with one sentence per wrong
    field: its name, what was found, what is allowed. The fields, with what each allows, are in the
    table of all options; ``help(gpucal.CalibrationConfig)`` lists them too.
    """

    scans: str = Field(
        "",
        description="Scan numbers such as 1,5-9; all by default.",
        json_schema_extra={"placeholder": "LIST"},
    )
    mode: Mode = Field("auto", description="Observing mode; auto reads it from sobsmode.")
    partial: bool = Field(
        False, description="Also calibrate scans that are not complete yet, as far as they go."
    )
    overwrite: bool = Field(
        False, description="Replace scans that are already in OUT; their flag rules are kept."
    )
    flags: str = Field(
        "",
        description="TOML file of flag rules: samples to leave out, as with gpucal flag.",
        json_schema_extra={"placeholder": "RULES"},
    )
    # loads
    cal_scheme: Literal["auto", "hot-cold", "vane", "vane-channel"] = Field(
        "auto", description="Which loads calibrate: hot and cold, or a vane and the sky."
    )
    t_hot: Positive | None = Field(
        None,
        description="Temperature of the hot load, instead of the recorded one.",
        json_schema_extra=K,
    )
    t_cold: Positive | None = Field(
        None,
        description="Temperature of the cold load, instead of the recorded one.",
        json_schema_extra=K,
    )
    hot_coupling: kinds.HotCoupling = 1.0
    cold_coupling: kinds.ColdCoupling = 1.0
    f_eff: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Forward efficiency, instead of the recorded one."
    )
    gain_image: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None, description="Gain of the image over that of the signal sideband; 1 = DSB."
    )
    gain_interpolate: Literal[0, 2, 3] = Field(
        0, description="Gain drift between loads: off (0), in ON (2), in ON and OFF (3)."
    )
    vane_sky: Literal["off", "sky"] = Field(
        "off", description="Sky of the vane schemes: own OFF, or the SKY of the load scan."
    )
    vane_average: Literal["mean", "median"] = Field(
        "mean", description="Vane T_sys*: mean of the inner 80 % of channels, or median of all."
    )
    vane_airmass: Literal["auto", "each", "sky"] = Field(
        "auto",
        description="Vane T_sys*: airmass each its own, or the sky's for all (dysh); auto: that with the median.",
    )
    max_cal_age: Positive = Field(
        3600.0,
        description="A load scan older than this sets the flag CAL_STALE.",
        json_schema_extra=S,
    )
    clip_counts: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.01, description="Bad channel below this fraction of the largest HOT - COLD."
    )
    clip_trec: Positive = Field(
        20000.0, description="Bad channel above this T_rec.", json_schema_extra=K
    )
    clip_tsys: Positive = Field(
        200.0, description="Bad channel above this multiple of the median T_rec."
    )
    cal_bandwidth: kinds.CalBandwidth = ""
    line_scale: Literal["ssb", "dsb"] = Field(
        "ssb", description="T_A* of the signal sideband (ssb) or of both (dsb)."
    )
    noise_bandwidth: kinds.NoiseBandwidth = None
    physics: Literal["exact", "kalibrate"] = Field(
        "exact", description="Exact h/k, or the constant of the kalibrate program."
    )
    pixel_t_rec: kinds.PixelTRec = 5.0
    pixel_sky: kinds.PixelSky = 0.1
    # atmosphere
    atmosphere: str = Field(
        "auto",
        description="Table file, site name, auto, or none (then give tau).",
        json_schema_extra={"placeholder": "TABLE"},
    )
    pwv: Literal["fit"] | Positive = Field(
        "fit", description="Fit the water vapour, or use this value in mm.", json_schema_extra=MM
    )
    pwv_scope: Literal["full", "per-pixel", "per-pair"] = Field(
        "full", description="One PWV per scan, per pixel, or per ON-OFF pair."
    )
    fit_sky: kinds.FitSky = "off"
    airmass: Literal["plane", "spherical", "gbt"] = Field(
        "plane",
        description="Plane-parallel or spherical atmosphere, or the formula of the GBT's programs.",
    )
    ozone_scale: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Factor on the ozone column of the table."
    )
    ozone: kinds.Ozone = "table"
    opacity_trust: Fraction = Field(
        0.05, description="Fractional error of the opacity model, in weights and errors."
    )
    t_atm: Positive | None = Field(
        None,
        description="One temperature of the atmosphere, without layers.",
        json_schema_extra=K,
    )
    t_atm_factor: Positive = Field(
        1.0, description="Factor from ambient to atmospheric temperature; not 1: without layers."
    )
    t_atm_offset: float = Field(
        0.0,
        description="Offset from ambient to atmospheric temperature; not 0: without layers.",
        json_schema_extra=K,
    )
    t_cab: kinds.TCab = "amb"
    tau: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None, description="Zenith opacity, with atmosphere none.", json_schema_extra=NP
    )
    # errors (1 sigma): they go into pwv_error and t_a_star_error alone
    error_t_hot: Sigma = Field(1.0, description="Error of T_hot.", json_schema_extra=K)
    error_t_cold: Sigma = Field(2.0, description="Error of T_cold.", json_schema_extra=K)
    error_f_eff: Fraction = Field(0.01, description="Error of the forward efficiency.")
    error_g_image: Fraction = Field(0.02, description="Error of g_i, where there is an image.")
    error_t_amb: Sigma = Field(2.0, description="Error of T_amb.", json_schema_extra=K)
    error_t_cab: Sigma = Field(2.0, description="Error of a given t_cab.", json_schema_extra=K)
    error_pwv: Fraction = Field(0.1, description="Fractional error of a PWV that --pwv gives.")
    # elevation
    scale_off_airmass: kinds.OffAirmass = False
    airmass_per: kinds.AirmassPer = "auto"
    # reference
    reference: Literal["linear", "nearest", "per-dump"] = Field(
        "linear", description="How the OFFs around an ON become its reference."
    )
    dbs_coupling: bool = Field(False, description="Merge the two beams of chopped scans.")
    fold: bool = Field(True, description="Fold frequency-switched spectra.")
    elevation_low: Annotated[float, Field(ge=0, lt=90)] = Field(
        10.0,
        description="ON below this elevation sets the flag ELEVATION_LOW.",
        json_schema_extra=DEG,
    )
    # diagnostics
    spike_sigma: Annotated[float, Field(ge=0)] = Field(
        8.0,
        description="Flag samples (SPIKE) and dumps (TSYS_OUTLIER) that stand alone by this many sigma; 0: none.",
    )
    skydiff: Annotated[int, Field(ge=0)] = Field(
        0, description="Also write sky differences against the N previous OFFs; 0 = none."
    )
    skychopdiff: bool = Field(
        False, description="Also write the difference of the two chop phases of the OFF."
    )
    # output and execution
    precision: str = Field(
        "exact",
        description="T_A* as computed (exact), or rounded to a Kth of its noise, in a sixth of the bytes (noise:K; "
        "noise: 16).",
        json_schema_extra={"placeholder": "exact|noise[:K]"},
    )
    dtype: Literal["f64", "f32"] = Field(
        "f64", description="Type of the spectra in L1; rounded ones are f32."
    )
    codec: str = Field(
        "zstd:1",
        description="zstd:LEVEL, blosc-lz4 (that of precision noise), blosc-zstd or none.",
        json_schema_extra={"placeholder": "NAME"},
    )
    backend: Literal["auto", "cuda", "cpu"] = Field("auto", description="Where to compute.")
    kernels: kinds.KernelForm = "fused"
    workers: Annotated[int, Field(ge=0)] = Field(0, description="Threads; 0 = one per core.")
    scheduler: str | None = Field(
        None,
        description="Address of a dask scheduler, to work on a cluster.",
        json_schema_extra={"placeholder": "ADDRESS"},
    )
    devices: str = Field(
        "",
        description="One process per device, e.g. 0,1 or all; none: this process alone.",
        json_schema_extra={"placeholder": "LIST"},
    )
    io: Literal["auto", "host", "device"] = Field(
        "auto", description="Where chunks are decoded and encoded; auto: the faster one."
    )
    ring: Annotated[int, Field(ge=16)] = Field(
        1024,
        description="Memory for the tiles in flight, of each process.",
        json_schema_extra=MIB,
    )
    # alarms: numbers that cannot be right
    alarm_rms_low: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="Alarm below this ratio of measured to expected rms."
    )
    alarm_rms_high: Annotated[float, Field(gt=1)] = Field(
        3.0, description="Alarm above this ratio of measured to expected rms."
    )
    alarm_t_hot_low: Positive = Field(
        200.0, description="Alarm for a hot load that is colder.", json_schema_extra=K
    )
    alarm_t_hot_high: Positive = Field(
        350.0, description="Alarm for a hot load that is warmer.", json_schema_extra=K
    )
    alarm_t_cold_high: Positive = Field(
        150.0, description="Alarm for a cold load that is warmer.", json_schema_extra=K
    )
    alarm_t_rec: Positive = Field(
        5000.0, description="Alarm above this T_rec of a pixel.", json_schema_extra=K
    )
    alarm_t_sys: Positive = Field(
        10000.0, description="Alarm above this T_sys.", json_schema_extra=K
    )
    alarm_chi2: Positive = Field(
        3.0, description="Alarm above this chi2 per degree of freedom of the PWV fit."
    )
    alarm_altitude: Positive = Field(
        400.0,
        description="Alarm when the site, or its recorded pressure, is further from the altitude of the table.",
        json_schema_extra=M,
    )
    alarm_flagged: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="Alarm above this fraction of blank samples."
    )
    strict: bool = Field(False, description="Exit code 2 when there is an alarm.")

    @field_validator("scans", "devices", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        return texts.numbers_text(value)

    @field_validator("gain_interpolate", mode="before")
    @classmethod
    def _digit(cls, value: Any) -> Any:
        """A number that comes as text."""
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    @field_validator("atmosphere", mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        """A path as text."""
        return os.fspath(value) if isinstance(value, os.PathLike) else value

    @field_validator("codec")
    @classmethod
    def _known_codec(cls, value: str) -> str:
        return texts.codec_text(value)

    @field_validator("precision")
    @classmethod
    def _known_precision(cls, value: str) -> str:
        return texts.precision_text(value)

    @field_validator("scans")
    @classmethod
    def _scan_list(cls, value: str) -> str:
        parse_scans(value)
        return value

    @field_validator("devices")
    @classmethod
    def _device_list(cls, value: str) -> str:
        return texts.device_list_text(value)

    @model_validator(mode="after")
    def _consistent(self) -> CalibrationConfig:
        if self.tau is not None and self.atmosphere not in ("none", "auto"):
            raise ValueError("tau is given together with an atmosphere table: choose one of them")
        fitted = self.pwv == "fit" and self.tau is None and not self.cal_scheme.startswith("vane")
        if why := kinds.useless_fits(self.fit_sky, self.ozone, self.pwv_scope, fitted=fitted):
            raise ValueError(why)
        if self.t_hot is not None and self.t_cold is not None and self.t_hot <= self.t_cold:
            raise ValueError(f"t_hot is {self.t_hot} K, not above t_cold, {self.t_cold} K")
        if self.cal_bandwidth and self.gain_interpolate:
            raise ValueError("cal_bandwidth and gain_interpolate exclude each other")
        if self.scheduler and self.skydiff:
            raise ValueError("skydiff needs the scans in order: not possible with scheduler")
        if self.devices and self.skydiff:
            raise ValueError("skydiff needs the scans in order: not possible with devices")
        if self.devices and self.scheduler:
            raise ValueError("devices and scheduler exclude each other")
        if self.noise_steps is not None and "codec" not in self.model_fields_set:
            self.__dict__["codec"] = "blosc-lz4"  # not chosen: it packs rounded spectra best
        return self

    @property
    def noise_steps(self) -> int | None:
        """Steps of the rounding of T_A* in the noise of one dump; None: T_A* is not rounded."""
        return texts.steps_of(self.precision)

    @property
    def one_temperature(self) -> bool:
        """Whether an option gives the atmosphere one temperature, so that its layers do not count."""
        return self.t_atm is not None or self.t_atm_factor != 1.0 or self.t_atm_offset != 0.0

    def result_keys(self) -> dict[str, Any]:
        """The options that can change a number in L1 (not how fast or where it is computed)."""
        return self.model_dump(
            exclude={
                *("scans", "overwrite", "flags", "strict", "backend", "workers"),
                *("scheduler", "devices", "io", "ring", "kernels"),
                *(name for name in type(self).model_fields if name.startswith("alarm_")),
            }
        )

    def fingerprint(self) -> str:
        """SHA-256 over ``result_keys`` but the name of the table, whose content has its own checksum.

        The same fingerprint and the same table mean the same L1 from the same L0.
        """
        keys = {k: v for k, v in self.result_keys().items() if k != "atmosphere"}
        text = json.dumps(keys, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load_config(path: str | Path | None = None, **overrides: Any) -> CalibrationConfig:
    """The configuration of a TOML file, with ``overrides`` (None = not given) on top.

    path: the file, None for the defaults. overrides: fields of ``CalibrationConfig`` by name. Raises
    ConfigError, with one sentence per wrong key, also when the file cannot be read.
    """
    values = read_toml(path) if path is not None else {}
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        return CalibrationConfig(**{**values, **given})
    except ConfigError as error:
        place = f"{path}: " if values and _is_wrong(values) else ""
        raise ConfigError(f"{place}{error.message}", hint="See gpucal calibrate --help.") from None


def _is_wrong(values: dict[str, Any]) -> bool:
    """Whether fields are wrong by themselves, so that it is not an override that is."""
    try:
        CalibrationConfig(**values)
    except ConfigError:
        return True
    return False


def as_config(
    given: CalibrationConfig | Mapping[str, Any] | str | Path | None,
) -> CalibrationConfig:
    """The configuration from what a caller may give for it.

    given: a configuration, its fields by name, the path of a TOML file, or None for the defaults. Raises
    ConfigError for anything else, and as ``load_config``.
    """
    if isinstance(given, CalibrationConfig):
        return given
    if given is None or isinstance(given, str | os.PathLike):
        return load_config(given)
    if isinstance(given, Mapping):
        return load_config(None, **{str(key).replace("-", "_"): v for key, v in given.items()})
    raise ConfigError(
        f"config is {given!r}, expected a CalibrationConfig, a dict of its fields such as "
        "{'tau': 0.1}, or the path of a TOML file."
    )
