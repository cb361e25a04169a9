"""What becomes of an op in each usual dtype, of static and of symbolic sizes: the cells of the support matrix.

A converter's domain says which dtypes it claims. Of the other dtypes one call is followed: eager is asked whether it
has such a call at all, then the call is lowered, and what remains is asked about.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

import torch
from torch._ops import OpOverload
from torch.utils import _pytree as pytree

from trtplug.covering.ops import quiet
from trtplug.lowering.decompose import WHY_NOT
from trtplug.naming import op_name
from trtplug_registry import ALL, Domain, ReasonCode, Registry, qualified_name

DTYPES = tuple(str(dtype).removeprefix("torch.") for dtype in ALL)
"""float32, float16, bfloat16, int32, int64, bool."""


class Fate(enum.StrEnum):
    """What becomes of an op's calls in one dtype."""

    CONVERTED = "converted"
    DECOMPOSED = "decomposed"
    REFUSED = "refused"
    NOT_APPLICABLE = "not-applicable"
    UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True)
class Cell:
    """An op in one dtype.

    Attributes:
        dtype: of the leading tensor, or of the result where there is none.
        fate: converted or decomposed as a whole, refused, without meaning (eager has no such call), or unknown, where
            no call could be guessed.
        dynamic: whether symbolic sizes are taken too.
        why: for what is refused.
    """

    dtype: str
    fate: Fate
    dynamic: bool = False
    why: str = ""

    @property
    def runs(self) -> bool:
        return self.fate in (Fate.CONVERTED, Fate.DECOMPOSED)


def cells(registry: Registry, op: OpOverload, known: dict[str, Any]) -> tuple[Cell, ...]:
    """One cell for each usual dtype.

    Args:
        registry: answers.
        op: the overload.
        known: what was found before, by op and dtype; what is found now is added.
    """
    claimed: dict[str, bool] = {}
    for candidate in registry.candidates(op):
        if registry.unavailable(op, candidate) is None:
            for dtype in leading_dtypes(candidate.domain):
                claimed[dtype] = claimed.get(dtype, False) or candidate.dynamic_shapes
    found = []
    for dtype in DTYPES:
        if dtype in claimed:
            found.append(Cell(dtype, Fate.CONVERTED, claimed[dtype]))
            continue
        key = f"{qualified_name(op)} {dtype}"
        if key not in known:
            with quiet():
                known[key] = _json(_followed(registry, op, dtype, known))
        found.append(_cell(dtype, known[key]))
    return tuple(found)


def leading_dtypes(domain: Domain) -> tuple[str, ...]:
    """The dtypes of the first tensor that may have several, else of the first."""
    every = [spec.dtypes for spec in domain.tensors().values()]
    chosen = next((dtypes for dtypes in every if len(dtypes) > 1), every[0] if every else ())
    return tuple(str(dtype).removeprefix("torch.") for dtype in chosen)


def _followed(registry: Registry, op: OpOverload, name: str, known: dict[str, Any]) -> Cell:
    """What lowering makes of one call."""
    from trtplug.covering.samples import call, in_dtype, sample_of

    dtype = getattr(torch, name)
    guess = call(op)
    if guess is None:
        return Cell(name, Fate.UNKNOWN, why="no call could be guessed")
    args, kwargs = guess
    given = in_dtype(op, args, kwargs, dtype)
    if given is None:
        return Cell(name, Fate.NOT_APPLICABLE)
    why, fate = _left(registry, sample_of(op, *given), op)
    if why:
        return Cell(name, Fate.REFUSED, why=why)
    if fate is Fate.CONVERTED and not any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(given)):
        return Cell(name, fate, any(candidate.dynamic_shapes for candidate in registry.candidates(op)))
    key = f"{qualified_name(op)} symbolic"
    if key not in known:  # what one dtype's sizes may be, those of the others may be, too
        ways = (_left(registry, sample_of(op, *given, symbolic=which), op)[0] for which in ("first", "all"))
        known[key] = _json(Cell(name, fate, any(why == "" for why in ways)))
    return Cell(name, fate, known[key]["by"] == "dynamic")


def _left(registry: Registry, graph_module: Any, op: OpOverload) -> tuple[str, Fate]:
    """Why something of a call is left to Torch, "" where nothing is; and what became of the call."""
    from trtplug.covering.ops import calls, lowered

    if graph_module is None:
        return "no call could be followed", Fate.REFUSED
    first = next((node.target for node in calls(graph_module)), None)
    result = lowered(registry, graph_module)
    left = {}
    whole = False
    for node in calls(result.graph_module):
        support = registry.lookup(node)
        whole = whole or node.target is first
        if not support:
            left[op_name(node)] = "; ".join(
                reason.because or f"{reason.argument} {reason.seen}".strip()
                if reason.code is not ReasonCode.NO_CONVERTER
                else reason.because or node.meta.get(WHY_NOT) or "no converter"
                for reason in support.reasons
            )
    own = left.pop(qualified_name(op), "")
    others = [f"{name} ({why})" for name, why in sorted(left.items())]
    return "; ".join([own, *others] if own else others), Fate.CONVERTED if whole else Fate.DECOMPOSED


def _json(cell: Cell) -> Mapping[str, Any]:
    """As `trtplug.covering.memory` keeps what is known."""
    return {
        "status": cell.fate.value,
        "decomposes_to": [],
        "by": "dynamic" if cell.dynamic else "",
        "reasons": [cell.why],
    }


def _cell(dtype: str, data: Mapping[str, Any]) -> Cell:
    return Cell(dtype, Fate(data["status"]), data["by"] == "dynamic", data["reasons"][0])
