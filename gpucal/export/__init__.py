"""From the calibrated store to single spectra, as the writers of other formats take them."""
