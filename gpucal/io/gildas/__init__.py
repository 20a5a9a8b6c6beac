"""CLASS binary files: reading and writing. FITS files for CLASS belong in fits."""
