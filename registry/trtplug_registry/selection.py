"""Names by which a user's setting picks nodes: ops, module paths, and regular expressions over both."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket
from torch.fx import Node

from trtplug_registry.conversion import qualified_name, resolve
from trtplug_registry.errors import UnknownNameError, unknown_name

REGEX = "re:"


class Selection:
    """Nodes picked by name.

    Args:
        names: ops (``"aten::add"`` for all overloads, ``"aten::add.Tensor"`` for one, ``"higher_order::cond"``; dots
            for colons too), module paths (``"encoder.layer.0"``, with everything under it), and ``"re:…"``, a regular
            expression that is searched for in the op's qualified name and in the paths of the modules that the node
            came from.

    Raises:
        UnknownNameError: a name with ``::`` is no op.
        re.error: a regular expression is malformed.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = tuple(names)
        self._ops: dict[Any, str] = {}
        self._paths: list[str] = []
        self._patterns: dict[str, re.Pattern[str]] = {}
        for name in names:
            if name.startswith(REGEX):
                self._patterns[name] = re.compile(name.removeprefix(REGEX))
                continue
            operator = resolve(name) if name.startswith("higher_order") else None
            if isinstance(operator, HigherOrderOperator):
                self._ops[operator] = name
                continue
            try:
                self._ops |= dict.fromkeys(overloads_named(name), name)
            except UnknownNameError:
                if "::" in name:
                    raise
                self._paths.append(name)

    def has_op(self, op: OpOverload | HigherOrderOperator) -> bool:
        """Whether an op is picked by its name, wherever it stands."""
        return op in self._ops

    def __bool__(self) -> bool:
        return bool(self.names)

    def unmet_paths(self, nodes: Iterable[Node]) -> tuple[str, ...]:
        """The module paths that none of some nodes came from."""
        met = {name for node in nodes for name in self.matches(node)} if self._paths else set()
        return tuple(name for name in self._paths if name not in met)

    def match(self, node: Node) -> str | None:
        """The first of the names that pick a node, or None."""
        return next(iter(self.matches(node)), None)

    def matches(self, node: Node) -> Iterator[str]:
        """All names that pick a node: of its op, then of its modules, then by regular expressions."""
        if node.target in self._ops:
            yield self._ops[node.target]
        if not (self._paths or self._patterns):
            return
        paths = list(module_paths(node))
        yield from (name for name in self._paths if any(path == name or path.startswith(f"{name}.") for path in paths))
        if isinstance(node.target, OpOverload | HigherOrderOperator):
            paths.append(qualified_name(node.target))
        yield from (name for name, regex in self._patterns.items() if any(map(regex.search, paths)))


def module_paths(node: Node) -> Iterator[str]:
    """The paths of the modules that a node came from, outermost first."""
    for path, _ in (node.meta.get("nn_module_stack") or {}).values():
        yield path.removeprefix("L['self'].")


def overloads_named(name: str) -> tuple[OpOverload, ...]:
    """All overloads that a setting's name means: ``aten::add`` all of them, ``aten::add.Tensor`` one.

    Raises:
        UnknownNameError: there is none.
    """
    normal = name.replace("::", ".")
    space, _, rest = normal.partition(".")
    if not rest:
        raise unknown_name("op", name, ())
    op, _, overload = rest.partition(".")
    packet = getattr(getattr(torch.ops, space), op, None)
    if not isinstance(packet, OpOverloadPacket):
        near = {f"{space}::{other}" for other in dir(getattr(torch.ops, space))} | {f"aten::{o}" for o in _aten_names()}
        raise unknown_name("op", f"{space}::{op}", near)
    if overload and overload not in packet.overloads():
        raise unknown_name("overload", f"{space}::{op}.{overload}", {f"{space}::{op}.{o}" for o in packet.overloads()})
    return tuple(getattr(packet, item) for item in ([overload] if overload else packet.overloads()))


@functools.cache
def _aten_names() -> frozenset[str]:
    schemas = torch._C._jit_get_all_schemas()
    return frozenset(s.name.removeprefix("aten::") for s in schemas if s.name.startswith("aten::"))
