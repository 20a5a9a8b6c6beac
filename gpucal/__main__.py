"""``python -m gpucal``: the command ``gpucal``."""

import sys

import gpucal

if __name__ == "__main__":
    sys.exit(gpucal.main())
