"""Layered skies for tests: radiative transfer of their own, and raw nights under them."""
