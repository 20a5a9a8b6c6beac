"""Equations of radiation, atmosphere and frequency on plain numbers. Nothing of scans, files or devices."""
