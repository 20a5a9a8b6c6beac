"""One session of each peer: load, calibrate, write; prints its seconds and peak memory as JSON.

Run by ``bench_peers`` as a program of its own, each peer with its own interpreter:
``python peer_sessions.py PEER INPUT OUTPUT [OPTIONS]``. Imports are not part of the time.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def dysh(source: str, target: str) -> Callable[[], None]:
    """Position switching with a noise diode, the way of dysh's users: SDFITS in, SDFITS out."""
    from dysh.fits.gbtfitsload import GBTFITSLoad

    def run() -> None:
        session = GBTFITSLoad(source)
        session.getps(fdnum=0, ifnum=0, plnum=0).write(target, overwrite=True)

    return run


def gpucal(source: str, target: str, table: str, codec: str, dtype: str) -> Callable[[], None]:
    """Total power with hot and cold load: Zarr L0 in, Zarr L1 out, all cores."""
    import zarr  # noqa: F401

    from gpucal import calibrate_store, load_config, select_backend

    config = load_config(None, atmosphere=table, codec=codec, dtype=dtype)
    backend = select_backend("cpu")

    def run() -> None:
        report = calibrate_store(source, target, config, backend=backend)
        if report.failures:
            raise RuntimeError(report.failures[0].message)

    return run


def numpy(source: str, target: str) -> Callable[[], None]:
    """A plain script: the whole scan in memory, (ON - OFF) K/count with hot and cold means."""
    import numpy as np
    import zarr

    fill = np.iinfo(np.int32).min

    def run() -> None:
        scan: Any = zarr.open_group(source, mode="r")["scan_000001"]
        raw, loads = scan["source/data_5d"], scan["calibration/data_5d"]
        modes = np.array(scan["source"].attrs["sobsmode"])
        counts = np.where(raw[...] == fill, np.nan, raw[...].astype(np.float64))
        hot, cold = (loads[..., s].mean(axis=1, keepdims=True) for s in (0, 1))
        off = np.nanmean(counts[..., modes == "OFF"], axis=(1, 4), keepdims=True)
        gain = (290.0 - 80.0) / (hot - cold)
        spectra = (counts[..., modes == "ON"] - off) * gain[..., None]
        flags = np.where(np.isnan(spectra), 2, 0).astype(np.uint16)
        out = zarr.open_group(target, mode="w")
        for name, values in (("spectra", spectra), ("flags", flags)):
            array = out.create_array(
                name,
                shape=values.shape,
                dtype=values.dtype,
                chunks=(1024, *values.shape[1:4], 1),
                compressors=[zarr.codecs.ZstdCodec(level=1), zarr.codecs.Crc32cCodec()],
            )
            array[...] = values

    return run


def peak_bytes() -> int:
    """Most resident memory of this program; getrusage would count the one that started it too."""
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if found:
            return int(found.group(1)) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Time one session."""
    peer, *paths = sys.argv[1:]
    peers: dict[str, Callable[..., Callable[[], None]]]
    peers = {"dysh": dysh, "gpucal": gpucal, "numpy": numpy}
    run = peers[peer](*paths)
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
