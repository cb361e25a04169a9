"""A model's branches on its inputs' sizes. ``torch.export`` follows one side: the program holds for its sizes only."""

from __future__ import annotations

import dataclasses
import linecache
import operator
import os
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import sympy
import torch

import trtplug_registry
from trtplug.ranges import Range

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

RELATIONS: Mapping[str, tuple[Any, Callable[[Any, Any], Any]]] = {
    "==": (sympy.Eq, operator.eq),
    "!=": (sympy.Ne, operator.ne),
    "<": (sympy.Lt, operator.lt),
    "<=": (sympy.Le, operator.le),
    ">": (sympy.Gt, operator.gt),
    ">=": (sympy.Ge, operator.ge),
}

_TORCH = os.path.dirname(torch.__file__) + os.sep
_MODULES = os.path.join(_TORCH, "nn") + os.sep
_OURS = tuple(os.path.dirname(file) + os.sep for file in (__file__, str(trtplug_registry.__file__)))
_MOST_SIZES = 512
"""A range of at most so many sizes is gone through, to see whether a side is taken at all of them."""


@dataclasses.dataclass(frozen=True)
class Branch:
    """The side that was followed, ``left relation right``.

    Attributes:
        relation: one of `RELATIONS`.
        left, right: expressions of the symbols in the inputs' shapes.
        source: the model's line.
    """

    relation: str
    left: sympy.Expr
    right: sympy.Expr
    source: str

    @property
    def symbols(self) -> frozenset[sympy.Symbol]:
        return frozenset(self.left.free_symbols | self.right.free_symbols)

    def on(self, sizes: Mapping[sympy.Symbol, Any]) -> tuple[Any, Any]:
        """Both sides, with other expressions for the symbols."""
        left, right = (side.xreplace(dict(sizes)) for side in (self.left, self.right))
        return left, right

    def holds(self, sizes: Mapping[sympy.Symbol, int]) -> bool:
        left, right = self.on({symbol: sympy.Integer(sizes[symbol]) for symbol in self.symbols})
        return bool(RELATIONS[self.relation][1](left, right))

    def said_of(self, names: Mapping[sympy.Symbol, str]) -> str:
        left, right = self.on({symbol: sympy.Symbol(names[symbol]) for symbol in self.symbols})
        return f"{left} {self.relation} {right}"


def branches_of(exported: ExportedProgram, ranges: Mapping[sympy.Symbol, Range]) -> tuple[Branch, ...]:
    """The branches of the model's own code that not all sizes in the ranges take; () for a program from a file.

    Torch's own code branches too, on how results lie in memory. That changes no result, so it is left out.
    """
    env = _shape_env(exported)
    found: dict[tuple[Any, ...], Branch] = {}
    for guard in env.guards if env is not None else ():
        source = _model_line(getattr(getattr(guard, "sloc", None), "framework_loc", None))
        relation = next((name for name, (kind, _) in RELATIONS.items() if isinstance(guard.expr, kind)), None)
        if not source or relation is None or not guard.expr.free_symbols <= ranges.keys():
            continue
        left, right = guard.expr.args
        branch = Branch(relation, left, right, source)
        if not _always(branch, ranges):
            found.setdefault((relation, branch.left, branch.right), branch)
    return tuple(found.values())


def _shape_env(exported: ExportedProgram) -> ShapeEnv | None:
    for node in exported.graph.find_nodes(op="placeholder"):
        mode = getattr(node.meta.get("val"), "fake_mode", None)
        if mode is not None:
            env: ShapeEnv | None = mode.shape_env
            return env
    return None


def _model_line(frame: Any) -> str:
    """The line, where it is a model's: not Torch's own, save for its modules, and not ours."""
    if not isinstance(frame, traceback.FrameSummary):
        return ""
    if frame.filename.startswith(_OURS) or (
        frame.filename.startswith(_TORCH) and not frame.filename.startswith(_MODULES)
    ):
        return ""
    return f"{frame.filename}:{frame.lineno}: {linecache.getline(frame.filename, frame.lineno or 0).strip()}"


def _always(branch: Branch, ranges: Mapping[sympy.Symbol, Range]) -> bool:
    if len(branch.symbols) != 1:
        return False
    (symbol,) = branch.symbols
    span = ranges[symbol]
    return span.max - span.min < _MOST_SIZES and all(
        branch.holds({symbol: size}) for size in range(span.min, span.max + 1)
    )
