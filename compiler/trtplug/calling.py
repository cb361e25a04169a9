"""Arguments for a call of a compiled module, drawn where nobody gives any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
from torch.utils import _pytree as pytree

from trtplug.compiled import CompiledModule
from trtplug.engine import EngineModule
from trtplug.errors import InputError
from trtplug.input_specs import example_tensor
from trtplug.inputs import TensorInput
from trtplug_registry import unknown_name


def drawn_call(
    compiled: CompiledModule, sizes: Mapping[str, int], examples: Sequence[Any] | None = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional arguments and keywords of a call: dynamic sizes are their typical ones where `sizes` does not say.

    Args:
        compiled: what is called.
        sizes: by the user's names for them, or by input and axis, ``x[0]``.
        examples: flat inputs of the model; a tensor of the right shape and dtype serves, others are drawn.

    Raises:
        UnknownNameError: `sizes` names what is no dynamic size.
        InputError: an input is neither a tensor nor a constant, and there is no example of it.
    """
    generator, values = torch.Generator().manual_seed(0), _values(compiled.checks, sizes)
    flat: list[Any] = []
    for place, check in enumerate(compiled.checks):
        example = None if examples is None else examples[place]
        if check is None:
            flat.append(_constant(compiled, place, examples))
            continue
        shape = [_size(size, span.opt, values) for size, span in zip(check.sizes, check.ranges)]
        if isinstance(example, torch.Tensor) and (list(example.shape), example.dtype) == (shape, check.dtype):
            flat.append(example.detach().clone().to(home_of(compiled, example)))  # the model may write to it
        else:
            flat.append(example_tensor(shape, check.dtype, home_of(compiled, example), generator))
    args, kwargs = pytree.tree_unflatten(flat, compiled.lowered.in_spec)
    return args, kwargs


def home_of(compiled: CompiledModule, example: Any = None) -> torch.device:
    """Where a call's tensors go: to the device that the executor asks for, or where an example or the module's are."""
    engines = (module for module in compiled.graph_module.modules() if isinstance(module, EngineModule))
    asked = next((engine.device for engine in engines if engine.device), "")
    if asked:
        return torch.device(asked)
    held = [value for value in (example, *compiled.state_dict().values()) if isinstance(value, torch.Tensor)]
    return held[0].device if held else torch.device("cpu")


def _values(checks: Sequence[TensorInput | None], sizes: Mapping[str, int]) -> dict[Any, int]:
    """The value of each symbol."""
    named: dict[str, Any] = {}
    values: dict[Any, int] = {}
    for check in checks:
        for axis, (size, span) in enumerate(zip(check.sizes, check.ranges) if check is not None else ()):
            if isinstance(size, sympy.Symbol):
                assert check is not None
                named |= {f"{check.name}[{axis}]": size} | ({span.name: size} if span.name else {})
                values[size] = span.opt
    for name, value in sizes.items():
        if name not in named:
            raise unknown_name("dynamic size", name, named)
        values[named[name]] = value
    return values


def _size(size: int | sympy.Expr, typical: int, values: Mapping[Any, int]) -> int:
    if isinstance(size, int):
        return size
    found = size.xreplace({symbol: sympy.Integer(value) for symbol, value in values.items()})
    return int(found) if found.is_number else typical


def _constant(compiled: CompiledModule, place: int, examples: Sequence[Any] | None) -> Any:
    if place in compiled.lowered.constants:
        return compiled.lowered.constants[place]
    if examples is None:
        raise InputError(f"input {compiled.lowered.input_names[place]!r} is a number, and there is no example of it")
    return examples[place]
