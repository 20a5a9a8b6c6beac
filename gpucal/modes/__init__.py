"""Recipes of the observing modes: which counts are subtracted from which. Pairing and scale belong in steps."""
