"""Reproduces cases of the record: ``python -m trtplug.testing.parity [--executor reference] CASE…``."""

from __future__ import annotations

import argparse
import json

from trtplug.testing.parity import jobs
from trtplug.testing.parity.layers import layer_cases


def main() -> None:
    """Runs each case and prints its finding as JSON."""
    parser = argparse.ArgumentParser(prog="python -m trtplug.testing.parity", description=__doc__)
    parser.add_argument("cases", nargs="+", metavar="CASE", help="as it stands in record.tsv")
    parser.add_argument("--executor", default="tensorrt", help="under test (default: %(default)s)")
    chosen = parser.parse_args()
    for case in chosen.cases:
        of_calls = jobs.dynamic if case.endswith("-dynamic") else jobs.calls
        table = jobs.layer if case in layer_cases() else of_calls if ":aten::" in case else jobs.lowered
        print(json.dumps({"case": case, **table(case, chosen.executor)}, indent=2))


if __name__ == "__main__":
    main()
