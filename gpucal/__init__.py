"""gpucal: raw counts of heterodyne arrays calibrated to T_A*.

The public names load on first use, so that ``import gpucal`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gpucal.version import __version__

if TYPE_CHECKING:
    from gpucal.axes import Flag as Flag
    from gpucal.backend.select import select_backend as select_backend
    from gpucal.calibrated_scan import CalibratedScan as CalibratedScan
    from gpucal.calibrated_scan import calibrate_scan as calibrate_scan
    from gpucal.cli.main import main as main
    from gpucal.compare.class_file import ClassComparison as ClassComparison
    from gpucal.compare.class_file import compare_class as compare_class
    from gpucal.compare.picture import plot_comparison as plot_comparison
    from gpucal.compare.products import StoreComparison as StoreComparison
    from gpucal.compare.stores import compare_stores as compare_stores
    from gpucal.config import CalibrationConfig as CalibrationConfig
    from gpucal.config import load_config as load_config
    from gpucal.errors import AtmosphereError as AtmosphereError
    from gpucal.errors import BackendError as BackendError
    from gpucal.errors import ConfigError as ConfigError
    from gpucal.errors import CorruptDataError as CorruptDataError
    from gpucal.errors import DeviceLostError as DeviceLostError
    from gpucal.errors import DeviceMemoryError as DeviceMemoryError
    from gpucal.errors import EmptyScanError as EmptyScanError
    from gpucal.errors import GpucalError as GpucalError
    from gpucal.errors import GpucalWarning as GpucalWarning
    from gpucal.errors import ImportFormatError as ImportFormatError
    from gpucal.errors import L0Error as L0Error
    from gpucal.errors import L0KeyError as L0KeyError
    from gpucal.errors import L1Error as L1Error
    from gpucal.errors import L1KeyError as L1KeyError
    from gpucal.errors import LoadError as LoadError
    from gpucal.errors import OnlineError as OnlineError
    from gpucal.errors import OtherSettingsError as OtherSettingsError
    from gpucal.errors import PairingError as PairingError
    from gpucal.errors import TableError as TableError
    from gpucal.export.rows import Selection as Selection
    from gpucal.export.rows import spectra_of_store as spectra_of_store
    from gpucal.export.spectrum1d import to_spectrum1d as to_spectrum1d
    from gpucal.io.atmosphere.choice import atmosphere_for as atmosphere_for
    from gpucal.io.atmosphere.tables import load_table as load_table
    from gpucal.io.atmosphere.tables import save_table as save_table
    from gpucal.io.fits.class_fits import write_class_fits as write_class_fits
    from gpucal.io.fits.one_spectrum import write_fits1d as write_fits1d
    from gpucal.io.fits.sdfits_write import write_sdfits as write_sdfits
    from gpucal.io.gbt.importer import import_sdfits as import_sdfits
    from gpucal.io.gildas.reader import open_class as open_class
    from gpucal.io.gildas.writer import write_class as write_class
    from gpucal.io.incoming.one_way import import_raw as import_raw
    from gpucal.io.incoming.protocol import ImportReport as ImportReport
    from gpucal.io.l0.scan_writer import L0Writer as L0Writer
    from gpucal.io.l0.store import open_l0 as open_l0
    from gpucal.io.l0.write import CountsMaker as CountsMaker
    from gpucal.io.l0.write import GroupArrays as GroupArrays
    from gpucal.io.l0.write import create_l0 as create_l0
    from gpucal.io.l0.write import write_l0_scan as write_l0_scan
    from gpucal.io.l1.flag_rules import FlagRule as FlagRule
    from gpucal.io.l1.manual_flags import flag as flag
    from gpucal.io.l1.manual_flags import flag_rules as flag_rules
    from gpucal.io.l1.manual_flags import unflag as unflag
    from gpucal.io.l1.reader import open_l1 as open_l1
    from gpucal.io.raw_fits.importer import import_raw_fits as import_raw_fits
    from gpucal.io.raw_fits.writer import export_raw_fits as export_raw_fits
    from gpucal.physics.atm import AtmosphereTable as AtmosphereTable
    from gpucal.pipeline.calibrate import calibrate_store as calibrate_store
    from gpucal.pipeline.reduction.products import ReduceOptions as ReduceOptions
    from gpucal.pipeline.reduction.reduce import reduce_scan as reduce_scan
    from gpucal.pipeline.store.report import StoreReport as StoreReport
    from gpucal.plot import PlotOptions as PlotOptions
    from gpucal.plot import plot_scan as plot_scan
    from gpucal.plot import plot_store as plot_store
    from gpucal.plot.fits import plot_fits as plot_fits
    from gpucal.scan import Scan as Scan
    from gpucal.scan import SubscanGroup as SubscanGroup
    from gpucal.simulate import simulate_night as simulate_night
    from gpucal.simulate import simulate_scan as simulate_scan
    from gpucal.spectrum import Spectrum as Spectrum

_WHERE = {
    "gpucal.axes": ("Flag",),
    "gpucal.backend.select": ("select_backend",),
    "gpucal.calibrated_scan": ("CalibratedScan", "calibrate_scan"),
    "gpucal.cli.main": ("main",),
    "gpucal.compare.class_file": ("ClassComparison", "compare_class"),
    "gpucal.compare.picture": ("plot_comparison",),
    "gpucal.compare.products": ("StoreComparison",),
    "gpucal.compare.stores": ("compare_stores",),
    "gpucal.config": ("CalibrationConfig", "load_config"),
    "gpucal.errors": (
        "AtmosphereError",
        "BackendError",
        "ConfigError",
        "CorruptDataError",
        "DeviceLostError",
        "DeviceMemoryError",
        "EmptyScanError",
        "GpucalError",
        "GpucalWarning",
        "ImportFormatError",
        "L0Error",
        "L0KeyError",
        "L1Error",
        "L1KeyError",
        "LoadError",
        "OnlineError",
        "OtherSettingsError",
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
    "gpucal.io.incoming.one_way": ("import_raw",),
    "gpucal.io.incoming.protocol": ("ImportReport",),
    "gpucal.io.l0.scan_writer": ("L0Writer",),
    "gpucal.io.l0.store": ("open_l0",),
    "gpucal.io.l0.write": ("CountsMaker", "GroupArrays", "create_l0", "write_l0_scan"),
    "gpucal.io.l1.flag_rules": ("FlagRule",),
    "gpucal.io.l1.manual_flags": ("flag", "flag_rules", "unflag"),
    "gpucal.io.l1.reader": ("open_l1",),
    "gpucal.io.raw_fits.importer": ("import_raw_fits",),
    "gpucal.io.raw_fits.writer": ("export_raw_fits",),
    "gpucal.physics.atm": ("AtmosphereTable",),
    "gpucal.pipeline.calibrate": ("calibrate_store",),
    "gpucal.pipeline.reduction.products": ("ReduceOptions",),
    "gpucal.pipeline.reduction.reduce": ("reduce_scan",),
    "gpucal.pipeline.store.report": ("StoreReport",),
    "gpucal.plot": ("PlotOptions", "plot_scan", "plot_store"),
    "gpucal.plot.fits": ("plot_fits",),
    "gpucal.scan": ("Scan", "SubscanGroup"),
    "gpucal.simulate": ("simulate_night", "simulate_scan"),
    "gpucal.spectrum": ("Spectrum",),
}
"""Module -> the public names that it defines."""

_SUBMODULES = ("errors", "plot", "procedures", "simulate")
"""Public modules, beside the names below; all others belong to the program itself."""

_HOME = {name: module for module, names in _WHERE.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"gpucal.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'gpucal' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBMODULES])
