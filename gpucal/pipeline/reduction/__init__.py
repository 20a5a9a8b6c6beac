"""Reduction of a scan to one result: pointing, focus, skydip, average. The fits belong in procedures."""
