"""Inputs that tests make: scans, stores, files, nights."""
