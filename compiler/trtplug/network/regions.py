"""Conditionals and loops: layers that lie in a branch or in a loop, and what they read from outside.

A branch's layers are run only where they depend on an input of their conditional; so whatever a branch reads from
outside, constants apart, comes through such an input. A loop's layers read outside tensors as they are.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator
from typing import Any


@dataclasses.dataclass(eq=False)
class Region:
    """A branch or a loop under construction.

    Attributes:
        conditional: TensorRT's ``IIfConditional``; None for a loop.
        loop: TensorRT's ``ILoop``; None for a branch.
        entries: the conditional's inputs, by the tensors that they bring in; its branches share them.
        inside: the tensors that are made in here; in a loop only those that depend on what it iterates over, since
            TensorRT takes the rest for tensors outside of it.
    """

    conditional: Any = None
    loop: Any = None
    entries: dict[Any, Any] = dataclasses.field(default_factory=dict)
    inside: set[Any] = dataclasses.field(default_factory=set)


class Regions:
    """The regions that the next layer lies in, outermost first."""

    def __init__(self) -> None:
        self._open: list[Region] = []

    @contextlib.contextmanager
    def within(self, region: Region) -> Iterator[Region]:
        """Layers from here on lie in the region, too."""
        self._open.append(region)
        try:
            yield region
        finally:
            self._open.pop()

    def __bool__(self) -> bool:
        return bool(self._open)

    def entered_for(self, tensor: Any, *, fixed: bool) -> list[Region]:
        """The open regions that a tensor was not made in, outermost first; all of them for one that is `fixed`."""
        known = [place for place, region in enumerate(self._open) if region.conditional and tensor in region.inside]
        return self._open[known[-1] + 1 if known and not fixed else 0 :]

    @contextlib.contextmanager
    def up_to(self, region: Region, *, around: bool = False) -> Iterator[None]:
        """Layers from here on lie in one of the open regions (or only `around` it), and in none within it."""
        everything = self._open
        self._open = everything[: everything.index(region) + (not around)]
        try:
            yield
        finally:
            self._open = everything

    def made(self, tensor: Any, sources: Collection[Any]) -> None:
        """A layer makes this tensor of others."""
        for region in self._open:
            if region.conditional is not None or not region.inside.isdisjoint(sources):
                region.inside.add(tensor)
