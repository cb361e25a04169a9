"""Laws of lowering, op by op: a call, lowered and converted where the registry takes it, equals eager.

What a decomposition is tried with comes from a description of the calls that eager takes (`trtplug.testing.described`),
since no converter's domain says it. Whatever the registry makes of a call must be right: all of it in one engine, parts
of it, or a refusal with a reason.
"""

from __future__ import annotations

import collections
import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy
import torch
from hypothesis import assume
from torch import fx
from torch._ops import OpOverload

from trtplug.ranges import Range
from trtplug.testing.cases import can_be_dynamic, profile_of_environment
from trtplug.testing.compare import Mismatch, mismatch
from trtplug.testing.described import Described, described, is_hand_written
from trtplug.testing.descriptions import OF_STORAGE, UNDESCRIBED
from trtplug.testing.drawing import dtypes_of
from trtplug.testing.drawn import DrawnCall, Layout
from trtplug.testing.equality import agrees_dynamically, equals_eager
from trtplug.testing.errors import NotApplicableError, UndescribedError
from trtplug.testing.graphs import CallGraph
from trtplug.testing.laws import Law, profile_named
from trtplug.testing.profiles import Profile
from trtplug.testing.running import lowered_module
from trtplug.testing.script import script
from trtplug.testing.trial import Memory, Trial, WellFormed
from trtplug_registry import Registry, qualified_name

TRACED = 4
"""A call that is lowered is traced, which takes longer than converting it: so many times fewer are tried."""

TIES = frozenset({"aten::topk", "aten::kthvalue"})
"""Ops of which eager does not say which of equal elements they name, in their second result."""

_LAWS: Mapping[Law, Callable[[Trial], None]] = {Law.EQUALS_EAGER: equals_eager, Law.DYNAMIC: agrees_dynamically}


@dataclasses.dataclass
class LoweredTrial(Trial):
    """One law tried on what lowering makes of an op; the "converter" is the description of its calls.

    Attributes:
        fates: how many calls ran in one engine as a whole, in parts, or not at all.
    """

    fates: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def claims(self, node: fx.Node) -> bool:
        """Any call that the description allows: what is refused runs in Torch. But no graph has computed sizes of 0 or
        1 in its example: `torch.export` makes them fixed, or says that it cannot.
        """
        sizes = [used.meta.get("val") for used in node.all_input_nodes]
        return all(size.node.hint > 1 for size in sizes if isinstance(size, torch.SymInt))

    def graph(self, well: WellFormed, constants: Sequence[str]) -> CallGraph:
        """Rejects calls of which Torch's own metadata promises other shapes or dtypes than eager's."""
        if self.converter.target_name in OF_STORAGE:
            assume(all(layout == Layout() for layout in well.call.layouts.values()))
        graph = super().graph(well, constants)
        assume(self.believes(graph, well.eager))
        for ours, theirs in zip(_promised(graph), graph.expected(well.eager), strict=True):
            assume(tuple(ours.shape) == tuple(theirs.shape))
        return graph

    def believes(self, graph: CallGraph, eager: Any) -> bool:
        """Not where Torch's own metadata promises other dtypes than eager's."""
        return [one.dtype for one in _promised(graph)] == [one.dtype for one in graph.expected(eager)]

    def convert(self, graph: CallGraph, ranges: Mapping[sympy.Symbol, Range] | None = None) -> Any:
        """What the compiler makes of the call but for the build: blocks run on the reference executor."""
        linked, left, blocks = lowered_module(self.registry, graph.module, ranges or {})
        self.fates["in part" if left and blocks else "refused" if left else "whole"] += 1
        for node in left:
            support = self.registry.lookup(node)
            assert support or support.reasons, f"{node.target} is refused without a reason"
        return linked

    def run_of(self, network: Any) -> Any:
        return network

    def difference(
        self, actual: Sequence[Any], expected: Sequence[Any], call: DrawnCall, tensors: Mapping[str, torch.Tensor]
    ) -> Mismatch | None:
        found = super().difference(actual, expected, call, tensors)
        if found is None or self.converter.target_name not in TIES or (found.what, found.result) != ("values", 1):
            return found
        data, axis = tensors["self"], call.arguments["dim"]
        if not data.dim():
            return found
        kept = actual[1].dim() == data.dim()
        places = (actual[1] if kept else actual[1].unsqueeze(axis)).clamp(0, data.shape[axis] - 1)
        named = torch.take_along_dim(data, places, axis)
        return None if mismatch([named if kept else named.squeeze(axis)], expected[:1]) is None else found

    def script(
        self, call: DrawnCall, tensors: Mapping[str, torch.Tensor], constants: Sequence[str], dynamic: str
    ) -> str:
        return script(call, tensors, constants, dynamic=dynamic, registry=self.source, runner="run_lowered_op")


def _promised(graph: CallGraph) -> list[torch.Tensor]:
    """What metadata says of the results."""
    made = graph.node.meta["val"]
    return [made[number] for number in graph.results] if isinstance(made, list | tuple) else [made]


@dataclasses.dataclass(frozen=True)
class Lowerings:
    """What one law tried of one op.

    Attributes:
        examples: how many calls were drawn and tried.
        fates: how many ran in TensorRT as a ``whole``, ``in part``, or were ``refused``.
    """

    examples: int
    fates: Mapping[str, int]


@dataclasses.dataclass(frozen=True, eq=False)
class LoweredCase:
    """One law on one op, for a parametrized test."""

    registry: Registry
    described: Described
    law: Law

    @property
    def id(self) -> str:
        """Such as ``aten::atan2-equals-eager``."""
        return f"{self.described.target_name}-{self.law}"

    @property
    def writer(self) -> Callable[..., Any]:
        """The function that writes the op with others."""
        return _writer(self.described, self.registry)

    def check(self, profile: Profile | str | None = None) -> Lowerings:
        """See `check_lowering`; the profile is that of the environment where None is given."""
        return check_lowering(self.registry, self.described, self.law, profile=profile)

    def __str__(self) -> str:
        return self.id


def lowered_cases(registry: Registry, profile: Profile | str | None = None) -> list[LoweredCase]:
    """Both laws over every op that a plugin brings a decomposition of and that is described.

    Only under ``nightly`` those, too, whose calls a converter takes and is held to the laws for, ops that are written
    by one function with another, and symbolic sizes of what Torch itself writes with others. The profile is that of the
    environment where None is given.

    For a parametrized test::

        @pytest.mark.parametrize("case", lowered_cases(trtplug.registry()), ids=str)
        def test_lowering(case):
            case.check()
    """
    chosen = profile_of_environment() if profile is None else profile_named(profile)
    ops = sorted(registry.decompositions, key=qualified_name)
    found = [one for op in ops if (one := described(op, registry)) is not None]
    if not chosen.every_dtype:
        found = [one for one in found if not registry.candidates(one.target) or is_hand_written(one.overloads()[0])]
        found = list({_writer(one, registry): one for one in reversed(found)}.values())[::-1]
    return [LoweredCase(registry, one, law) for one in found for law in _LAWS if _has(one, law, registry, chosen)]


def _has(one: Described, law: Law, registry: Registry, profile: Profile) -> bool:
    if law is not Law.DYNAMIC:
        return True
    by_torch = getattr(inspect.unwrap(_writer(one, registry)), "__module__", "torch").startswith("torch")
    return can_be_dynamic(one) and (profile.every_dtype or not by_torch)


def _writer(one: Described, registry: Registry) -> Callable[..., Any]:
    """The function that writes an op with others."""
    return registry.decompositions[one.overloads()[0]]


def check_lowering(
    registry: Registry,
    op: Described | OpOverload,
    law: Law,
    *,
    dtype: torch.dtype | None = None,
    profile: Profile | str | None = None,
) -> Lowerings:
    """Holds what lowering makes of an op to one law: ``Law.EQUALS_EAGER`` or ``Law.DYNAMIC``.

    Args:
        registry: decides what is decomposed and converted.
        op: described by whoever asks, or an overload that `described` knows.
        law: one of the two.
        dtype: of the leading tensor; where None, ``nightly`` tries each that the description has, ``ci`` draws.
        profile: how much is tried; that of the environment where None.

    Raises:
        LawViolationError: the law does not hold; the message holds a script that shows it.
        NotApplicableError: nobody has described the op's calls, or eager has no kernel for any.
    """
    one = op if isinstance(op, Described) else described(op, registry)
    if one is None:
        name = qualified_name(op)  # type: ignore[arg-type]  # what is Described is its own description
        raise NotApplicableError(UNDESCRIBED.get(name, f"nobody has described the calls of {name}"))
    chosen = profile_of_environment() if profile is None else profile_named(profile)
    chosen = dataclasses.replace(
        chosen, calls=max(1, chosen.calls // TRACED), dynamic_calls=max(1, chosen.dynamic_calls // TRACED)
    )
    dtypes = dtypes_of(one.domain) if chosen.every_dtype and dtype is None else (dtype,)
    memory, fates, left = Memory(), collections.Counter[str](), []
    for each in dtypes:
        trial = LoweredTrial(registry, one, each, chosen, law=str(law), memory=memory)
        try:
            _LAWS[law](trial)
        except UndescribedError as error:
            if is_hand_written(one.overloads()[0]):
                raise
            left.append(NotApplicableError(f"the schema does not say enough: {error}"))
        except NotApplicableError as error:
            left.append(error)
        fates += trial.fates
    if left and len(left) == len(dtypes):
        raise left[0]
    return Lowerings(memory.examples, fates)
