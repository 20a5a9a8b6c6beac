"""The store of calibrated spectra: reading and writing. Which arrays a scan has is decided in pipeline.store."""
