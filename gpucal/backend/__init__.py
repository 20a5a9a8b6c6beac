"""Where the arrays live and the kernels run: NumPy on the host, or CUDA through CuPy.

``protocol`` says what a backend is, ``select`` chooses one, ``cpu`` and ``cuda`` are the two.
"""
