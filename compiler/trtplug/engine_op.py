"""The op that stands for a call of an engine where somebody traces: ``trtplug::engine``.

    engine(str key, Tensor[] tensors, SymInt[] sizes) -> Tensor[]

It has a fake implementation, so that ``torch.compile``, ``torch.export`` and fake tensors see an engine as one node
with the right shapes, dtypes and device. The key names an engine of this process; an engine stays registered for as
long as somebody holds what `register` returned.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch.utils._sympy.interp import sympy_interp
from torch.utils._sympy.reference import PythonReferenceAnalysis

from trtplug.errors import ExecutorError
from trtplug.network import Binding
from trtplug.stored_engine import register_fake
from trtplug_registry.executor import Run

OP = "trtplug::engine"
_SCHEMA = "(str key, Tensor[] tensors, SymInt[] sizes) -> Tensor[]"


class Registered:
    """An engine under its key. A copy is the engine itself, under the same key."""

    def __init__(self, inputs: Sequence[Binding], outputs: Sequence[Binding], run: Run, key: str) -> None:
        self.inputs, self.outputs, self.run, self.key = tuple(inputs), tuple(outputs), run, key

    def __deepcopy__(self, memo: dict[int, Any]) -> Registered:
        return self


# The one table that an op, which gets nothing but its arguments, can look an engine up in. It keeps nothing alive.
_ENGINES: weakref.WeakValueDictionary[str, Registered] = weakref.WeakValueDictionary()


def register(engine: Any, run: Run, key: str = "") -> Registered:
    """Makes an engine callable as an op.

    Args:
        engine: a `CompiledEngine`; its bindings are used.
        run: what runs it: tensors, then sizes, to results.
        key: its name in this process; a new one where "".

    Returns:
        What keeps it registered.
    """
    made = Registered(engine.input_bindings, engine.output_bindings, run, key or f"{engine.name}-{uuid.uuid4().hex}")
    _ENGINES[made.key] = made
    return made


def find(key: str) -> Registered:
    """The engine of a key.

    Raises:
        ExecutorError: there is none in this process.
    """
    found = _ENGINES.get(key)
    if found is None:
        raise ExecutorError(f"no engine {key!r} in this process: its compiled module is gone, or was another process's")
    return found


def _run(key: str, tensors: Sequence[torch.Tensor], sizes: Sequence[int]) -> list[torch.Tensor]:
    results = find(key).run(*tensors, *sizes)
    given = {id(tensor) for tensor in tensors}
    return [result.clone() if id(result) in given else result for result in results]  # an op must not return an input


def _fake(key: str, tensors: Sequence[torch.Tensor], sizes: Sequence[Any]) -> list[torch.Tensor]:
    engine = find(key)
    device = tensors[0].device if tensors else torch.device("cpu")
    shapes = result_shapes(engine, tensors, sizes)
    return [
        torch.empty(shape, dtype=binding.facts.dtype, device=device) for shape, binding in zip(shapes, engine.outputs)
    ]


def result_shapes(engine: Registered, tensors: Sequence[torch.Tensor], sizes: Sequence[Any]) -> list[list[Any]]:
    """The shapes of an engine's results for inputs whose sizes are ints or SymInts."""
    given = [size for tensor in tensors for size in tensor.shape] + list(sizes)
    written = [extent for binding in engine.inputs for extent in binding.extents]
    known: dict[sympy.Expr, Any] = {}
    if len(written) == len(given):  # else an engine whose sizes nobody knows as expressions
        known = _symbols([sympy.sympify(extent) for extent in written], given)
    return [[_extent(binding, axis, known) for axis in range(binding.facts.rank)] for binding in engine.outputs]


def _symbols(written: Sequence[sympy.Expr], given: Sequence[Any]) -> dict[sympy.Expr, Any]:
    """What the inputs' expressions are, and the symbols in them that follow from those: x from 2 x + y and y."""
    known = dict(zip(written, given))
    todo = list(known.items())
    while todo:
        left = [(expression, size) for expression, size in todo if not _solved(expression, size, known)]
        if len(left) == len(todo):
            break
        todo = left
    return known


def _solved(expression: sympy.Expr, size: Any, known: dict[sympy.Expr, Any]) -> bool:
    """Whether all symbols of an expression are known, once one that it is linear in has been found out."""
    unknown = expression.free_symbols - known.keys()
    if len(unknown) == 1:
        (symbol,) = unknown
        rest, part = expression.expand().as_independent(symbol, as_Add=True)
        if (part / symbol).is_Integer:
            known[symbol] = (size - _evaluated(rest, known)) // int(part / symbol)
    return bool(expression.free_symbols <= known.keys())


def _evaluated(expression: sympy.Expr, known: Mapping[sympy.Expr, Any]) -> Any:
    if expression in known:
        return known[expression]
    return int(expression) if expression.is_Integer else sympy_interp(PythonReferenceAnalysis, dict(known), expression)


def _extent(binding: Binding, axis: int, known: Mapping[sympy.Expr, Any]) -> Any:
    fixed = binding.facts.shape[axis]
    if fixed != -1:
        return fixed
    extent = sympy.sympify(binding.extents[axis]) if binding.extents else None
    if extent is None or not (extent in known or extent.free_symbols <= known.keys()):
        return torch.library.get_ctx().new_dynamic_size()
    return _evaluated(extent, known)


_library = torch.library.Library("trtplug", "DEF")
_library.define(f"engine{_SCHEMA}", tags=(torch.Tag.pt2_compliant_tag,))
_library.impl("engine", _run, "CompositeExplicitAutograd")
register_fake(OP, _fake, _library)
run: Callable[[str, Sequence[torch.Tensor], Sequence[Any]], list[torch.Tensor]] = torch.ops.trtplug.engine.default
