"""``python -m gpucal.online``: the command ``gpucal online``."""

import sys

import gpucal

if __name__ == "__main__":
    sys.exit(gpucal.main(["online", *sys.argv[1:]]))
