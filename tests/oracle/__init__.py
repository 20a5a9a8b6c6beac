"""Independent truth: slow scalar calibration, kernels in loops, ink on pictures."""
