"""Options of a calibration, validated before data are touched."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gpucal.errors import ConfigError

Mode = Literal["auto", "tp", "otf", "otf-chopped", "nod", "fsw", "wsw"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class CalibrationConfig(BaseModel):
    """Options of ``gpucal calibrate``; every field is also a key of the TOML file.

    Temperatures in K, PWV in mm, opacity in Np, times in s, angles in degrees, sizes in MiB. Frozen:
    ``config.model_copy(update={...})`` makes another. Raises ValidationError (pydantic) for a wrong
    value; ``load_config`` says it in one sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    # what
    scans: str = Field("", description="scan numbers, e.g. 1,5-9; empty = all")
    mode: Mode = "auto"
    partial: bool = False
    overwrite: bool = False
    # loads
    cal_scheme: Literal["auto", "hot-cold", "vane", "vane-channel"] = "auto"
    t_hot: Positive | None = None
    t_cold: Positive | None = None
    f_eff: Annotated[float, Field(gt=0, le=1)] | None = None
    gain_image: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    gain_interpolate: Literal[0, 2, 3] = 0
    vane_sky: Literal["off", "sky"] = Field(
        "off", description="sky of the vane scheme: the scan's own OFF, or the SKY of the load scan"
    )
    vane_average: Literal["mean", "median"] = Field(
        "mean",
        description="T_sys* of the vane scheme: means over the inner 80 % of the channels, or the "
        "median over all channels",
    )
    vane_airmass: Literal["auto", "each", "sky"] = Field(
        "auto",
        description="T_sys* of the vane scheme with the airmasses of source, OFF and sky, each its own; "
        "or all at that of the sky, as dysh takes it; auto: dysh's way with its median, else each",
    )
    pixel_t_rec: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        5.0,
        description="a pixel whose T_rec differs from the median of its receiver by more than this "
        "factor is left out of the common fit of the water; 0 = none is",
    )
    pixel_sky: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.1,
        description="the same for the sky that its OFF shows, as a fraction of HOT - COLD; 0 = none is",
    )
    max_cal_age: Positive = Field(3600.0, description="s; older load scans set CAL_STALE")
    clip_counts: Annotated[float, Field(ge=0, lt=1)] = 0.01
    clip_trec: Positive = 20000.0
    clip_tsys: Positive = 200.0
    line_scale: Literal["ssb", "dsb"] = "ssb"
    physics: Literal["exact", "kalibrate"] = "exact"
    # atmosphere
    atmosphere: str = Field("auto", description="table path, site name, auto, or none")
    pwv: Literal["fit"] | Positive = "fit"
    pwv_scope: Literal["full", "per-pixel", "per-pair"] = "full"
    airmass: Literal["plane", "spherical", "gbt"] = "plane"
    ozone_scale: Annotated[float, Field(ge=0)] = 1.0
    opacity_trust: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.05, description="eps: fractional error of the opacity model in the fit weights"
    )
    t_atm: Positive | None = None
    t_atm_factor: Positive = 1.0
    t_atm_offset: float = 0.0
    tau: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None, description="zenith opacity, with atmosphere = none"
    )
    # reference
    reference: Literal["linear", "nearest", "per-dump"] = "linear"
    dbs_coupling: bool = False
    fold: bool = Field(True, description="fold frequency-switched spectra")
    elevation_low: Annotated[float, Field(ge=0, lt=90)] = Field(
        10.0, description="deg; ON below it sets ELEVATION_LOW"
    )
    # diagnostics
    spike_sigma: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        8.0,
        description="samples and dumps that stand alone, this many sigma away from the others, are flagged SPIKE "
        "and TSYS_OUTLIER; 0 = none is",
    )
    skydiff: Annotated[int, Field(ge=0)] = 0
    skychopdiff: bool = False
    # output and execution
    dtype: Literal["f64", "f32"] = "f64"
    codec: str = Field("zstd:1", description="zstd:LEVEL, blosc-lz4, blosc-zstd or none")
    backend: Literal["auto", "cuda", "cpu"] = "auto"
    workers: Annotated[int, Field(ge=0)] = Field(0, description="threads; 0 = one per core")
    scheduler: str | None = Field(None, description="address of a dask scheduler")
    devices: str = Field(
        "", description="one process per device, e.g. 0,1 or all; empty = this process alone"
    )
    io: Literal["auto", "host", "device"] = Field(
        "auto", description="where chunks are decoded and encoded: by the host, or on the device"
    )
    ring: Annotated[int, Field(ge=16)] = Field(1024, description="MiB of tiles in flight")
    # alarms: numbers that cannot be right
    alarm_rms_low: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="alarm below this ratio of measured to expected rms"
    )
    alarm_rms_high: Annotated[float, Field(gt=1)] = Field(
        3.0, description="alarm above this ratio of measured to expected rms"
    )
    alarm_t_hot_low: Positive = Field(200.0, description="K; alarm for a colder hot load")
    alarm_t_hot_high: Positive = Field(350.0, description="K; alarm for a warmer hot load")
    alarm_t_cold_high: Positive = Field(150.0, description="K; alarm for a warmer cold load")
    alarm_t_rec: Positive = Field(5000.0, description="K; alarm above this T_rec of a pixel")
    alarm_t_sys: Positive = Field(10000.0, description="K; alarm above this T_sys")
    alarm_chi2: Positive = Field(
        3.0, description="alarm above this chi2 per degree of freedom of the PWV fit"
    )
    alarm_altitude: Positive = Field(
        400.0, description="m; alarm when site and atmosphere table are further apart in altitude"
    )
    alarm_flagged: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="alarm above this fraction of flagged samples"
    )
    strict: bool = Field(False, description="exit code 2 when there is an alarm")

    @field_validator("codec")
    @classmethod
    def _known_codec(cls, value: str) -> str:
        """``zstd`` becomes ``zstd:1``; level 0 would mean the default of the library."""
        name, _, level = value.partition(":")
        if name == "zstd":
            if level and not (
                level.lstrip("-").isdigit() and -7 <= int(level) <= 22 and int(level)
            ):
                raise ValueError(f"zstd level is {level!r}, expected -7..22 without 0")
            return f"zstd:{int(level) if level else 1}"
        if name not in ("blosc-lz4", "blosc-zstd", "none") or level:
            raise ValueError(
                f"codec is {value!r}, expected zstd:LEVEL, blosc-lz4, blosc-zstd or none"
            )
        return name

    @field_validator("scans")
    @classmethod
    def _scan_list(cls, value: str) -> str:
        parse_scans(value)
        return value

    @field_validator("devices")
    @classmethod
    def _device_list(cls, value: str) -> str:
        if value.strip() in ("", "all"):
            return value.strip()
        names = [name.strip() for name in value.split(",")]
        if not all(re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", name) for name in names):
            raise ValueError(f"devices is {value!r}, expected all, or device numbers such as 0,1")
        if len(set(names)) < len(names):
            raise ValueError(f"devices is {value!r}, which names a device twice")
        return ",".join(names)

    @model_validator(mode="after")
    def _consistent(self) -> CalibrationConfig:
        if self.tau is not None and self.atmosphere not in ("none", "auto"):
            raise ValueError("tau is given together with an atmosphere table: choose one of them")
        if self.t_hot is not None and self.t_cold is not None and self.t_hot <= self.t_cold:
            raise ValueError(f"t_hot is {self.t_hot} K, not above t_cold, {self.t_cold} K")
        if self.scheduler and self.skydiff:
            raise ValueError("skydiff needs the scans in order: not possible with scheduler")
        if self.devices and self.skydiff:
            raise ValueError("skydiff needs the scans in order: not possible with devices")
        if self.devices and self.scheduler:
            raise ValueError("devices and scheduler exclude each other")
        return self

    def __repr__(self) -> str:
        """The options that differ from the defaults."""
        defaults = {k: f.default for k, f in type(self).model_fields.items()}
        chosen = [f"{k}={v!r}" for k, v in self if v != defaults[k]]
        return f"CalibrationConfig({', '.join(chosen) or 'all defaults'})"

    __str__ = __repr__

    def result_keys(self) -> dict[str, Any]:
        """The options that can change a number in L1 (not how fast or where it is computed)."""
        return self.model_dump(
            exclude={
                *("scans", "overwrite", "backend", "workers", "scheduler", "devices", "io", "ring"),
                *(
                    "strict",
                    *(name for name in type(self).model_fields if name.startswith("alarm_")),
                ),
            }
        )

    def fingerprint(self) -> str:
        """SHA-256 over ``result_keys`` but the name of the table, whose content has its own checksum.

        The same fingerprint and the same table mean the same L1 from the same L0.
        """
        keys = {k: v for k, v in self.result_keys().items() if k != "atmosphere"}
        text = json.dumps(keys, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def parse_scans(text: str) -> frozenset[int] | None:
    """Read ``"1,5-9"``; None means all scans."""
    if not text.strip():
        return None
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f"scans is {text!r}, expected numbers and ranges such as 1,5-9")
        lo, hi = int(first), int(last) if dash else int(first)
        if hi < lo:
            raise ValueError(f"scans holds the range {part.strip()!r}, which runs backwards")
        numbers.update(range(lo, hi + 1))
    return frozenset(numbers)


def load_config(path: str | Path | None = None, **overrides: Any) -> CalibrationConfig:
    """The configuration of a TOML file, with ``overrides`` (None = not given) on top.

    path: the file, None for the defaults. overrides: fields of ``CalibrationConfig`` by name. Raises
    ConfigError, with one sentence per wrong key, also when the file cannot be read.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(
                f"configuration file {path} cannot be read: {error.strerror}."
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"configuration file {path} is not valid TOML: {error}.") from error
        values = {key.replace("-", "_"): value for key, value in values.items()}
    values.update({key: value for key, value in overrides.items() if value is not None})
    try:
        return CalibrationConfig(**values)
    except ValidationError as error:
        raise ConfigError(_sentence(error), hint="See gpucal calibrate --help.") from error


def _sentence(error: ValidationError) -> str:
    """All errors of pydantic as one sentence, each once, in the words of the options."""
    texts = []
    for item in error.errors():
        key = ".".join(str(x) for x in item["loc"][:1])
        message = item["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
        if item["type"] == "extra_forbidden":
            texts.append(f"option {key!r} does not exist")
        elif key and not message.startswith(key):
            texts.append(f"{key} is {item['input']!r}: {message}")
        else:
            texts.append(message)
    return "; ".join(dict.fromkeys(texts)) + "."
