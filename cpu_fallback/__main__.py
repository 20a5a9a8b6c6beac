"""``python -m cpu_fallback``: says what to run instead."""

import sys

if __name__ == "__main__":
    sys.exit("cpu_fallback holds the kernels for the CPU and is no command: run gpucal --help.")
