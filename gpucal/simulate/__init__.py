"""Simulated scans and nights with known truth, from the equations themselves. Calibrating them belongs in pipeline."""

from gpucal.simulate.compare import compare_to_truth
from gpucal.simulate.counts import Recording
from gpucal.simulate.night import SimulatedScan, simulate_night, simulate_scan
from gpucal.simulate.presets import PRESETS, preset
from gpucal.simulate.procedures import ProcedureTruth, rehearsal
from gpucal.simulate.setup import InstrumentSetup, Procedures
from gpucal.simulate.sky import synthetic_table
from gpucal.simulate.truth import Truth, load_truth

__all__ = [
    "PRESETS",
    "InstrumentSetup",
    "ProcedureTruth",
    "Procedures",
    "Recording",
    "SimulatedScan",
    "Truth",
    "compare_to_truth",
    "load_truth",
    "preset",
    "rehearsal",
    "simulate_night",
    "simulate_scan",
    "synthetic_table",
]
