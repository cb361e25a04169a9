"""What would bring a node into TensorRT. Nothing is suggested that was not applied and asked about again.

A change of settings, dtypes or sizes is tried on the node (or on the partition), and shown where the verdict flips.
What support for an op would bring comes from partitioning once more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch.fx import Graph, Node

from trtplug.insight.retry import with_dtype, with_other_sizes
from trtplug.naming import op_name
from trtplug.partition import Partition, partition
from trtplug.settings import Settings
from trtplug_registry import ALL, Reason, ReasonCode, Registry, Unsupported

MOST_PARTITIONED = 60_000
"""Nodes that are partitioned again for suggestions, in all: 60 times for 1,000 nodes, three times for 20,000."""


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """A change that flips at least one verdict, and what it brings.

    Attributes:
        kind: ``option``, ``plugin``, ``dtype``, ``shape``, ``version``, or ``op`` (a converter that nobody has yet).
        text: what to do, in words.
        settings: the change as fields of `trtplug.Settings`, where it is one.
        nodes: names of the nodes whose verdict flips.
        engines: how many there are now, and would be.
        left: how many compute nodes are left to Torch now, and would be.
        flops: the work that would move into TensorRT.
        bytes: what crosses between engines and Torch now, and would.
        merges: groups of today's engines that would be one.
    """

    kind: str
    text: str
    settings: Mapping[str, Any]
    nodes: tuple[str, ...]
    engines: tuple[int, int]
    left: tuple[int, int]
    flops: int
    bytes: tuple[int, int]
    merges: tuple[tuple[int, ...], ...]

    @property
    def gain(self) -> str:
        """What it brings, in words."""
        words = [f"would merge engines {_listed(group)}" for group in self.merges]
        if not words:
            words.append(f"engines {self.engines[0]} → {self.engines[1]}")
        words.append(f"nodes left to Torch {self.left[0]} → {self.left[1]}")
        if self.flops:
            words.append(f"{self.flops:,} FLOPs more in TensorRT")
        return "; ".join(words)


def _listed(numbers: tuple[int, ...]) -> str:
    """Ascending numbers in words: ``0 and 1``, ``0 to 5``, ``0, 2 and 3``."""
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


class _Idea(NamedTuple):
    kind: str
    text: str
    settings: Mapping[str, Any]
    flips: frozenset[Node]
    min_block_size: int


class _Asked:
    """What the verdicts are today."""

    def __init__(
        self, graph: Graph, registry: Registry, settings: Settings, parts: Partition, quarantine: Iterable[Node]
    ) -> None:
        self.graph, self.registry, self.settings, self.parts = graph, registry, settings, parts
        self.quarantine = frozenset(quarantine)
        self.refused: dict[Node, tuple[Reason, ...]] = {}
        for node in parts.torch_nodes:
            support = registry.lookup(node)
            if isinstance(support, Unsupported) and node not in self.quarantine:
                self.refused[node] = support.reasons

    def because_of(self, code: ReasonCode) -> Iterator[tuple[Node, Reason]]:
        for node, reasons in self.refused.items():
            for reason in reasons:
                if reason.code is code:
                    yield node, reason


def suggest(
    graph: Graph,
    registry: Registry,
    settings: Settings,
    parts: Partition,
    flops: Mapping[Node, int],
    quarantine: Iterable[Node] = (),
) -> tuple[Suggestion, ...]:
    """Every change that was seen to flip a verdict and to better the partition, the one that brings most first.

    Args:
        graph: lowered.
        registry, settings: of the compilation.
        parts: the graph's partition.
        flops: the work of its nodes.
        quarantine: nodes that failed to convert or build, which no setting helps.
    """
    asked = _Asked(graph, registry, settings, parts, quarantine)
    made: list[Suggestion] = []
    left = MOST_PARTITIONED
    for idea in _ideas(asked):
        if left <= 0:
            break
        left -= len(graph.nodes)
        made.append(_weigh(asked, idea, flops))
    return tuple(
        sorted(
            filter(_brings, made), key=lambda s: (-s.flops, s.engines[1] - s.engines[0], s.left[1] - s.left[0], s.text)
        )
    )


def _brings(made: Suggestion) -> bool:
    """Whether the partition is better: a node that is taken alone may be in a block too small to be one."""
    fewer = any(now > then for now, then in (made.engines, made.left, made.bytes))
    return fewer or made.flops > 0


def _weigh(asked: _Asked, idea: _Idea, flops: Mapping[Node, int]) -> Suggestion:
    """Partitions once more, the idea's nodes being supported."""
    registry, parts = asked.registry, asked.parts

    def supported(node: Node) -> bool:
        return node in idea.flips or (node not in asked.quarantine and bool(registry.lookup(node)))

    after = partition(asked.graph, supported, min_block_size=idea.min_block_size)
    moved = frozenset(parts.torch_nodes) - frozenset(after.torch_nodes)
    home = {node: block.index for block in after.blocks for node in block.nodes}
    together: dict[int, set[int]] = {}
    for block in parts.blocks:
        for node in block.nodes:
            if node in home:
                together.setdefault(home[node], set()).add(block.index)
    return Suggestion(
        idea.kind,
        idea.text,
        idea.settings,
        tuple(node.name for node in asked.graph.nodes if node in idea.flips),
        (len(parts.blocks), len(after.blocks)),
        (len(parts.torch_nodes), len(after.torch_nodes)),
        sum(flops.get(node, 0) for node in moved),
        (parts.crossing_bytes, after.crossing_bytes),
        tuple(tuple(sorted(group)) for group in together.values() if len(group) > 1),
    )


# --- ideas ------------------------------------------------------------------------------------------------------------


def _ideas(asked: _Asked) -> Iterator[_Idea]:
    """Changes whose verdicts have been seen to flip, the cheap ones for the user first."""
    yield from _block_size(asked)
    yield from _settings(asked)
    yield from _version(asked)
    yield from _dtypes(asked)
    yield from _shapes(asked)
    yield from _ops(asked)


def _idea(asked: _Asked, kind: str, text: str, flips: Iterable[Node], **settings: Any) -> _Idea:
    return _Idea(kind, text, settings, frozenset(flips), asked.settings.min_block_size)


def _block_size(asked: _Asked) -> Iterator[_Idea]:
    sizes = set(asked.parts.too_small.values())
    if sizes:
        smallest = min(sizes)
        yield _Idea(
            "option",
            f"min_block_size={smallest}",
            {"min_block_size": smallest},
            frozenset(node for node, size in asked.parts.too_small.items() if size >= smallest),
            smallest,
        )


def _settings(asked: _Asked) -> Iterator[_Idea]:
    """Without an exclusion; with a plugin preferred where two refuse each other."""
    excluded = [node for node, _ in asked.because_of(ReasonCode.EXCLUDED_BY_USER)]
    for name in asked.registry.exclude if excluded else ():
        rest = tuple(other for other in asked.registry.exclude if other != name)
        flips = _flips(asked.registry.having(exclude=rest), excluded)
        if flips:
            yield _idea(asked, "option", f"torch_ops without {name!r}", flips, torch_ops=rest)
    conflicting = [(node, reason.converter.partition(":")[0]) for node, reason in asked.because_of(ReasonCode.CONFLICT)]
    for plugin in sorted({plugin for _, plugin in conflicting}):
        prefer = (*asked.registry.prefer, plugin)
        flips = _flips(asked.registry.having(prefer=prefer), [node for node, _ in conflicting])
        if flips:
            yield _idea(asked, "plugin", f"prefer={list(prefer)!r}", flips, prefer=prefer)


def _version(asked: _Asked) -> Iterator[_Idea]:
    needed: dict[str, list[Node]] = {}
    for node, reason in asked.because_of(ReasonCode.TENSORRT_VERSION):
        needed.setdefault(f"a TensorRT that has {reason.required}", []).append(node)
    for node, _ in asked.because_of(ReasonCode.DATA_DEPENDENT_SHAPE):
        needed.setdefault("standard TensorRT, whose results' shapes may depend on values", []).append(node)
    for what, nodes in needed.items():
        flips = _flips(asked.registry.having(capabilities=None), nodes)
        if flips:
            yield _idea(asked, "version", what, flips)


def _flips(registry: Registry, nodes: Iterable[Node]) -> list[Node]:
    return [node for node in nodes if registry.lookup(node)]


def _dtypes(asked: _Asked) -> Iterator[_Idea]:
    found: dict[str, list[Node]] = {}
    for node, reason in asked.because_of(ReasonCode.DTYPE):
        for change, other in with_dtype(node, reason.argument):
            if asked.registry.lookup(other):
                found.setdefault(change, []).append(node)
                break
    for change, nodes in found.items():
        yield _idea(asked, "dtype", change, dict.fromkeys(nodes))


def _shapes(asked: _Asked) -> Iterator[_Idea]:
    tried: dict[Node, None] = {}
    for code in (ReasonCode.DYNAMIC_SHAPE, ReasonCode.ZERO_SIZE, ReasonCode.RELATION):
        tried |= dict.fromkeys(node for node, _ in asked.because_of(code))
    found: dict[str, list[Node]] = {}
    for node in tried:
        for change, other in with_other_sizes(node):
            if asked.registry.lookup(other):
                found.setdefault(change, []).append(node)
                break
    for change, nodes in found.items():
        yield _idea(asked, "shape", change, nodes)


def _ops(asked: _Asked) -> Iterator[_Idea]:
    """What support for an op would bring, wherever it is refused; the most frequent first."""
    by_op: dict[str, list[Node]] = {}
    for node, reasons in asked.refused.items():
        asked_for = any(reason.code is ReasonCode.EXCLUDED_BY_USER for reason in reasons)
        if not asked_for and _of_tensorrt_types(node):
            by_op.setdefault(op_name(node), []).append(node)
    for op, nodes in sorted(by_op.items(), key=lambda item: (-len(item[1]), item[0])):
        yield _idea(asked, "op", f"a converter that takes {op} as it is called here", nodes)


def _of_tensorrt_types(node: Node) -> bool:
    """Whether what the call takes and returns can be in an engine at all."""
    for item in (node, *node.all_input_nodes):
        value = item.meta.get("val")
        found = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(tensor, torch.Tensor) and tensor.dtype not in ALL for tensor in found):
            return False
    return True
