"""Who claims one overload, in which order, and who refuses whom."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

from torch._ops import HigherOrderOperator, OpOverload
from torch.fx import Node

from trtplug_registry.conversion import Converter, formals


class Claims:
    """The converters that claim one overload, in the order in which they are asked.

    Args:
        overload: that is claimed.
        converters: in their order.
        decided: plugins that the user prefers, which therefore conflict with nobody.
    """

    __slots__ = ("alike", "conflicts", "converters", "defaults", "names", "pinned", "volatile")

    def __init__(
        self,
        overload: OpOverload | HigherOrderOperator,
        converters: Sequence[Converter],
        decided: Container[str] = (),
    ) -> None:
        arguments = formals(overload)
        self.names = [argument.name for argument in arguments]
        self.defaults = {argument.name: None if argument.required else argument.default for argument in arguments}
        self.converters = tuple(converters)
        self.pinned = [{a.name: a.default for a in arguments if a.name not in c.domain.arguments} for c in converters]
        # who uses the results, and what is in a body, can change while the call stays the same
        self.volatile = isinstance(overload, HigherOrderOperator) or any(c.domain.outputs for c in converters)
        # what third parties declare is asked anew for each node: it may answer differently, which is to be found out
        self.alike = not self.volatile and all(c.built_in for c in converters)
        self.conflicts: dict[Converter, Converter] = {}
        for one, two in rivals(self.converters, decided):
            self.conflicts[one] = two
            self.conflicts[two] = one

    def bind(self, node: Node, describe: Callable[[Any], Any]) -> dict[str, Any]:
        """The call's arguments by name, described, defaults filled in."""
        args, kwargs = node.args, node.kwargs
        call = {name: describe(value) for name, value in zip(self.names, args, strict=False)}
        for name, value in kwargs.items():
            call[name] = describe(value)
        if len(call) < len(self.names):
            for name, default in self.defaults.items():
                call.setdefault(name, default)
        return call


def rivals(converters: Sequence[Converter], decided: Container[str]) -> Iterator[tuple[Converter, Converter]]:
    """Pairs of third parties of equal priority whose domains overlap, neither of them preferred."""
    third = [c for c in converters if not c.built_in and c.plugin not in decided]
    for one, two in itertools.combinations(third, 2):
        if one.plugin != two.plugin and one.priority == two.priority and not one.domain.disjoint(two.domain):
            yield one, two
