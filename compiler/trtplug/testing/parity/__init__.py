"""Law 11: on a GPU, TensorRT and the reference executor agree. Layer by layer, and call by call.

``python -m trtplug.testing.parity`` runs both tables and prints what does not agree.
"""

from trtplug.testing.parity.calls import CallFinding, CallsFinding, call_cases, check_calls
from trtplug.testing.parity.judge import Finding, judge
from trtplug.testing.parity.layers import check_layer, layer_cases
from trtplug.testing.parity.pool import Job, Outcome, run_jobs

__all__ = [
    "CallFinding",
    "CallsFinding",
    "Finding",
    "Job",
    "Outcome",
    "call_cases",
    "check_calls",
    "check_layer",
    "judge",
    "layer_cases",
    "run_jobs",
]
