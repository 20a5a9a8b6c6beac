"""What a new machine does once: import CuPy, start the card, compile every kernel into CuPy's cache.

    python -m bench.gpu.warm_up

The last line is the time of each part; it counts as cold start, not as that of a bench.
"""

from __future__ import annotations

import sys
import time

from gpucal.errors import BackendError
from gpucal.kernels.variants import all_kernels


def main() -> int:
    """Warm up; 1 where there is no card."""
    start = time.perf_counter()
    try:
        from gpucal.backend.cuda import tried_backend
        from gpucal.kernels.device import CupyDevice

        backend = tried_backend()
        first = time.perf_counter()
        device = CupyDevice()
        kernels = all_kernels()
        for kernel in kernels:
            device.compiled(kernel)
    except BackendError as error:
        print(error, file=sys.stderr)
        return 1
    now = time.perf_counter()
    print(
        f"{backend.device}: {first - start:.1f} s to the first kernel, {now - first:.1f} s for all "
        f"{len(kernels)} kernels"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
