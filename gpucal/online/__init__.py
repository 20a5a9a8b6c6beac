"""Calibration of a night while it is observed. What is done to a scan belongs in pipeline."""
