"""Backends: memory, arrays and streams of NumPy or CUDA. The kernels belong in kernels and cpu_fallback.

``protocol`` says what a backend is, ``select`` chooses one, ``cpu`` and ``cuda`` are the two.
"""
