"""``python -m gpucal.simulate L1 TRUTH``: print how far a calibrated night is from its truth."""

from __future__ import annotations

import argparse
import sys

from gpucal.errors import GpucalError
from gpucal.simulate.compare import compare_to_truth, format_table
from gpucal.simulate.truth import load_truth
from gpucal.simulate.verdict import format_verdict, judge


def main() -> int:
    """Read two paths from the command line, print the verdict, and with ``--all`` the table of deviations.

    Exit code 0 when every quantity agrees within what its noise explains, 1 when one does not or nothing can be
    compared.
    """
    parser = argparse.ArgumentParser(prog="python -m gpucal.simulate", description=__doc__)
    parser.add_argument("l1", help="calibrated store")
    parser.add_argument("truth", help="truth file of gpucal simulate --truth")
    parser.add_argument("--all", action="store_true", help="also print every scan and quantity")
    args = parser.parse_args()
    try:
        rows = compare_to_truth(args.l1, args.truth)
        verdicts = judge(rows)
    except GpucalError as error:
        print(f"gpucal: error: {error}", file=sys.stderr)
        return error.exit_code
    if args.all:
        print(format_table(rows))
    for truth in load_truth(args.truth).procedures.values():
        print(f"truth of {truth.text()}")
    print(format_verdict(verdicts))
    return 0 if all(verdict.holds for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
