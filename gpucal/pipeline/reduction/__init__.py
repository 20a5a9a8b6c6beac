"""A calibrated scan to one answer: pointing, focus, skydip, averages. The fits belong in procedures."""
