"""What TensorRT takes, and why not the rest: of an opset, of one op, of a model. See ``docs/coverage.md``."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

from torch import nn
from torch._ops import OpOverload

from trtplug.assembly import registry_for
from trtplug.covering.memory import remembered
from trtplug.covering.ops import CandidateRecord, OpCoverage, OpStatus, judge
from trtplug.covering.opsets import is_op, overloads_in, zoo
from trtplug.covering.report import CoverageReport
from trtplug.logs import configure_log
from trtplug.settings import Settings
from trtplug.versions import versions
from trtplug_registry import Registry

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from trtplug.report import CompilationReport
    from trtplug.tracing import Program

__all__ = ["CandidateRecord", "CoverageReport", "OpCoverage", "OpStatus", "coverage"]


def coverage(
    subject: str | nn.Module | Program | ExportedProgram,
    args: Any = (),
    kwargs: Any = None,
    *,
    registry: Registry | None = None,
    name: str = "",
    **settings: Any,
) -> CoverageReport:
    """What of an opset, an op or a model TensorRT takes, and why not the rest. Builds nothing.

    Args:
        subject: ``"core_aten"``, ``"all"``, ``"zoo"``, ``"claimed"``, a namespace or an op by name; or a model, as
            `explain` takes it.
        args, kwargs: a module's example inputs.
        registry: what `trtplug.registry` returned; assembled from the settings where not given.
        name: what the report calls a model.
        settings: fields of `Settings`, by name.

    Raises:
        UnknownNameError: the name stands for nothing here.
        TrtplugError: as for `explain`.
    """
    configure_log()
    chosen = Settings.of(settings)
    assembled = registry if registry is not None else registry_for(chosen)
    found = {**versions(), **{p.distribution: p.version for p in assembled.plugins if p.distribution}}
    if isinstance(subject, str):
        ops = _judged(assembled, overloads_in(subject, assembled), subject)
        return CoverageReport(subject, "op" if is_op(subject) else "opset", ops, found, settings)
    from trtplug.compiling import explain  # the pipeline, which a question about ops does without

    model = explain(subject, args, kwargs, registry=assembled, **settings)
    return CoverageReport(name or type(subject).__name__, "model", _ops_of(model), found, settings, model)


def _judged(registry: Registry, overloads: tuple[OpOverload, ...], subject: str) -> tuple[OpCoverage, ...]:
    with remembered(registry) as known:
        judged = [judge(registry, op, known) for op in overloads]
    if subject != "zoo":
        return tuple(judged)
    counts = zoo()
    return tuple(
        dataclasses.replace(op, models=counts[op.op][0], calls=counts[op.op][1]) for op in judged if op.op in counts
    )


def _ops_of(model: CompilationReport) -> tuple[OpCoverage, ...]:
    """A model's compute nodes by op; an op is covered where every call of it is."""
    by_op: dict[str, list[Any]] = {}
    for node in model.nodes:
        by_op.setdefault(node.op, []).append(node)
    found = []
    for op, nodes in sorted(by_op.items()):
        left = [node for node in nodes if node.engine is None]
        reasons = tuple(dict.fromkeys(reason for node in left for reason in node.reasons))
        status = OpStatus.UNSUPPORTED if left else OpStatus.CONVERTED
        by = Counter(node.converter for node in nodes if node.converter).most_common(1)
        found.append(
            OpCoverage(op, "", status, by=by[0][0] if by else "", reasons=reasons, calls=len(nodes), left=len(left))
        )
    return tuple(found)
