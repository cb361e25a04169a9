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
    values: dict[sympy.Symbol, Any] = {}
    stand_ins: dict[sympy.Expr, sympy.Symbol] = {}
    given = [tuple(tensor.shape) for tensor in tensors] + [(size,) for size in sizes]
    for binding, shape in zip(engine.inputs, given, strict=True):
        for extent, size in zip(binding.extents, shape):
            if isinstance(extent, sympy.Symbol):
                values.setdefault(extent, size)
            elif isinstance(extent, sympy.Expr):
                values[stand_ins.setdefault(extent, sympy.Dummy())] = size
    return [
        [_extent(binding, axis, values, stand_ins) for axis in range(binding.facts.rank)] for binding in engine.outputs
    ]


def _extent(
    binding: Binding, axis: int, values: Mapping[sympy.Symbol, Any], stand_ins: Mapping[sympy.Expr, sympy.Symbol]
) -> Any:
    fixed = binding.facts.shape[axis]
    if fixed != -1:
        return fixed
    if not binding.extents:  # an engine whose sizes nobody knows as expressions
        return torch.library.get_ctx().new_dynamic_size()
    extent = sympy.sympify(binding.extents[axis])
    if not extent.free_symbols <= values.keys():
        extent = extent.xreplace(dict(stand_ins))
    if not extent.free_symbols <= values.keys():
        return torch.library.get_ctx().new_dynamic_size()
    return sympy_interp(PythonReferenceAnalysis, dict(values), extent)


_library = torch.library.Library("trtplug", "DEF")
_library.define(f"engine{_SCHEMA}", tags=(torch.Tag.pt2_compliant_tag,))
_library.impl("engine", _run, "CompositeExplicitAutograd")
torch.library.register_fake(OP, _fake, lib=_library)
run: Callable[[str, Sequence[torch.Tensor], Sequence[Any]], list[torch.Tensor]] = torch.ops.trtplug.engine.default
