"""``python -m gpucal.simulate L1 TRUTH``: print how far a calibrated night is from its truth."""

from __future__ import annotations

import argparse

from gpucal.simulate.compare import compare_to_truth, format_table
from gpucal.simulate.truth import load_truth


def main() -> None:
    """Read two paths from the command line and print the table of deviations."""
    parser = argparse.ArgumentParser(prog="python -m gpucal.simulate", description=__doc__)
    parser.add_argument("l1", help="calibrated store")
    parser.add_argument("truth", help="truth file of gpucal simulate --truth")
    args = parser.parse_args()
    print(format_table(compare_to_truth(args.l1, args.truth)))
    for truth in load_truth(args.truth).procedures.values():
        print(f"truth of {truth.text()}")


if __name__ == "__main__":
    main()
