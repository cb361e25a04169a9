"""Checking a call's inputs against what was compiled: a wrong one gets a clear error, not a wrong answer."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
from torch.fx import Node

from trtplug.branches import Branch
from trtplug.errors import InputError
from trtplug.profiles import holds, profiles_in, words
from trtplug.ranges import Range, size_range

_UNNAMED = re.compile(r"\b[su]\d+\b")
"""In a size that has Torch's own name for it."""


@dataclasses.dataclass(frozen=True)
class TensorInput:
    """What a tensor input must be.

    Attributes:
        name: as messages call it.
        dtype: exact.
        sizes: an int where the size is fixed, else the size's expression.
        ranges: of each size.
    """

    name: str
    dtype: torch.dtype
    sizes: tuple[int | sympy.Expr, ...]
    ranges: tuple[Range, ...]

    def __str__(self) -> str:
        shape = ", ".join(
            str(size) if isinstance(size, int) else f"{span.name} in {span.min}..{span.max}"
            for size, span in zip(self.sizes, self.ranges)
        )
        return f"{str(self.dtype).removeprefix('torch.')}[{shape}]"


def input_checks(
    placeholders: Sequence[Node], names: Sequence[str], ranges: Mapping[sympy.Symbol, Range]
) -> tuple[TensorInput | None, ...]:
    """What each flat input must be, from a lowered graph's placeholders; None for one that is not a tensor."""
    return tuple(_check_of(node, name, ranges) for node, name in zip(placeholders, names, strict=True))


def _check_of(node: Node, name: str, ranges: Mapping[sympy.Symbol, Range]) -> TensorInput | None:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None
    sizes = tuple(size.node.expr if isinstance(size, torch.SymInt) else int(size) for size in value.shape)
    return TensorInput(name, value.dtype, sizes, tuple(size_range(size, ranges) for size in value.shape))


def check_inputs(checks: Sequence[TensorInput | None], values: Sequence[Any], branches: Sequence[Branch] = ()) -> None:
    """Raises `InputError` for the first tensor that does not fit: type, layout, dtype, rank, size, device.

    Where there are several optimization profiles, one of them must hold all tensors. Where the model branches on sizes,
    they must be of the side that was followed.
    """
    known: dict[sympy.Expr, tuple[int, str]] = {}
    device: tuple[torch.device, str] | None = None
    for check, value in zip(checks, values, strict=True):
        if check is None:
            continue
        _check_tensor(check, value, known)
        if device is None:
            device = (value.device, check.name)
        elif value.device != device[0]:
            where = f"{check.name!r} is on {value.device}, {device[1]!r} on {device[0]}"
            raise InputError(f"the inputs are on different devices: {where}. Move them to one")
    _check_branches(branches, known)
    if [check for check in checks if check is not None and [span for span in check.ranges if span.parts]]:
        _check_profiles([(check, value) for check, value in zip(checks, values) if check is not None])


def _check_profiles(pairs: Sequence[tuple[TensorInput, torch.Tensor]]) -> None:
    profiles = profiles_in([check.ranges for check, _ in pairs])
    shapes = [tuple(value.shape) for _, value in pairs]
    if not any(holds(profile, shapes) for profile in profiles):
        names = [check.name for check, _ in pairs]
        given = ", ".join(f"{name} {list(shape)}" for name, shape in zip(names, shapes))
        advice = "Compile with profiles= that hold it, or without"
        raise InputError(f"no optimization profile holds {given}; there are {words(profiles, names)}. {advice}")


def _check_branches(branches: Sequence[Branch], known: Mapping[sympy.Expr, tuple[int, str]]) -> None:
    sizes: dict[sympy.Symbol, int] = {expr: size for expr, (size, _) in known.items() if expr.is_Symbol}
    for branch in branches:
        if sizes.keys() >= branch.symbols and not branch.holds(sizes):
            given = ", ".join(f"{known[symbol][1]} is {sizes[symbol]}" for symbol in sorted(branch.symbols, key=str))
            side = branch.said_of({symbol: where for symbol, (_, where) in known.items()})
            raise InputError(
                f"{given}, but what was compiled holds only where {side}: the model branches there ({branch.source})."
                " Compile it once more for such sizes, or change that line"
            )


def _check_tensor(check: TensorInput, value: Any, known: dict[sympy.Expr, tuple[int, str]]) -> None:
    if not isinstance(value, torch.Tensor):
        raise InputError(f"input {check.name!r} is {_words(value)}; a tensor {check} is expected")
    if value.layout is not torch.strided:
        advice = "convert it with .to_dense()"
        raise InputError(f"input {check.name!r} is of the layout {value.layout}; {check} is expected: {advice}")
    if value.dtype != check.dtype:
        advice = f"convert it with .to({check.dtype})"
        raise InputError(f"input {check.name!r} is {_words(value)}; {check} is expected: {advice}")
    if value.dim() != len(check.sizes):
        raise InputError(f"input {check.name!r} is {_words(value)}, of rank {value.dim()}; {check} is expected")
    for axis, (size, span, given) in enumerate(zip(check.sizes, check.ranges, value.shape)):
        where = f"dimension {axis} of input {check.name!r} is {given}"
        if isinstance(size, int):
            if given != size:
                raise InputError(f"{where}; {size} is expected: {check}. It was not dynamic when compiled")
            continue
        if not span.min <= given <= span.max:
            advice = "Compile with a wider range to allow it"
            called = "it" if _UNNAMED.search(span.name) else span.name
            raise InputError(f"{where}; {called} is compiled for {span.min} to {span.max}. {advice}")
        before = known.setdefault(size, (given, f"dimension {axis} of input {check.name!r}"))
        if before[0] != given:
            raise InputError(f"{where}, but {before[1]} is {before[0]}; both are the size {span.name}")


def _words(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return f"{value!r} ({type(value).__name__})"


def without_autocast() -> contextlib.AbstractContextManager[Any]:
    """Turns autocast off, where it is on. A compiled graph holds the casts that were in force when it was traced."""
    return torch._C._DisableAutocast() if torch._C._is_any_autocast_enabled() else contextlib.nullcontext()


def shared_memory(written: Sequence[int], values: Sequence[Any]) -> tuple[int, int] | None:
    """The positions of an input that is written to and of another that shares memory with it; None if none does."""
    memory = [value.untyped_storage().data_ptr() if isinstance(value, torch.Tensor) else 0 for value in values]
    for place in written:
        for other, address in enumerate(memory):
            if other != place and address and address == memory[place]:
                return place, other
    return None
