"""Scans and stores with one fault each."""
