"""gpucal: raw counts of heterodyne arrays to calibrated T_A*.

The public names load on first use, so that ``import gpucal`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from gpucal.axes import Flag
    from gpucal.backend import select_backend
    from gpucal.config import CalibrationConfig, load_config
    from gpucal.errors import (
        AtmosphereError,
        BackendError,
        ConfigError,
        CorruptDataError,
        DeviceLostError,
        DeviceMemoryError,
        GpucalError,
        GpucalWarning,
        ImportFormatError,
        L0Error,
        L1Error,
        LoadError,
        OnlineError,
        PairingError,
        TableError,
    )
    from gpucal.export.rows import Selection, spectra_of_store
    from gpucal.export.spectrum1d import to_spectrum1d
    from gpucal.io.atmosphere.choice import atmosphere_for
    from gpucal.io.atmosphere.tables import load_table, save_table
    from gpucal.io.fits.class_fits import write_class_fits
    from gpucal.io.fits.one_spectrum import write_fits1d
    from gpucal.io.fits.sdfits_write import write_sdfits
    from gpucal.io.gbt.importer import import_sdfits
    from gpucal.io.gildas.reader import open_class
    from gpucal.io.gildas.writer import write_class
    from gpucal.io.l0.store import open_l0
    from gpucal.io.l0.write import CountsMaker, GroupArrays, create_l0, write_l0_scan
    from gpucal.io.l1.reader import open_l1
    from gpucal.io.raw_fits.importer import import_raw_fits
    from gpucal.io.raw_fits.writer import export_raw_fits
    from gpucal.physics.atm import AtmosphereTable
    from gpucal.pipeline.calibrate import calibrate_store
    from gpucal.pipeline.reduction.reduce import reduce_scan
    from gpucal.pipeline.reduction.reduced import ReduceOptions
    from gpucal.pipeline.scan.in_memory import CalibratedScan, calibrate_scan
    from gpucal.pipeline.store.report import StoreReport
    from gpucal.plot import PlotOptions, plot_scan, plot_store
    from gpucal.simulate import simulate_night, simulate_scan
    from gpucal.spectrum import Spectrum

_WHERE = {
    "gpucal.axes": ("Flag",),
    "gpucal.backend": ("select_backend",),
    "gpucal.config": ("CalibrationConfig", "load_config"),
    "gpucal.errors": (
        "AtmosphereError",
        "BackendError",
        "ConfigError",
        "CorruptDataError",
        "DeviceLostError",
        "DeviceMemoryError",
        "GpucalError",
        "GpucalWarning",
        "ImportFormatError",
        "L0Error",
        "L1Error",
        "LoadError",
        "OnlineError",
        "PairingError",
        "TableError",
    ),
    "gpucal.export.rows": ("Selection", "spectra_of_store"),
    "gpucal.export.spectrum1d": ("to_spectrum1d",),
    "gpucal.io.atmosphere.choice": ("atmosphere_for",),
    "gpucal.io.atmosphere.tables": ("load_table", "save_table"),
    "gpucal.io.fits.class_fits": ("write_class_fits",),
    "gpucal.io.fits.one_spectrum": ("write_fits1d",),
    "gpucal.io.fits.sdfits_write": ("write_sdfits",),
    "gpucal.io.gbt.importer": ("import_sdfits",),
    "gpucal.io.gildas.reader": ("open_class",),
    "gpucal.io.gildas.writer": ("write_class",),
    "gpucal.io.l0.store": ("open_l0",),
    "gpucal.io.l0.write": ("CountsMaker", "GroupArrays", "create_l0", "write_l0_scan"),
    "gpucal.io.l1.reader": ("open_l1",),
    "gpucal.io.raw_fits.importer": ("import_raw_fits",),
    "gpucal.io.raw_fits.writer": ("export_raw_fits",),
    "gpucal.physics.atm": ("AtmosphereTable",),
    "gpucal.pipeline.calibrate": ("calibrate_store",),
    "gpucal.pipeline.reduction.reduce": ("reduce_scan",),
    "gpucal.pipeline.reduction.reduced": ("ReduceOptions",),
    "gpucal.pipeline.scan.in_memory": ("CalibratedScan", "calibrate_scan"),
    "gpucal.pipeline.store.report": ("StoreReport",),
    "gpucal.plot": ("PlotOptions", "plot_scan", "plot_store"),
    "gpucal.simulate": ("simulate_night", "simulate_scan"),
    "gpucal.spectrum": ("Spectrum",),
}
"""Module -> the public names that it defines."""

_HOME = {name: module for module, names in _WHERE.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gpucal' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
