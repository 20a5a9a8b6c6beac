"""Contracts of the kernels: arguments, results, definitions. Fast code belongs in kernels and cpu_fallback.

One module a kernel, for both twins: CUDA in ``gpucal.kernels``, NumPy in ``cpu_fallback``. Each holds the value
that the kernel takes (a tuple of named arrays with their roles, shapes, dtypes and units), a slow definition of
the result, sample by sample, and the contract that joins them and checks the arrays. Letters of the shapes: c
channels of a tile, m channels of a wider input, C all channels of a fit, D dumps, R receivers, A pixels, K trial
values, N fits, J points inside a channel. No kernel edits what it is given; results depend neither on how
channels are cut into tiles nor on the number of threads.
"""
