"""What changed between two calibrations of one night: numbers, flags, axes, settings and versions, pixel by pixel."""
