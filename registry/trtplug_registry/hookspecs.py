"""The hooks that a plugin may implement; each returns declared values and has no side effect.

A plugin is a module or object, named by an entry point of the group ``trtplug``. It states the version of the contract
that it was written for as ``trtplug_contract = 1`` and marks its implementations with `hookimpl`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pluggy
from torch._ops import OpOverload

from trtplug_registry.conversion import Converter
from trtplug_registry.examples import Example
from trtplug_registry.executor import Executor
from trtplug_registry.passes import DisablePass, LoweringPass, OrderPasses

GROUP = "trtplug"
CONTRACT = 1
"""The contract's version. It changes when a plugin written for the old one could stop working."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def trtplug_converters() -> Iterable[Converter]:  # type: ignore[empty-body]  # a specification has no body
    """Converters, made with `converter` or `converter_table`."""


@hookspec
def trtplug_lowering_passes() -> Iterable[LoweringPass | DisablePass | OrderPasses]:  # type: ignore[empty-body]  # ditto
    """Lowering passes, made with `lowering_pass` or `rule_pass`; and what is to happen to other plugins' passes."""


@hookspec
def trtplug_decompositions() -> Mapping[OpOverload, Callable[..., Any]]:  # type: ignore[empty-body]  # ditto
    """How an op that no converter takes is written with other ops: a function of the op's own signature."""


@hookspec
def trtplug_executors() -> Iterable[Executor]:  # type: ignore[empty-body]  # a specification has no body
    """Runtimes for finished engines."""


@hookspec
def trtplug_examples() -> Iterable[Example]:  # type: ignore[empty-body]  # a specification has no body
    """Small models on which passes, decompositions and opaque converters have work to do, for ``trtplug certify``."""
