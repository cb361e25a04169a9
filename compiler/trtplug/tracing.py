"""The trace stage: a model and what is known of its inputs, into an exported program with a range for each symbol."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from trtplug.branches import Branch, branches_of
from trtplug.errors import InputError, TraceError
from trtplug.exporting import Specialization, export, refusals
from trtplug.input_specs import Dimensions, Input, example_tensor
from trtplug.ranges import Range
from trtplug_registry import unknown_name

__all__ = ["Input", "Program", "Range", "as_program", "trace"]


@dataclasses.dataclass(frozen=True)
class Program:
    """An exported model.

    Attributes:
        exported: what ``torch.export`` made; not changed by any later stage.
        ranges: min, opt and max of every free symbol in the inputs' shapes.
        branches: the sides of the model's branches on sizes that it holds for, where not all sizes in the ranges do.
    """

    exported: ExportedProgram
    ranges: Mapping[sympy.Symbol, Range]
    branches: tuple[Branch, ...] = ()


def trace(
    model: nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    inputs: Sequence[Any] | Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
) -> Program:
    """Exports a model for given inputs.

    An `Input` may stand anywhere in `args` or `kwargs` in place of a tensor, inside lists, tuples and dicts too; the
    other leaves (tensors, None, numbers, strings) are taken as they are. ``inputs=`` is short for `args` if it is a
    sequence, for `kwargs` if it is a mapping.

    Where the model branches on a dynamic size (``if x.shape[0] % 2:``), the side of the example is followed; a call of
    the compiled model refuses sizes of the other. Sizes of 0 and 1 are taken to go the way of larger ones.

    Args:
        model: exported as it is (in training mode if it is in training mode), and not changed.
        args, kwargs: the arguments of a call.
        inputs: the same, as specs.
        dynamic_shapes: as ``torch.export.export`` takes it, for example tensors; every dynamic dimension needs a max.

    Raises:
        InputError: the inputs contradict each other or the model's signature.
        UnknownNameError: a keyword that the model does not take.
        TraceError: the model cannot be exported, or not for all sizes that the inputs allow.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"trace: expected a torch.nn.Module, found {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("trace: this is a TorchScript module; torch.export takes the nn.Module that it was made from")
    if not isinstance(args, list | tuple):
        raise InputError(
            f"trace: args is a tuple of the positional arguments, found a {type(args).__name__}: write (x,)"
        )
    args, kwargs = tuple(args), dict(kwargs or {})
    if inputs is not None:
        if args or kwargs:
            raise InputError("trace: both inputs= and args or kwargs; an Input may stand among args and kwargs")
        if not isinstance(inputs, list | tuple | Mapping):
            found = type(inputs).__name__
            raise InputError(f"trace: inputs= is a sequence or a mapping of Input values, found a single {found}")
        args, kwargs = ((), dict(inputs)) if isinstance(inputs, Mapping) else (tuple(inputs), {})
    bound = _bind(model, args, kwargs)
    specs = [(label, item) for label, item in _leaves(bound) if isinstance(item, Input)]
    if not specs:
        with refusals(model, lambda: Specialization.find(model, args, kwargs, dynamic_shapes)):
            return as_program(export(model, args, kwargs, dynamic_shapes))
    if dynamic_shapes is not None:
        raise InputError("trace: both Input values and dynamic_shapes=; an Input states its own ranges")
    return _trace_inputs(model, args, kwargs, specs)


def as_program(exported: ExportedProgram) -> Program:
    """An exported program whose ranges are those of its own constraints; opt is the example's size.

    Raises:
        TraceError: a dynamic dimension has no upper bound, which an engine needs.
    """
    ranges: dict[sympy.Symbol, Range] = {}
    for place in _dimensions(exported):
        for symbol in sorted(place.expr.free_symbols, key=str):
            if symbol in ranges:
                continue
            low, high = _bounds(exported, symbol)
            if high is None:
                raise TraceError(
                    f"{place} ({place.expr}) has no upper bound, and an engine needs one: export with"
                    " torch.export.Dim(name, max=…) or Dim.DYNAMIC(max=…), or use trtplug.trace with Input(max_shape=…)"
                )
            hint = _hint(place.size, symbol)
            ranges[symbol] = Range(low, min(max(hint if hint is not None else high, low), high), high)
    return Program(exported, ranges, branches_of(exported, ranges))


# --- inputs as specs --------------------------------------------------------------------------------------------------


def _trace_inputs(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], specs: list[tuple[str, Input]]
) -> Program:
    dimensions = Dimensions(specs)
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))

    def attempt(strict: bool = True) -> ExportedProgram:
        generator = torch.Generator().manual_seed(0)

        def example(leaf: Any) -> Any:
            if not isinstance(leaf, Input):
                return leaf
            return example_tensor(dimensions.example_shape(leaf), leaf.dtype, leaf.device or device, generator)

        concrete_args, concrete_kwargs = _map_leaves(example, args), _map_leaves(example, kwargs)
        shapes = None
        if any(item.dynamic for _, item in specs):
            bound = _bind(model, args, kwargs)
            _refuse_extra_keywords(model, bound)
            shapes = {name: _constraints(value, dimensions, strict) for name, value in bound.items()}
        return export(model, concrete_args, concrete_kwargs, shapes)

    with refusals(model, lambda: Specialization.watch(lambda: attempt(strict=False))):
        try:
            exported = attempt()
        except Exception:
            if not dimensions.spread:
                raise
            # the model may relate dimensions that have different names or ranges but the same opt
            dimensions.stay_at_opt()
            exported = attempt()
    ranges = _user_ranges(exported, args, kwargs, lambda: attempt(strict=False))
    return Program(exported, ranges, branches_of(exported, ranges))


def _constraints(value: Any, dimensions: Dimensions, strict: bool) -> Any:
    """The value's part of ``dynamic_shapes``: containers that Python has no display for are lists there."""
    if isinstance(value, Input):
        return dimensions.constraints(value, strict=strict)
    if isinstance(value, dict):
        return {key: _constraints(item, dimensions, strict) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a named tuple
        return type(value)(*(_constraints(item, dimensions, strict) for item in value))
    node = pytree.SUPPORTED_NODES.get(type(value))
    if node is None:
        return None
    children, context = node.flatten_fn(value)
    found = [_constraints(child, dimensions, strict) for child in children]
    return node.unflatten_fn(found, context) if type(value) in pytree.BUILTIN_TYPES else found


def _refuse_extra_keywords(model: nn.Module, bound: Mapping[str, Any]) -> None:
    """torch.export counts the arguments under ``**rest`` twice when it reads ``dynamic_shapes``."""
    for name, parameter in inspect.signature(model.forward).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD and bound.get(name):
            raise InputError(
                f"torch.export takes no dynamic shapes for a model that receives {', '.join(map(repr, bound[name]))}"
                f" as **{name}: name them in the signature of {type(model).__name__}.forward, or make all shapes static"
            )


def _user_ranges(
    exported: ExportedProgram, args: Any, kwargs: Any, retry: Callable[[], ExportedProgram]
) -> dict[sympy.Symbol, Range]:
    """The user's ranges by symbol, once it is sure that export kept all of them."""
    leaves = _map_leaves_flat(args, kwargs, exported)
    ranges: dict[sympy.Symbol, tuple[Range, _Dimension]] = {}
    for place in _dimensions(exported):
        leaf = leaves[place.position]
        if not isinstance(leaf, Input) or place.axis is None or not place.expr.is_Symbol:
            continue
        span = leaf.ranges[place.axis]
        known, first = ranges.setdefault(place.expr, (span, place))
        if (known.min, known.max) != (span.min, span.max):
            raise TraceError(
                f"{first} and {place} must have the same size in this model, but their ranges are {known} and {span}:"
                " give both the same range (and the same name in dims=)"
            )
        low, high = _bounds(exported, place.expr)
        if low > max(span.min, 2) or (high is not None and high < span.max):
            found = Specialization.watch(retry)
            raise TraceError(
                f"{place} ranges over {span}, but the model holds only for {low}..{high if high is not None else ''}"
                f"{found}: change the range, or the code that depends on the size"
            )
    result = {symbol: span for symbol, (span, _) in ranges.items()}
    for symbol, span in as_program(exported).ranges.items():  # symbols that occur only in expressions such as 2*s0
        result.setdefault(symbol, span)
    return result


def _map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    return pytree.tree_map(function, tree, is_leaf=lambda leaf: isinstance(leaf, Input))


def _map_leaves_flat(args: Any, kwargs: Any, exported: ExportedProgram) -> list[Any]:
    """The leaves in the order of the program's user inputs (export orders keywords as the model's signature does)."""
    order = exported.call_spec.in_spec.child(1).context if exported.call_spec.in_spec is not None else list(kwargs)
    ordered = {name: kwargs[name] for name in order}
    return pytree.tree_leaves((tuple(args), ordered), is_leaf=lambda leaf: isinstance(leaf, Input))


def _leaves(bound: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each leaf with the name that messages use: the Input's own, or the parameter and the path under it."""
    for name, value in bound.items():
        for path, leaf in pytree.tree_leaves_with_path(value, is_leaf=lambda leaf: isinstance(leaf, Input)):
            own = leaf.name if isinstance(leaf, Input) else ""
            yield f"input {own or name + pytree.keystr(path)!r}", leaf


def _bind(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    signature = inspect.signature(model.forward)
    parameters = signature.parameters.values()
    names = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in kwargs:
            if name not in names:
                raise unknown_name("input", name, names)
    try:
        return dict(signature.bind(*args, **kwargs).arguments)
    except TypeError as error:
        raise InputError(f"{type(model).__name__}.forward{signature}: {error}") from None


# --- reading an exported program --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Dimension:
    """A dynamic dimension of a user input."""

    name: str
    position: int
    axis: int | None
    size: torch.SymInt

    @property
    def expr(self) -> sympy.Expr:
        return self.size.node.expr

    def __str__(self) -> str:
        return f"dimension {self.axis} of input {self.name!r}" if self.axis is not None else f"input {self.name!r}"


def _dimensions(exported: ExportedProgram) -> Iterator[_Dimension]:
    users = list(exported.graph_signature.user_inputs)
    values = {node.name: node.meta.get("val") for node in exported.graph.nodes if node.op == "placeholder"}
    for position, name in enumerate(users):
        value = values.get(name) if isinstance(name, str) else None
        if isinstance(value, torch.Tensor):
            for axis, size in enumerate(value.shape):
                if isinstance(size, torch.SymInt) and not size.node.expr.is_number:
                    yield _Dimension(name, position, axis, size)
        elif isinstance(value, torch.SymInt) and not value.node.expr.is_number:
            yield _Dimension(name, position, None, value)


def _bounds(exported: ExportedProgram, symbol: sympy.Symbol) -> tuple[int, int | None]:
    """The smallest and the largest value, None where there is no largest."""
    found = exported.range_constraints.get(symbol)
    if found is None:
        return 2, None
    low, high = float(found.lower), float(found.upper)
    bounded = high < 2**31  # export writes "no bound" as infinity or as the largest integer
    return (int(low) if low > 0 else 0), (int(high) if bounded else None)


def _hint(size: torch.SymInt, symbol: sympy.Symbol) -> int | None:
    env = size.node.shape_env
    hints = env.backed_var_to_val if hasattr(env, "backed_var_to_val") else env.var_to_val  # renamed in torch 2.13
    hint = hints.get(symbol)
    return int(hint) if hint is not None else None
