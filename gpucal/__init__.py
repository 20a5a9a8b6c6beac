"""gpucal: raw counts of heterodyne arrays to calibrated T_A*."""

__version__ = "0.1.0.dev0"
