"""Peak memory and time of the calibration of a scan that is larger than memory.

    python -m bench.big_scan --gib 12 --folder /scratch

Makes one simulated OTF scan, calibrates it in a process of its own, prints one JSON line and removes
what it wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpucal import simulate_night
from gpucal.simulate.presets import preset
from gpucal.simulate.setup import InstrumentSetup

CHANNELS, PIXELS, N_ON, SUBSCANS = 8192, 64, 20, 31

CHILD = """
import json, sys, time
from gpucal import CalibrationConfig, calibrate_store

l0, out, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
begin = time.perf_counter()
report = calibrate_store(l0, out, CalibrationConfig(**options))
seconds = time.perf_counter() - begin
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
summary = report.summaries[0]
print(json.dumps({
    "exit_code": report.exit_code, "peak_rss_mib": peak / 1024, "seconds": seconds,
    "rms_ratio": summary.rms_ratio, "timing_ms": dict(summary.timing),
}))
"""
"""VmHWM, not ru_maxrss: that one would count the process that started this one."""


def big_setup(gib: float) -> InstrumentSetup:
    """An OTF scan with about ``gib`` GiB of int32 counts in ``source/``: 64 pixels, 8192 channels."""
    per_dump = CHANNELS * PIXELS * SUBSCANS * 4
    dumps = max(2, round(gib * 2**30 / per_dump))
    setup = preset("superc", channels=CHANNELS, dumps=dumps, n_on=N_ON, sky="isothermal")
    return replace(setup, kinds=("otf",), timing=replace(setup.timing, on_per_off=2))


def make_scan(folder: Path, gib: float, codec: str = "none") -> int:
    """Write ``folder/l0.zarr`` and ``folder/table.npz``; returns the bytes of counts in ``source/``."""
    setup = big_setup(gib)
    simulate_night(folder / "l0.zarr", setup, 1, table_out=folder / "table.npz", codec=codec)
    return CHANNELS * PIXELS * SUBSCANS * setup.timing.dumps * 4


def calibrate(folder: Path, **options: Any) -> dict[str, Any]:
    """Calibrate the scan in a new process; returns its exit code, peak memory, time and quality."""
    options = {"atmosphere": str(folder / "table.npz"), **options}
    command = [sys.executable, "-c", CHILD, str(folder / "l0.zarr"), str(folder / "l1.zarr")]
    done = subprocess.run(
        [*command, json.dumps(options)], check=True, stdout=subprocess.PIPE, text=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main(argv: list[str] | None = None) -> int:
    """Make, calibrate, report, clean up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=12.0)
    parser.add_argument("--ring", type=int, default=1024, help="MiB")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--l0-codec", default="none")
    parser.add_argument("--codec", default="zstd:1", help="codec of L1")
    parser.add_argument("--folder", type=Path, default=None, help="needs about 2.5 times --gib")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="big-scan-", dir=args.folder) as name:
        folder = Path(name)
        begin = time.perf_counter()
        size = make_scan(folder, args.gib, args.l0_codec)
        made = time.perf_counter() - begin
        os.sync()  # what was just written must not slow down what is measured
        result = calibrate(folder, ring=args.ring, workers=args.workers, codec=args.codec)
        written = sum(p.stat().st_size for p in (folder / "l1.zarr").rglob("*") if p.is_file())
    result |= {"counts_gib": size / 2**30, "l1_gib": written / 2**30, "make_seconds": made}
    result |= {"ring_mib": args.ring, "mb_per_second": size / 1e6 / result["seconds"]}
    print(json.dumps(result))
    return int(result["exit_code"])


if __name__ == "__main__":
    sys.exit(main())
