"""The decorator, and what stands in for Torch-TensorRT's context, network and settings."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from torch._ops import OpOverload, OpOverloadPacket
from torch.fx import Node

from trtplug.errors import ConversionError
from trtplug_registry import (
    Anything,
    Converter,
    ConverterContext,
    DeclarationError,
    Domain,
    ListOf,
    Optional,
    OutputsUsed,
    Reason,
    ReasonCode,
    Spec,
    Tensor,
)
from trtplug_registry.conversion import parameter_name

Validator = Callable[..., bool]


def dynamo_tensorrt_converter(
    key: OpOverload | OpOverloadPacket,
    *,
    enabled: bool = True,
    capability_validator: Validator | None = None,
    priority: int = 0,
    supports_dynamic_shapes: bool = False,
    requires_output_allocator: bool = False,
) -> Callable[[Callable[..., Any]], tuple[Converter, ...]]:
    """Torch-TensorRT's decorator; the function becomes one `Converter` for each overload of its target.

    Args:
        key: an overload, or a packet for all of its overloads.
        enabled: where False, there is no converter.
        capability_validator: ``(node)`` or ``(node, settings)`` → whether the converter takes a node.
        priority: higher is asked first.
        supports_dynamic_shapes: whether any input may have symbolic sizes.
        requires_output_allocator: not supported.

    Raises:
        DeclarationError: the target is no op, or the function does not take ``(ctx, target, args, kwargs, name)``.
    """
    if not isinstance(key, OpOverload | OpOverloadPacket):
        raise DeclarationError(f"dynamo_tensorrt_converter({key!r}): the target must be an op of torch.ops")
    if requires_output_allocator:
        raise DeclarationError(f"converter for {key}: outputs whose sizes depend on data are not supported")
    overloads = [key] if isinstance(key, OpOverload) else [getattr(key, name) for name in key.overloads()]

    def make(function: Callable[..., Any]) -> tuple[Converter, ...]:
        parameters = list(inspect.signature(function).parameters)
        if len(parameters) != 5:
            wanted = "ctx, target, args, kwargs, name"
            raise DeclarationError(f"converter {function.__name__!r} takes {', '.join(parameters)}, not {wanted}")
        return tuple(
            Converter(
                overload,
                _domain(overload, capability_validator, supports_dynamic_shapes),
                _adapted(function, overload),
                supports_dynamic_shapes,
                int(priority),
                name=function.__name__,
            )
            for overload in (overloads if enabled else ())
        )

    return make


def _adapted(function: Callable[..., Any], overload: OpOverload) -> Callable[..., Any]:
    """The function as trtplug calls it: its signature is the schema's."""

    def run(ctx: ConverterContext, *args: Any, **kwargs: Any) -> Any:
        context = CompatContext(ctx)
        result = function(context, overload, args, kwargs, ctx.node.name)
        context.net.restore_names()
        return result

    parameters = [inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    for argument in overload._schema.arguments:
        kind = inspect.Parameter.KEYWORD_ONLY if argument.kwarg_only else inspect.Parameter.POSITIONAL_OR_KEYWORD
        default = argument.default_value if argument.has_default_value() else inspect.Parameter.empty
        parameters.append(inspect.Parameter(parameter_name(argument.name), kind, default=default))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect.signature
    run.__doc__ = function.__doc__
    return run


# --- what it takes ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Validated(OutputsUsed):
    """What a validator says about a node: nothing is known of it but its answers."""

    validator: Validator | None = None
    opaque: bool = True

    def refusal(self, node: Node) -> Reason | None:
        if self.validator is None:
            return None
        several = len(inspect.signature(self.validator).parameters) > 1
        if self.validator(node, CompatSettings()) if several else self.validator(node):
            return None
        name = getattr(self.validator, "__name__", "its validator")
        return Reason(ReasonCode.OUTPUT_USED, required=f"what {name}() accepts", seen=f"{name}() refuses the node")


def _domain(overload: OpOverload, validator: Validator | None, dynamic: bool) -> Domain:
    specs = {argument.name: _spec(str(argument.real_type), dynamic) for argument in overload._schema.arguments}
    return Domain(Validated((), validator=validator), **specs)


def _spec(kind: str, dynamic: bool) -> Spec:
    """Tensors are described; whatever else there is, the validator judges."""
    if kind.startswith("Optional["):
        inner = _spec(kind.removeprefix("Optional[").removesuffix("]"), dynamic)
        return inner if isinstance(inner, Anything) else Optional(inner)
    if kind.startswith("List["):
        inner = _spec(kind.removeprefix("List[").removesuffix("]"), dynamic)
        return inner if isinstance(inner, Anything) else ListOf(inner)
    return Tensor(dynamic=dynamic) if kind == "Tensor" else Anything()


# --- what it is given -------------------------------------------------------------------------------------------------


class CompatContext:
    """Torch-TensorRT's ``ConversionContext``, as far as converters use it: ``net`` and ``compilation_settings``."""

    def __init__(self, ctx: ConverterContext) -> None:
        self.net = CheckedNetwork(ctx)
        self.compilation_settings = CompatSettings()
        self.requires_output_allocator = False


class CompatSettings:
    """Torch-TensorRT's settings: those that have one meaning here; the rest is an error that says so."""

    use_explicit_typing = True
    assume_dynamic_shape_support = False
    truncate_double = False

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"trtplug has no Torch-TensorRT setting {name!r}; let the converter do without")


class CheckedNetwork:
    """Stands in for the ``INetworkDefinition``: ``add_*`` only, each layer checked as it is added."""

    def __init__(self, ctx: ConverterContext) -> None:
        self._ctx = ctx
        self._layers: list[tuple[Any, str]] = []

    def __getattr__(self, name: str) -> Any:
        kind = name.removeprefix("add_")
        if kind == name or kind in ("input", "loop", "if_conditional") or kind.startswith("plugin"):
            allowed = "a converter may only add layers, through add_<layer>"
            raise ConversionError(f"ctx.net.{name} is not offered by trtplug: {allowed}", self._ctx.node)

        def add(*args: Any, **kwargs: Any) -> Any:
            layer = self._ctx.add(kind, *args, keywords=kwargs)
            self._layers.append((layer, layer.name))
            return layer

        return add

    def restore_names(self) -> None:
        """Layers are found by the names that trtplug gave them, whatever the converter calls them."""
        for layer, name in self._layers:
            if layer.name != name:
                layer.name = name
