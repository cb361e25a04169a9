"""The test kit: the laws that every plugin keeps, as property tests over any registry. Needs ``trtplug[testing]``.

    registry = trtplug.registry()

    @pytest.mark.parametrize("case", law_cases(registry), ids=str)
    def test_law(case):
        case.check()

What a converter is tried with comes from its own domain: nothing has to be written beside it.
"""

from trtplug.testing.cases import LawCase, law_cases
from trtplug.testing.certify import PluginCase, Status, Verdict, plugin_cases
from trtplug.testing.compare import Mismatch, mismatch
from trtplug.testing.drawing import calls, values
from trtplug.testing.drawn import DrawnCall, Layout, call_of
from trtplug.testing.errors import LawViolationError, NotApplicableError, UndescribedError, UnprovenError
from trtplug.testing.graphs import CallGraph, call_graph
from trtplug.testing.laws import Law, check_converter
from trtplug.testing.lowered import LoweredCase, check_lowering, lowered_cases
from trtplug.testing.passes import admissible_order, check_pass
from trtplug.testing.profiles import CI, NIGHTLY, Profile
from trtplug.testing.running import registry_of, run_lowered_op, run_op
from trtplug.testing.symbolic import SizeOf
from trtplug.testing.verdicts import check_registry

__all__ = [
    "CI",
    "NIGHTLY",
    "CallGraph",
    "DrawnCall",
    "Law",
    "LawCase",
    "LawViolationError",
    "Layout",
    "LoweredCase",
    "Mismatch",
    "NotApplicableError",
    "PluginCase",
    "Profile",
    "SizeOf",
    "Status",
    "UndescribedError",
    "UnprovenError",
    "Verdict",
    "admissible_order",
    "call_graph",
    "call_of",
    "calls",
    "check_converter",
    "check_lowering",
    "check_pass",
    "check_registry",
    "law_cases",
    "lowered_cases",
    "mismatch",
    "plugin_cases",
    "registry_of",
    "run_lowered_op",
    "run_op",
    "values",
]
