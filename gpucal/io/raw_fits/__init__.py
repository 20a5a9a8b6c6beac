"""Raw scans as FITS files and back, bit for bit. Calibrated spectra belong in fits."""
