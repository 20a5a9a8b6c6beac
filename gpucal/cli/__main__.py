"""``python -m gpucal.cli``: the command ``gpucal``."""

import sys

from gpucal.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
