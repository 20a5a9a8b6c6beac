"""Attributes by which others say what stored numbers mean (CF, netCDF): applied exactly, or refused by name."""
