"""Files that the calibration and the procedure of a job leave for later tasks."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path

from gpucal.errors import OnlineError
from gpucal.online.queue.events import Job
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.reasons import reason_of
from gpucal.online.site.whole_files import write_whole
from gpucal.pipeline.reduction.products import Reduced


@dataclass(frozen=True)
class Outcome:
    """What the calibration task did for a job.

    looks: files beside it; end: procedure of a scan that has ended, "" while it goes on; l1: its spectra are
    in the project's store; loads: "valid" or "bad" where it brought a new calibration; late: bands that had to be left
    out.
    """

    looks: tuple[str, ...] = ()
    end: str = ""
    cancelled: bool = False
    l1: bool = False
    loads: str = ""
    late: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        write_whole(path, json.dumps(vars(self)).encode())

    @classmethod
    def load(cls, path: Path) -> Outcome:
        """Read what ``save`` wrote. Raises OnlineError when it is not there or not whole."""
        try:
            found = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise OnlineError(f"{path.name} of the calibration cannot be read: {error}.") from error
        return cls(**{**found, "looks": tuple(found["looks"]), "late": tuple(found["late"])})

    @classmethod
    def known(cls, path: Path) -> Outcome | None:
        """The outcome of the same job before; None where there is none."""
        try:
            return cls.load(path)
        except (OnlineError, KeyError, TypeError):
            return None


def outcome_path(config: OnlineConfig, job: Job) -> Path:
    """Where the calibration task leaves its outcome for ``job``; the looks lie beside it."""
    return config.work_of("calibration", job.project) / job.name


@dataclass(frozen=True)
class Product:
    """The result of the obs_procedure task, for the plot task. final: of the whole scan, not of a subscan."""

    reduced: Reduced | None
    final: bool


def product_path(config: OnlineConfig, job: Job) -> Path:
    """Where the obs_procedure task leaves its product for ``job``."""
    return config.work_of("obs_procedure", job.project) / f"{job.stem}.pickle"


def save_product(config: OnlineConfig, job: Job, product: Product) -> None:
    """Leave the product of ``job``."""
    write_whole(product_path(config, job), pickle.dumps(product))


def load_product(config: OnlineConfig, job: Job) -> Product:
    """Read the product of ``job``; it was written by this program, in its own folder."""
    path = product_path(config, job)
    try:
        found = pickle.loads(path.read_bytes())
    except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ImportError) as error:
        reason = reason_of(error)
        raise OnlineError(f"{path.name} of the procedure cannot be read: {reason}.") from error
    if not isinstance(found, Product):
        raise OnlineError(f"{path.name} of the procedure holds something else.")
    return found
