"""What the specs of the converters share: the layers of one call, and why a call is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

import trtplug_converters
from trtplug._tensorrt import typed_layer
from trtplug.convert import convert
from trtplug.ranges import Range
from trtplug.testing import call_graph, call_of, registry_of
from trtplug.testing.symbolic import Plan, symbolic_call
from trtplug_registry import Registry


@pytest.fixture(scope="session")
def built_in() -> Registry:
    return registry_of(trtplug_converters.trtplug_converters())


@pytest.fixture
def layers(built_in: Registry) -> Callable[..., str]:
    """The layers that one call becomes, without constants: ``"CAST, ELEMENTWISE SUM"``.

    Tensors at the places `constants` are known; those of `symbolic` have symbolic axes of between `least` and 8.
    """

    def layers_of(
        op: Any,
        *args: Any,
        constants: Sequence[str] = (),
        symbolic: dict[str, Any] | None = None,
        least: int = 1,
        **kwargs: Any,
    ) -> str:
        call, tensors = call_of(op, args, kwargs)
        ranges = {}
        if symbolic is None:
            graph = call_graph(call, tensors, constants)
        else:
            dynamic = symbolic_call(call, tensors, constants, Plan(symbolic))
            assert dynamic is not None
            graph, ranges = dynamic.graph, {symbol: Range(least, hint, 8) for symbol, hint in dynamic.hints.items()}
        verdict = built_in.lookup(graph.node)
        assert verdict, verdict
        definition = convert(graph.module, lambda node: verdict.converter, ranges=ranges, name="call").definition
        found = [typed_layer(definition.get_layer(number)) for number in range(definition.num_layers)]
        return ", ".join(_name(kind, layer) for kind, layer in found if kind not in ("CONSTANT", "IDENTITY"))

    return layers_of


@pytest.fixture
def refusal(built_in: Registry) -> Callable[..., str]:
    """Why a call is refused, in words; "" where it is not."""

    def refusal_of(op: Any, *args: Any, **kwargs: Any) -> str:
        call, tensors = call_of(op, args, kwargs)
        return "; ".join(map(str, built_in.lookup(call_graph(call, tensors, ()).node).reasons))

    return refusal_of


def _name(kind: str, layer: Any) -> str:
    detail = getattr(layer, "op", None) or (layer.type if kind in ("ACTIVATION", "POOLING") else None)
    return kind if detail is None else f"{kind} {detail.name}"
