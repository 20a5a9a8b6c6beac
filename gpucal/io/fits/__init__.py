"""FITS tables of spectra: streaming, SDFITS, CLASS-FITS, one spectrum a file. Raw counts belong in raw_fits."""
