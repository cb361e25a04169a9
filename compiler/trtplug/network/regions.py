"""Conditionals and loops: layers that lie in a branch or in a loop, and what they read from outside.

A branch's layers are run only where they depend on an input of their conditional; so whatever a branch reads from
outside, constants apart, comes through such an input. A loop's layers read outside tensors as they are.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any


@dataclasses.dataclass(eq=False)
class Region:
    """A branch or a loop under construction.

    Attributes:
        conditional: TensorRT's ``IIfConditional``; None for a loop.
        entries: the conditional's inputs, by the tensors that they bring in; its branches share them.
        inside: the tensors that are made in here.
    """

    conditional: Any = None
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

    def made(self, tensor: Any, innermost: Region | None = None) -> None:
        """A layer makes this tensor in the open regions; only up to `innermost`, where that is given."""
        for region in self._open:
            region.inside.add(tensor)
            if region is innermost:
                return

    def branches_before(self, tensor: Any) -> Sequence[Region]:
        """The branches that a tensor has to be brought into before a layer here may read it, outermost first."""
        return [region for region in self._open if region.conditional is not None and tensor not in region.inside]
