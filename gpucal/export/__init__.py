"""Calibrated scans as rows, frames and spectra for other programs. File formats belong in io."""
