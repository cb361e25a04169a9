"""Registries without TensorRT: converters that lowering only asks about, never calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch._ops import OpOverload
from torch.utils import _pytree as pytree

from trtplug.lowering import Lowered, run_lowered
from trtplug_registry import CONTRACT, Anything, Converter, Domain, LoweringPass, PluginManager, Registry, converter
from trtplug_registry.conversion import parameter_name

aten = torch.ops.aten


def takes(op: OpOverload, **arguments: Any) -> Converter:
    """A converter that takes every call of an op, or those that `arguments` describe."""
    parameters = [inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    for formal in op._schema.arguments:
        kind = inspect.Parameter.KEYWORD_ONLY if formal.kwarg_only else inspect.Parameter.POSITIONAL_OR_KEYWORD
        default = formal.default_value if formal.has_default_value() else inspect.Parameter.empty
        parameters.append(inspect.Parameter(parameter_name(formal.name), kind, default=default))

    def function(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("lowering calls no converter")

    function.__signature__ = inspect.Signature(parameters)
    specs = {formal.name: Anything() for formal in op._schema.arguments}
    return converter(op, Domain(**{**specs, **arguments}))(function)


def registry_of(
    *converters: OpOverload | Converter,
    passes: Iterable[LoweringPass] = (),
    decompositions: Mapping[OpOverload, Callable[..., Any]] | None = None,
    built_in_passes: bool = False,
    exclude: Iterable[str] = (),
) -> Registry:
    """A registry of one plugin named "toy", and the built-in passes where asked for."""

    class Toy:
        trtplug_contract = CONTRACT

        def trtplug_converters(self) -> list[Converter]:
            return [item if isinstance(item, Converter) else takes(item) for item in converters]

        def trtplug_lowering_passes(self) -> list[LoweringPass]:
            return list(passes)

        def trtplug_decompositions(self) -> Mapping[OpOverload, Callable[..., Any]]:
            return decompositions or {}

    manager = PluginManager(strict=True)
    manager.register(Toy(), "toy")
    if built_in_passes:
        import trtplug_lowering_passes

        manager.register(trtplug_lowering_passes, "lowering_passes", distribution="trtplug")
    return Registry(manager.plugins, exclude=tuple(exclude))


CORE = tuple(
    getattr(getattr(aten, name), overload)
    for name, overload in (
        ("convolution", "default"),
        ("relu", "default"),
        ("addmm", "default"),
        ("mm", "default"),
        ("bmm", "default"),
        ("view", "default"),
        ("reshape", "default"),
        ("permute", "default"),
        ("transpose", "int"),
        ("t", "default"),
        ("expand", "default"),
        ("unsqueeze", "default"),
        ("add", "Tensor"),
        ("sub", "Tensor"),
        ("mul", "Tensor"),
        ("div", "Tensor"),
        ("_softmax", "default"),
        ("_to_copy", "default"),
        ("where", "self"),
        ("mean", "dim"),
        ("erf", "default"),
        ("rsqrt", "default"),
        ("cat", "default"),
        ("embedding", "default"),
    )
)
"""What a small backend takes: no composite op, so that most models need decomposition."""


def targets(lowered: Lowered) -> list[str]:
    """The calls in a lowered graph, in order, as ``relu.default``."""
    return [
        str(node.target).removeprefix("aten.")
        for node in lowered.graph_module.graph.nodes
        if node.op == "call_function" and isinstance(node.target, OpOverload)
    ]


def assert_same(found: Any, wanted: Any) -> None:
    """Same nesting, dtypes, shapes and values."""
    flat, spec = pytree.tree_flatten(found)
    flat_wanted, spec_wanted = pytree.tree_flatten(wanted)
    assert spec == spec_wanted
    for one, two in zip(flat, flat_wanted, strict=True):
        if isinstance(two, torch.Tensor):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5, equal_nan=True)
        else:
            assert type(one) is type(two)
            assert one == two


def assert_runs_as(lowered: Lowered, model: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
    """The lowered program and the model give the same, and write the same into their inputs."""
    given, other = pytree.tree_map(_copy, (args, kwargs)), pytree.tree_map(_copy, (args, kwargs))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = run_lowered(lowered, *given[0], **given[1])
        torch.manual_seed(0)
        wanted = model(*other[0], **other[1])
    assert_same(found, wanted)
    assert_same(given, other)


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value
