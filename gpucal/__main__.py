"""``python -m gpucal``: the command ``gpucal``."""

import sys

from gpucal.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
