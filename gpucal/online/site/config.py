"""The configuration of a site: everything an operator can choose."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from gpucal.config import CalibrationConfig
from gpucal.errors import ConfigError
from gpucal.online.queue.events import safe_name
from gpucal.option_model import OptionModel, read_toml

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class OnlineConfig(OptionModel):
    """Options of ``gpucal online``; every field is a key of its TOML file. Times in s."""

    data: Path = Field(Path("data"), description="results: one folder per project")
    work: Path = Field(Path("work"), description="what tasks leave for each other")
    pipe: Path = Field(Path("pipe"), description="the directories of jobs")
    database: str = Field("", description="SQLAlchemy address; empty = DATA/gpucal.db")
    workers: dict[str, Annotated[int, Field(ge=0, le=64)]] = Field(
        default_factory=dict, description="processes per task, 1 where nothing is said"
    )
    attempts: Annotated[int, Field(ge=1)] = Field(3, description="failures until a job is given up")
    crashes: Annotated[int, Field(ge=1)] = Field(
        20, description="dead workers until a job is given up"
    )
    timeout: Seconds = Field(600.0, description="longest time for one job")
    stale_after: Seconds = Field(30.0, description="silence after which a worker counts as gone")
    poll: Seconds = Field(2.0, description="slow look beside the file-system events")
    end_timeout: Seconds = Field(900.0, description="silence after which a scan has ended")
    use_later_calibration: bool = Field(
        True, description="calibrate a scan without loads when a calibration comes after it"
    )
    class_average: Literal["auto", "none", "dumps", "subscans"] = Field(
        "auto",
        description="average of CLASS files; auto: none on the fly, where every dump has its position, else dumps",
    )
    feedback_command: list[str] = Field(
        default_factory=list, description="run with the JSON on its standard input"
    )
    feedback_url: str = Field("", description="the JSON is sent there by POST")
    calibration: CalibrationConfig = Field(default_factory=CalibrationConfig)

    _given: tuple[str, ...] = PrivateAttr(())

    def command(self, *words: str) -> str:
        """A command of ``gpucal online`` for this site, with the options that chose it, as a shell takes it."""
        return shlex.join(["gpucal", "online", *words, *self._given])

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{(self.data / 'gpucal.db').absolute()}"

    def project(self, name: str) -> Path:
        """Folder of a project's results."""
        return self.data / safe_name(name)

    def work_of(self, task: str, project: str) -> Path:
        """Working directory of a task for a project."""
        return self.work / task / safe_name(project)


def load_online_config(path: str | Path | None = None, **overrides: Any) -> OnlineConfig:
    """Read a TOML file; ``overrides`` (None = not given) win.

    Relative folders, and an atmosphere table, in the file are relative to the file. Raises
    ConfigError with one sentence.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = read_toml(path)
        base = Path(path).absolute().parent
        for key in ("data", "work", "pipe"):
            if isinstance(values.get(key), str):
                values[key] = base / values[key]
        calibration = values.get("calibration")
        if isinstance(calibration, dict):
            table = calibration.get("atmosphere")
            if isinstance(table, str) and (base / table).exists():  # else a site, or "none"
                values["calibration"] = {**calibration, "atmosphere": str(base / table)}
    values.update({key: value for key, value in overrides.items() if value is not None})
    given = [("config", path), *((key, overrides.get(key)) for key in ("data", "work", "pipe"))]
    try:
        config = OnlineConfig(**values)
    except ConfigError as error:
        place = f"{path}: " if path is not None else "online configuration: "
        raise ConfigError(f"{place}{error.message}") from None
    words = [(f"--{name}", str(value)) for name, value in given if value is not None]
    config._given = tuple(word for pair in words for word in pair)
    return config
