"""What becomes of an op: converted, decomposed, folded, or left to Torch, and on whose word."""

from __future__ import annotations

import dataclasses
import enum
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from trtplug.naming import op_name
from trtplug_registry import Converter, Reason, ReasonCode, Registry, nature, qualified_name

if TYPE_CHECKING:
    from trtplug.lowering import Lowered


class OpStatus(enum.StrEnum):
    """What becomes of an op. Each op has one."""

    CONVERTED = "converted"
    DECOMPOSED = "decomposed"
    FOLDED = "folded"
    UNSUPPORTED = "unsupported"


@dataclasses.dataclass(frozen=True)
class CandidateRecord:
    """A converter that claims an op.

    Attributes:
        converter: its id, ``plugin:target``.
        plugin, built_in: who brought it.
        priority: higher is asked first.
        wins: whether it is asked first of those that can be used here.
        dtypes: of the leading tensor argument.
        dynamic_shapes: whether it takes symbolic sizes.
        domain: each argument's spec in words, by the schema's name.
        relations: what must hold between arguments, in words.
        because: why an argument or relation is restricted, in words, where the declaration says so; under ``nan``, what
            becomes of it where that is not what eager makes of it.
        unavailable: why it cannot be used here, or None.
    """

    converter: str
    plugin: str
    built_in: bool
    priority: int
    wins: bool
    dtypes: tuple[str, ...]
    dynamic_shapes: bool
    domain: Mapping[str, str]
    relations: tuple[str, ...]
    because: Mapping[str, str]
    unavailable: Reason | None = None

    @property
    def taken(self) -> Mapping[str, str]:
        """What it takes, in words: the spec of each argument, and under "" what holds of them together."""
        shapes = "symbolic sizes too" if self.dynamic_shapes else "static sizes only"
        return {**self.domain, "": "; ".join((*self.relations, shapes))}


@dataclasses.dataclass(frozen=True)
class OpCoverage:
    """One overload, and what becomes of it.

    Attributes:
        op: qualified name.
        schema: ATen's own.
        status: what becomes of it.
        candidates: the converters that claim it, in the order in which they are asked.
        decomposes_to: the ops that it becomes, where it is decomposed.
        by: whose decision the status is: a converter, or who brought the decomposition.
        reasons: why it is unsupported; empty where it is not.
        models: how many of the zoo's architectures hold it; 0 outside of the zoo.
        calls: how often the zoo, or the model, calls it; 0 for other sets.
        left: how many of a model's calls are left to Torch.
    """

    op: str
    schema: str
    status: OpStatus
    candidates: tuple[CandidateRecord, ...] = ()
    decomposes_to: tuple[str, ...] = ()
    by: str = ""
    reasons: tuple[Reason, ...] = ()
    models: int = 0
    calls: int = 0
    left: int = 0

    @property
    def covered(self) -> bool:
        return self.status is not OpStatus.UNSUPPORTED


def judge(registry: Registry, op: OpOverload, known: dict[str, Any]) -> OpCoverage:
    """What becomes of an op, as far as that can be said without a model.

    An op that a converter claims is converted: the converter's domain says which calls. One that is written with other
    ops is followed: a call of it is lowered, and what remains is asked about.

    Args:
        registry: answers.
        op: the overload.
        known: what `follow` returned before, by the op's name; what it returns now is added.
    """
    name, schema = qualified_name(op), str(op._schema)
    candidates = candidates_of(registry, op)
    winner = next((c for c in candidates if c.wins), None)
    if winner is not None:
        return OpCoverage(name, schema, OpStatus.CONVERTED, candidates, by=winner.converter)
    if candidates:
        reasons = tuple(c.unavailable for c in candidates if c.unavailable is not None)
        return OpCoverage(name, schema, OpStatus.UNSUPPORTED, candidates, reasons=reasons)
    if _is_size_arithmetic(op):
        return OpCoverage(name, schema, OpStatus.FOLDED, by="sizes are derived where they are used")
    if name not in known:
        known[name] = follow(registry, op)
    found = known[name]
    reasons = tuple(reason_of(item) for item in found.get("reasons", ()))
    return OpCoverage(name, schema, OpStatus(found["status"]), (), tuple(found["decomposes_to"]), found["by"], reasons)


def candidates_of(registry: Registry, op: OpOverload) -> tuple[CandidateRecord, ...]:
    """The converters that claim an op, in the order in which they are asked."""
    records = []
    won = False
    for candidate in registry.candidates(op):
        unavailable = registry.unavailable(op, candidate)
        wins = unavailable is None and not won
        won = won or wins
        records.append(_record(candidate, wins, unavailable))
    return tuple(records)


LOSES_NAN = "may be lost on a GPU"


def _record(converter: Converter, wins: bool, unavailable: Reason | None) -> CandidateRecord:
    domain = converter.domain
    leading = next(iter(domain.tensors().values()), None)
    because = {name: _because(spec.because) for name, spec in domain.arguments.items() if spec.because}
    because |= {relation.name: relation.because for relation in domain.relations if relation.because}
    if not converter.keeps_nan:
        because["nan"] = LOSES_NAN
    return CandidateRecord(
        converter.id,
        converter.plugin,
        converter.built_in,
        converter.priority,
        wins,
        tuple(str(dtype).removeprefix("torch.") for dtype in leading.dtypes) if leading else (),
        converter.dynamic_shapes,
        {name: str(spec) for name, spec in domain.arguments.items()},
        tuple(relation.name for relation in domain.relations if relation.holds is not None),
        because,
        unavailable,
    )


def _because(because: str | Mapping[str, str]) -> str:
    return because if isinstance(because, str) else "; ".join(because.values())


def _is_size_arithmetic(op: OpOverload) -> bool:
    """Whether an op reads a tensor's metadata: the partitioner derives such values, and none becomes a layer."""
    return op._schema.name.removeprefix("aten::").startswith("sym_")


def follow(registry: Registry, op: OpOverload) -> dict[str, Any]:
    """Lowers one guessed call of an op that no converter claims; what became of it, as JSON-able data."""
    alone = f"no plugin has a converter for {qualified_name(op)}"
    schema = op._schema
    opaque = op not in registry.decompositions and not _is_composite(op) and not schema.is_mutable
    checks = not schema.returns and not any(str(argument.type) == "Tensor" for argument in schema.arguments)
    if (opaque and schema.returns) or checks:
        return _unsupported(op, alone)
    from trtplug.covering.samples import sample

    with quiet():
        graph_module = sample(op)
        if graph_module is None:
            return _unsupported(op, f"{alone}; it is written with other ops, but no call could be guessed to follow it")
        name = next((node.name for node in calls(graph_module)), "")
        result = lowered(registry, graph_module)
    fate = result.history.get(name)
    remaining = list(calls(result.graph_module))
    left = sorted({op_name(node) for node in remaining if not registry.lookup(node)})
    if left:
        others = ", ".join(other for other in left if other != qualified_name(op))
        return _unsupported(op, f"{alone}; what it is written with has none either: {others}" if others else alone)
    return {
        "status": (OpStatus.DECOMPOSED if remaining else OpStatus.FOLDED).value,
        "decomposes_to": sorted({op_name(node) for node in remaining}),
        "by": fate.by if fate else "",
        "reasons": [],
    }


def lowered(registry: Registry, graph_module: GraphModule) -> Lowered:
    """What lowering makes of a graph from `trtplug.covering.samples`, which is changed."""
    from trtplug.lowering import Lifted, lower_lifted  # most questions are answered without lowering anything

    spec = pytree.tree_flatten(((), {}))[1]
    names = tuple(node.name for node in graph_module.graph.find_nodes(op="placeholder"))
    return lower_lifted(Lifted(graph_module, spec, spec, names, (), {}, False), {}, registry)


def _unsupported(op: OpOverload, seen: str) -> dict[str, Any]:
    reason = Reason(ReasonCode.NO_CONVERTER, seen=seen, because=nature(op))
    return {
        "status": OpStatus.UNSUPPORTED.value,
        "decomposes_to": [],
        "by": "",
        "reasons": [reason.to_json()],
    }


def calls(graph_module: GraphModule) -> Iterator[Node]:
    """The calls of ops; getitems and size arithmetic are none."""
    for node in graph_module.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, OpOverload) and not _is_size_arithmetic(node.target):
            yield node


def _is_composite(op: OpOverload) -> bool:
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return key in op.py_kernels or torch._C._dispatch_has_kernel_for_dispatch_key(
        op.name(), "CompositeImplicitAutograd"
    )


class quiet(warnings.catch_warnings):  # noqa: N801  # reads like the context manager that it is
    """Without Torch's words about guesses that it refuses."""

    def __enter__(self) -> Any:
        self._logger = logging.getLogger("torch._subclasses.fake_tensor")
        self._level = self._logger.level
        self._logger.setLevel(logging.CRITICAL)
        result = super().__enter__()
        warnings.simplefilter("ignore")
        return result

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._logger.setLevel(self._level)


def reason_of(data: Mapping[str, str]) -> Reason:
    """A reason from its JSON."""
    return Reason(ReasonCode(data["code"]), **{name: text for name, text in data.items() if name != "code"})
