"""Chunks of Zarr arrays between disk, host and device. What an array holds belongs in l0 or l1."""
