"""Steps of the calibration, pure functions on the arrays of a scan. Order, threads and files belong in pipeline."""
