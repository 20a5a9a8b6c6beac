"""``python -m gpucal``: the command ``gpucal``."""

import runpy

if __name__ == "__main__":
    runpy.run_module("gpucal.cli.entry", run_name="__main__")
