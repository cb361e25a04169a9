"""What a user keeps in Torch: ops by name, and modules by path."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch._ops import OpOverload, OpOverloadPacket
from torch.fx import Node

from trtplug_registry.converter import qualified_name
from trtplug_registry.errors import UnknownNameError, unknown_name
from trtplug_registry.support import Reason, ReasonCode


class Exclusions:
    """Ops and module paths that stay in Torch. A name that names no op is a module path.

    Raises:
        UnknownNameError: a name with ``::`` names no op.
    """

    def __init__(self, names: Sequence[str]) -> None:
        ops: set[OpOverload] = set()
        paths = []
        for name in names:
            try:
                ops.update(overloads_named(name))
            except UnknownNameError:
                if "::" in name:
                    raise
                paths.append(name)
        self.ops, self.paths = frozenset(ops), tuple(paths)

    def reason(self, node: Node, op: OpOverload) -> Reason | None:
        """Why the user keeps a node in Torch, or None."""
        if op in self.ops:
            return Reason(ReasonCode.EXCLUDED_BY_USER, seen=f"torch_ops keeps {qualified_name(op)} in Torch")
        if self.paths:
            for path, _ in (node.meta.get("nn_module_stack") or {}).values():
                path = path.removeprefix("L['self'].")
                for excluded in self.paths:
                    if path == excluded or path.startswith(f"{excluded}."):
                        return Reason(ReasonCode.EXCLUDED_BY_USER, seen=f"torch_ops keeps module {excluded!r} in Torch")
        return None


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
