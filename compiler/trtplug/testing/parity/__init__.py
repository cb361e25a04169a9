"""Law 11: on a GPU, TensorRT and the reference executor agree. Layer by layer, and call by call.

``python -m trtplug.testing.parity CASE`` runs one case of the record and prints what became of it.
"""

from trtplug.testing.parity.calls import (
    CallFinding,
    CallsFinding,
    call_cases,
    check_calls,
    check_dynamic,
    dynamic_cases,
)
from trtplug.testing.parity.judge import Allowance, Finding, allowance, judge
from trtplug.testing.parity.layers import check_layer, layer_cases
from trtplug.testing.parity.lowered import check_lowered, lowered_calls
from trtplug.testing.parity.pool import Job, Outcome, run_jobs

__all__ = [
    "Allowance",
    "CallFinding",
    "CallsFinding",
    "Finding",
    "Job",
    "Outcome",
    "allowance",
    "call_cases",
    "check_calls",
    "check_dynamic",
    "check_layer",
    "check_lowered",
    "dynamic_cases",
    "judge",
    "layer_cases",
    "lowered_calls",
    "run_jobs",
]
