"""Equations of radiation, atmosphere and frequency on plain numbers. Scans, files and devices do not belong here."""
