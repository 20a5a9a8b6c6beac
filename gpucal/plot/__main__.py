"""``python -m gpucal.plot``: the command ``gpucal plot``."""

import sys

import gpucal

if __name__ == "__main__":
    sys.exit(gpucal.main(["plot", *sys.argv[1:]]))
