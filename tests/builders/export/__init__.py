"""Stores and spectra for the tests of exports."""
