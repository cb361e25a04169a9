"""Small plugins, and one-op graphs to ask about."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.fx import Graph, Node

from trtplug_registry import CONTRACT, Converter, Plugin, PluginManager, Registry


def make_plugin(**hooks: Any) -> types.SimpleNamespace:
    """A plugin object whose hooks return what is given: ``make_plugin(converters=[...])``."""
    members = {f"trtplug_{name}": (lambda value=value: value) for name, value in hooks.items()}
    return types.SimpleNamespace(trtplug_contract=CONTRACT, **members)


def plugin_of(name: str, *converters: Converter, distribution: str = "", **hooks: Any) -> Plugin:
    manager = PluginManager(strict=True)
    manager.register(make_plugin(converters=list(converters), **hooks), name, distribution=distribution)
    return manager.plugins[0]


def registry_of(*converters: Converter, **choices: Any) -> Registry:
    return Registry([plugin_of("acme", *converters)], **choices)


@pytest.fixture
def call() -> Callable[..., Node]:
    """Makes a node that calls an op on tensors (placeholders), other values being literals."""

    def make(op: Any, *args: Any, **kwargs: Any) -> Node:
        graph = Graph()
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        count = 0

        def place(value: Any) -> Any:
            nonlocal count
            if isinstance(value, torch.Tensor):
                node = graph.placeholder(f"t{count}")
                node.meta["val"] = fake.from_tensor(value)
                count += 1
                return node
            if isinstance(value, list):
                return [place(item) for item in value]
            return value

        placed = [place(value) for value in args]
        named = {name: place(value) for name, value in kwargs.items()}
        node = graph.call_function(op, tuple(placed), named)
        with fake:
            node.meta["val"] = op(*_values(placed), **_values(named))
        graph.output((node,))
        return node

    return make


def _values(value: Any) -> Any:
    if isinstance(value, Node):
        return value.meta["val"]
    if isinstance(value, list):
        return [_values(item) for item in value]
    if isinstance(value, dict):
        return {name: _values(item) for name, item in value.items()}
    return value
