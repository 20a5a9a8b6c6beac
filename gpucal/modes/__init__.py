"""Observing modes, one file per recipe: which counts minus which. Pairing and the scale belong in steps."""
