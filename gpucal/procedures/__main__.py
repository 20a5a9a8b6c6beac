"""``python -m gpucal.procedures``: the command ``gpucal reduce``."""

import sys

import gpucal

if __name__ == "__main__":
    sys.exit(gpucal.main(["reduce", *sys.argv[1:]]))
