"""Names by which a user's setting picks nodes: ops, module paths, and regular expressions over both."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from torch._ops import OpOverload
from torch.fx import Node

from trtplug_registry.converter import qualified_name
from trtplug_registry.errors import UnknownNameError
from trtplug_registry.exclusions import overloads_named

REGEX = "re:"


class Selection:
    """Nodes picked by name.

    Args:
        names: ops (``"aten::add"`` for all overloads, ``"aten::add.Tensor"`` for one; dots for colons too), module
            paths (``"encoder.layer.0"``, with everything under it), and ``"re:…"``, a regular expression that is
            searched for in the op's qualified name and in the paths of the modules that the node came from.

    Raises:
        UnknownNameError: a name with ``::`` is no op.
        re.error: a regular expression is malformed.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = tuple(names)
        self._ops: dict[OpOverload, str] = {}
        self._paths: list[str] = []
        self._patterns: dict[str, re.Pattern[str]] = {}
        for name in names:
            if name.startswith(REGEX):
                self._patterns[name] = re.compile(name.removeprefix(REGEX))
                continue
            try:
                self._ops |= dict.fromkeys(overloads_named(name), name)
            except UnknownNameError:
                if "::" in name:
                    raise
                self._paths.append(name)

    def __bool__(self) -> bool:
        return bool(self.names)

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
        if isinstance(node.target, OpOverload):
            paths.append(qualified_name(node.target))
        yield from (name for name, regex in self._patterns.items() if any(map(regex.search, paths)))


def module_paths(node: Node) -> Iterator[str]:
    """The paths of the modules that a node came from, outermost first."""
    for path, _ in (node.meta.get("nn_module_stack") or {}).values():
        yield path.removeprefix("L['self'].")
