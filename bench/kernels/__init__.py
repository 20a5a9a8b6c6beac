"""Benches of the NumPy twins, one module a kernel: ``python -m bench NAME``."""
