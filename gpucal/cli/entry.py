"""Start of the process ``gpucal``: hears Ctrl-C before anything heavy is imported."""

from __future__ import annotations

import sys


def main() -> int:
    """Run one command and return its exit code, see ``gpucal.cli.main.main``."""
    from gpucal.cli import interrupts

    interrupts.end_at_once()
    from gpucal.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
