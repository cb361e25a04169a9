"""Reproduces cases of the record: ``python -m trtplug.testing.parity [--executor reference] CASE…``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import trtplug
from trtplug.testing.parity import jobs
from trtplug.testing.parity.calls import call_cases, dynamic_cases
from trtplug.testing.parity.layers import layer_cases


def main() -> None:
    """Runs each case and prints its finding as JSON."""
    parser = argparse.ArgumentParser(prog="python -m trtplug.testing.parity", description=__doc__)
    parser.add_argument("cases", nargs="+", metavar="CASE", help="as it stands in record.tsv")
    parser.add_argument("--executor", default="tensorrt", help="under test (default: %(default)s)")
    chosen = parser.parse_args()
    for case in chosen.cases:
        print(json.dumps({"case": case, **table_of(case)(case, chosen.executor)}, indent=2))


def table_of(case: str) -> Callable[[str, str], dict[str, Any]]:
    """The job that runs a case."""
    registry = trtplug.registry()
    if case in layer_cases():
        return jobs.layer
    if case in call_cases(registry):
        return jobs.calls
    return jobs.dynamic if case in dynamic_cases(registry) else jobs.lowered


if __name__ == "__main__":
    main()
