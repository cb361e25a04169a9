"""Converters: frozen values that say which op they take, when, and how it becomes layers."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import keyword
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket

from trtplug_registry.domain import Domain
from trtplug_registry.errors import DeclarationError

_VARIADIC = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS

DATA_DEPENDENT_SHAPES = "data-dependent-shapes"
"""What a converter `needs` whose results have shapes that depend on values: TensorRT-RTX builds no such engine."""

Target: TypeAlias = OpOverload | OpOverloadPacket | HigherOrderOperator | str
Convert: TypeAlias = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far a result may be from eager's, where rounding alone explains more than the default; `because` says how."""

    relative: float
    absolute: float
    because: str


@dataclasses.dataclass(frozen=True, eq=False)
class Converter:
    """One way in which an op becomes layers.

    Attributes:
        target: an overload, a packet (all overloads that share the function's signature), or an op's qualified name
            such as ``"mylib::op"`` or ``"mylib::op.overload"``, which need not be loaded yet. A higher-order operator
            (``torch.ops.higher_order.cond``) too: the function's parameters are then those of its call.
        domain: which calls it takes.
        function: called with the context, then the schema's arguments by name.
        dynamic_shapes: whether any input may have symbolic sizes.
        priority: higher is asked first.
        needs: names of the TensorRT module that must exist, such as ``"INetworkDefinition.add_attention"``; and
            `DATA_DEPENDENT_SHAPES`, which is not a name but an ability.
        tolerance: the laws' tolerance, where the default is too tight, by dtype of the result.
        keeps_nan: whether eager's NaN stays. TensorRT's maxima, minima, top-k, clamps and max
            pooling do not promise that; what is said here is shown with the op.
        name: of the function, for messages.
        plugin: who brought it; set by the registry.
        built_in: whether it came with trtplug; set by the registry.
    """

    target: Target
    domain: Domain
    function: Convert
    dynamic_shapes: bool = True
    priority: int = 0
    needs: tuple[str, ...] = ()
    tolerance: Mapping[torch.dtype, Tolerance] = dataclasses.field(default_factory=dict)
    keeps_nan: bool = True
    name: str = ""
    plugin: str = ""
    built_in: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.target, str):
            self.overloads()

    @functools.cached_property
    def id(self) -> str:
        """``plugin:target``, for messages and settings."""
        return f"{self.plugin}:{self.target_name}" if self.plugin else self.target_name

    @property
    def target_name(self) -> str:
        return self.target if isinstance(self.target, str) else qualified_name(self.target)

    def overloads(self) -> tuple[OpOverload, ...]:
        """The overloads that it takes; none while its op library is not loaded, or for a higher-order operator.

        Raises:
            DeclarationError: the function's parameters are not the schema's, or the domain leaves an argument open.
        """
        target = resolve(self.target) if isinstance(self.target, str) else self.target
        if target is None:
            return ()
        if isinstance(target, HigherOrderOperator):
            check_signature(self, target)
            return ()
        if isinstance(target, OpOverload):
            check_signature(self, target)
            return (target,)
        candidates = [getattr(target, name) for name in target.overloads()]
        fitting = tuple(overload for overload in candidates if signature_mismatch(self.function, overload) is None)
        if not fitting:
            problems = "; ".join(f"{c.name()}: {signature_mismatch(self.function, c)}" for c in candidates)
            raise DeclarationError(f"converter {self.name!r} fits no overload of {self.target_name}: {problems}")
        for overload in fitting:
            check_signature(self, overload)
        return fitting

    @property
    def operator(self) -> HigherOrderOperator | None:
        """The higher-order operator that it takes, where its target is one."""
        target = resolve(self.target) if isinstance(self.target, str) else self.target
        return target if isinstance(target, HigherOrderOperator) else None


def converter(
    target: Target,
    domain: Domain,
    *,
    dynamic_shapes: bool = True,
    priority: int = 0,
    needs: tuple[str, ...] = (),
    tolerance: Mapping[torch.dtype, Tolerance] | None = None,
    keeps_nan: bool = True,
) -> Callable[[Convert], Converter]:
    """Makes a `Converter` of a function. Registers nothing: return it from ``trtplug_converters()``.

    The function's parameters are ``ctx`` and then exactly the ATen schema's, with its names and defaults, keyword-only
    where the schema's are; a parameter whose name is a Python keyword takes a trailing underscore.

    Raises:
        DeclarationError: the parameters or the domain do not match the schema.
    """

    def make(function: Convert) -> Converter:
        name = getattr(function, "__name__", repr(function))
        return Converter(target, domain, function, dynamic_shapes, priority, needs, tolerance or {}, keeps_nan, name)

    return make


def converter_table(
    rows: Mapping[Any, Any],
    domain: Domain,
    *,
    dynamic_shapes: bool = True,
    priority: int = 0,
    needs: tuple[str, ...] = (),
    tolerance: Mapping[torch.dtype, Tolerance] | None = None,
    keeps_nan: bool = True,
) -> Callable[[Convert], tuple[Converter, ...]]:
    """Makes one `Converter` per row: a target, and the value that the function takes before ``ctx``.

    For families of ops that differ in one name::

        @converter_table({aten.exp.default: "EXP", aten.log.default: "LOG"}, Domain(self=Tensor(FLOATS)))
        def unary(op, ctx, self):
            return ctx.unary(op, self)
    """

    def make(function: Convert) -> tuple[Converter, ...]:
        name = getattr(function, "__name__", repr(function))
        return tuple(
            Converter(
                target,
                domain,
                functools.partial(function, row),
                dynamic_shapes,
                priority,
                needs,
                tolerance or {},
                keeps_nan,
                name,
            )
            for target, row in rows.items()
        )

    return make


def qualified_name(target: OpOverload | OpOverloadPacket | HigherOrderOperator) -> str:
    """``aten::add.Tensor``; ``aten::relu`` for a default overload; ``aten::add`` for a packet; ``higher_order::op``."""
    if isinstance(target, OpOverload):  # asked first: the operators' class is abstract, which takes Python to check
        return str(target.name())
    named = f"higher_order::{target.name()}" if isinstance(target, HigherOrderOperator) else target._qualified_op_name
    return str(named)


def resolve(name: str) -> OpOverload | OpOverloadPacket | HigherOrderOperator | None:
    """The op of a qualified name (``ns::op`` or ``ns::op.overload``; ``ns.op.overload`` too), or None if not loaded.

    ``ns::op`` without an overload means the default one where there is one.
    """
    space, _, rest = name.partition("::") if "::" in name else name.partition(".")
    op, _, overload = rest.partition(".")
    packet = getattr(getattr(torch.ops, space), op, None) if op else None
    if isinstance(packet, HigherOrderOperator):
        return None if overload else packet
    if not isinstance(packet, OpOverloadPacket):
        return None
    if overload:
        return getattr(packet, overload, None)
    return getattr(packet, "default", packet)


def parameter_name(argument: str) -> str:
    return f"{argument}_" if keyword.iskeyword(argument) else argument


class Formal(NamedTuple):
    """One argument of an op; `default` is ``inspect.Parameter.empty`` where it has none."""

    name: str
    default: Any
    keyword_only: bool

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


@functools.cache
def formals(op: OpOverload | HigherOrderOperator) -> tuple[Formal, ...]:
    """The arguments of an op: of its schema; of its call, where it is a higher-order operator, which has none.

    Raises:
        DeclarationError: a higher-order operator that takes any number of arguments.
    """
    if isinstance(op, OpOverload):
        return tuple(
            Formal(a.name, a.default_value if a.has_default_value() else inspect.Parameter.empty, a.kwarg_only)
            for a in op._schema.arguments
        )
    parameters = list(inspect.signature(type(op).__call__).parameters.values())[1:]
    if any(p.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD) for p in parameters):
        raise DeclarationError(f"{qualified_name(op)} takes any number of arguments, so no converter can name them")
    return tuple(Formal(p.name, p.default, p.kind is inspect.Parameter.KEYWORD_ONLY) for p in parameters)


def signature_mismatch(function: Convert, op: OpOverload | HigherOrderOperator) -> str | None:
    """How the function's parameters (after ``ctx``) differ from the schema's, or None.

    Those of a higher-order operator that have defaults may be left out: they come and go with Torch's versions.
    """
    parameters = _parameters(function)[1:]
    names = [name for name, _, _ in parameters]
    arguments = [
        argument
        for argument in formals(op)
        if isinstance(op, OpOverload) or argument.required or parameter_name(argument.name) in names
    ]
    expected = [parameter_name(argument.name) for argument in arguments]
    if names != expected:
        return f"its parameters after ctx are {names}, the schema's are {expected}"
    for (name, keyword_only, ours), argument in zip(parameters, arguments, strict=True):
        if argument.keyword_only != keyword_only:
            return f"{name!r} is{'' if argument.keyword_only else ' not'} keyword-only in the schema"
        if not _same_default(ours, argument.default):
            return f"the default of {name!r} is {_show(ours)}, the schema's is {_show(argument.default)}"
    return None


def _parameters(function: Convert) -> list[tuple[str, bool, Any]]:
    """Of each parameter its name, whether it is keyword-only, and its default.

    What `inspect.signature` says, read off the code where that is all there is to it: a registry asks a thousand times.
    """
    bound, plain = 0, function
    if type(function) is functools.partial and not function.keywords:
        bound, plain = len(function.args), function.func
    code = plain.__code__ if type(plain) is types.FunctionType and not vars(plain) else None
    if code is None or code.co_flags & _VARIADIC or code.co_posonlyargcount:
        found = inspect.signature(function).parameters.values()
        return [(p.name, p.kind is inspect.Parameter.KEYWORD_ONLY, p.default) for p in found]
    names, defaults = code.co_varnames[: code.co_argcount], plain.__defaults__ or ()
    padded = (*(inspect.Parameter.empty,) * (len(names) - len(defaults)), *defaults)
    positional = [(name, False, default) for name, default in zip(names, padded, strict=True)]
    only = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    known = plain.__kwdefaults__ or {}
    return positional[bound:] + [(name, True, known.get(name, inspect.Parameter.empty)) for name in only]


def check_signature(converter: Converter, op: OpOverload | HigherOrderOperator) -> None:
    """Raises `DeclarationError` unless function and domain speak of exactly the schema's arguments."""
    name, mismatch = qualified_name(op), signature_mismatch(converter.function, op)
    if mismatch is not None:
        raise DeclarationError(f"converter {converter.name!r} for {name}: {mismatch}")
    arguments = formals(op)
    unknown = sorted(set(converter.domain.arguments) - {argument.name for argument in arguments})
    if unknown:
        raise DeclarationError(f"converter {converter.name!r}: {name} has no argument {', '.join(unknown)}")
    for argument in arguments:
        if argument.name not in converter.domain.arguments and argument.required:
            raise DeclarationError(
                f"converter {converter.name!r} for {name}: the domain says nothing of {argument.name!r},"
                " which has no default"
            )


def _same_default(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return list(ours) == list(theirs)
    return type(ours) is type(theirs) and bool(ours == theirs)


def _show(default: Any) -> str:
    return "none" if default is inspect.Parameter.empty else repr(default)
