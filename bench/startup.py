"""``python -m bench.startup``: processor time of the command line before it does anything."""

from __future__ import annotations

import resource
import subprocess
import sys

REPEATS = 7
LINES: dict[str, list[str]] = {
    "empty Python": ["-c", "pass"],
    "import typer": ["-c", "import typer"],
    "import numpy, zarr": ["-c", "import numpy, zarr"],
    "gpucal --version": ["-m", "gpucal", "--version"],
    "gpucal --help": ["-m", "gpucal", "--help"],
    "gpucal calibrate --help": ["-m", "gpucal", "calibrate", "--help"],
    "gpucal inspect --help": ["-m", "gpucal", "inspect", "--help"],
    "gpucal online --help": ["-m", "gpucal", "online", "--help"],
}


def processor_time(arguments: list[str]) -> float:
    """User and system time of one run of Python in a process of its own, s."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Print the least of REPEATS runs of each line: load of the machine only adds."""
    for name, arguments in LINES.items():
        print(f"{name:24} {min(processor_time(arguments) for _ in range(REPEATS)):.3f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
