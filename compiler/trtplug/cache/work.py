"""What an engine is made of, as data: two blocks of equal descriptions give engines that do the same.

Everything that decides the result is in it: each node with its arguments and wiring, the ranges of sizes, the settings,
the registry's fingerprint (the plugins' versions and source), and the versions of the libraries. Weights are kept as
tensors, and become SHA-256 sums only where a description goes to disk.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping
from typing import Any, TypeAlias

import sympy
import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from trtplug.artefacts.bundle import system, to_json
from trtplug.artefacts.malformed import Malformed
from trtplug.artefacts.targets import name_of
from trtplug.artefacts.values import dtype_name, encode, encode_size
from trtplug.lowering.graphs import as_bytes, attribute
from trtplug.ranges import Range, size_range
from trtplug.settings import Settings
from trtplug_registry import Registry, qualified_name

FORMAT = 2
"""Counts changes of what a description says."""

INDIFFERENT = frozenset(
    {"cache_dir", "cache_bytes", "verify", "dump_graphs", "weight_check", "cuda_graphs", "weight_budget_bytes"}
)
"""The settings that decide nothing about an engine. Every other one does until it is listed here."""

_NOT_NOTES = frozenset({"stack_trace", "seq_nr"})
"""Plain values in a node's metadata that say where it comes from. Any other may be a pass's note to a converter."""


class Undescribable(Exception):
    """A block holds something that has no description; it is built anew each time."""


Circumstances: TypeAlias = Mapping[str, Any]
"""What decides about all of a compilation's engines, as JSON."""


def circumstances(settings: Settings, registry: Registry, versions: Mapping[str, str]) -> Circumstances:
    """Settings, plugins, versions and the machine.

    Raises:
        Undescribable: a setting holds something that has no description.
    """
    decisive = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.name not in INDIFFERENT
    }
    try:
        described = encode(decisive)
    except Malformed as error:
        raise Undescribable(f"a setting: {error}") from error
    return {
        "format": FORMAT,
        "settings": described,
        "registry": registry.fingerprint,
        "versions": dict(versions),
        "system": system(),
        "gpu": list(torch.cuda.get_device_capability()) if torch.cuda.is_available() else None,
    }


@dataclasses.dataclass(frozen=True)
class Work:
    """The description of one block.

    Attributes:
        structure: all but the weights, which are numbered in it.
        weights: their values, in that order. Those of the model itself, not copies.
    """

    structure: Mapping[str, Any]
    weights: tuple[torch.Tensor, ...]

    @functools.cached_property
    def content(self) -> bytes:
        """The whole as JSON, each weight being its dtype, shape and SHA-256."""
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            weights = list(pool.map(_digest, self.weights))
        return to_json({**self.structure, "weights": weights})

    @functools.cached_property
    def key(self) -> str:
        """SHA-256 of the content, in hexadecimal digits."""
        return hashlib.sha256(self.content).hexdigest()


def describe(block: GraphModule, ranges: Mapping[sympy.Symbol, Range], about: Circumstances) -> Work:
    """Describes a block.

    Args:
        block: what `trtplug.partition.extract` returned.
        ranges: of the symbols in its inputs' shapes.
        about: what `circumstances` returned.

    Raises:
        Undescribable: it holds something that has no description.
    """
    try:
        return _Description(block, ranges).work(about)
    except (Malformed, ValueError, AttributeError) as error:
        raise Undescribable(str(error)) from error


class _Description:
    def __init__(self, block: GraphModule, ranges: Mapping[sympy.Symbol, Range]) -> None:
        self.block, self.ranges = block, ranges
        self.symbols: dict[str, int] = {}
        self.spans: list[Any] = []
        self.weights: dict[int, int] = {}
        self.tensors: list[torch.Tensor] = []

    def work(self, about: Circumstances) -> Work:
        nodes = self._nodes(self.block)
        structure = {"about": dict(about), "nodes": nodes, "symbols": self.spans}
        return Work(structure, tuple(self.tensors))

    def _nodes(self, module: GraphModule) -> list[Any]:
        return [self._node(node, module) for node in module.graph.nodes]

    def _node(self, node: Node, module: GraphModule) -> list[Any]:
        kwargs = [[name, encode(value)] for name, value in sorted(node.kwargs.items())]
        args = [encode(argument) for argument in node.args]
        value = self._value(node.meta.get("val"), node)
        return [node.op, node.name, self._target(node, module), args, kwargs, value, _notes(node)]

    def _target(self, node: Node, module: GraphModule) -> Any:
        if isinstance(node.target, OpOverload):
            return [qualified_name(node.target), str(node.target._schema)]
        if node.op == "get_attr":
            value = attribute(module, node.target)
            return {"body": self._nodes(value)} if isinstance(value, GraphModule) else {"weight": self._weight(value)}
        return name_of(node.target) if callable(node.target) else str(node.target)

    def _weight(self, value: Any) -> int:
        if not is_plain(value):
            raise Undescribable(f"a constant is a {type(value).__name__} without plain memory")
        if id(value) not in self.weights:
            self.weights[id(value)] = len(self.tensors)
            self.tensors.append(value)
        return self.weights[id(value)]

    def _value(self, value: Any, node: Node) -> Any:
        """What a node's metadata says that it makes; for inputs also the shapes that the engine is built for."""
        if isinstance(value, torch.Tensor):
            sizes = [self._size(size, node) for size in value.shape]
            return {"dtype": dtype_name(value.dtype), "shape": sizes}
        if isinstance(value, list | tuple):
            return [self._value(item, node) for item in value]
        if isinstance(value, torch.SymInt):
            return {"size": self._size(value, node)}
        return {"constant": repr(value)}

    def _size(self, size: Any, node: Node) -> Any:
        if not isinstance(size, torch.SymInt):
            return int(size)
        expression = size.node.expr
        for symbol in sorted(getattr(expression, "free_symbols", ()), key=str):
            self._number(symbol)
        made = _renamed(encode_size(expression), self.symbols)
        if node.op != "placeholder":
            return made
        span = size_range(size, self.ranges)
        return [made, _points(span)]

    def _number(self, symbol: sympy.Symbol) -> None:
        """Symbols are called by their order: their names differ from one trace to the next."""
        if str(symbol) not in self.symbols:
            self.symbols[str(symbol)] = len(self.symbols)
            span = self.ranges.get(symbol)
            self.spans.append(None if span is None else _points(span))


def _points(span: Range) -> list[Any]:
    return [span.min, span.opt, span.max, *map(list, span.parts)]


def _notes(node: Node) -> list[list[str]]:
    """What passes noted on a node that a converter may read (``ctx.node.meta``): flags, numbers and words."""
    plain = ((str(name), value) for name, value in node.meta.items() if isinstance(value, bool | int | float | str))
    return [[name, repr(value)] for name, value in sorted(plain) if name not in _NOT_NOTES]


def is_plain(value: Any) -> bool:
    """Whether a value is a tensor whose data can be read as bytes."""
    if type(value) not in (torch.Tensor, torch.nn.Parameter) or value.layout != torch.strided:
        return False
    return not (value.is_conj() or value.is_neg() or value.is_quantized or value.is_meta)


def _renamed(size: Any, symbols: Mapping[str, int]) -> Any:
    if isinstance(size, str):
        return f"d{symbols[size]}"
    return size if isinstance(size, int) else [size[0], *(_renamed(item, symbols) for item in size[1:])]


def _digest(tensor: torch.Tensor) -> list[Any]:
    data = memoryview(as_bytes(tensor.cpu()).numpy()) if tensor.numel() else b""  # type: ignore[arg-type]  # a buffer
    return [dtype_name(tensor.dtype), list(tensor.shape), hashlib.sha256(data).hexdigest()]
