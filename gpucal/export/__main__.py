"""``python -m gpucal.export``: the command ``gpucal export``."""

import sys

import gpucal

if __name__ == "__main__":
    sys.exit(gpucal.main(["export", *sys.argv[1:]]))
