"""Graphs over tensor subclasses such as ``DTensor``: AOTAutograd writes them as graphs over the tensors inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx
from torch.utils._python_dispatch import _disable_current_modes, is_traceable_wrapper_subclass

from trtplug.jit.graph import Graph
from trtplug.jit.session import Session


def has_subclasses(inputs: Sequence[Any]) -> bool:
    """Whether some input of a graph of Dynamo's is made of other tensors."""
    return any(map(is_traceable_wrapper_subclass, inputs))


def over_inner_tensors(graph_module: fx.GraphModule, inputs: Sequence[Any], session: Session) -> Callable[..., Any]:
    """The graph, compiled as one over the tensors that its inputs are made of.

    What the subclass does to compute an op (the collectives of a ``DTensor``) is then in the graph. Its weights are
    inputs of engines, since the tensors inside of a parameter are none.

    Raises:
        Exception: whatever AOTAutograd raises for what it does not take.
    """
    from torch._dynamo.backends.common import aot_autograd

    def compiled(inner: fx.GraphModule, values: Sequence[Any]) -> Graph:
        with _disable_current_modes():  # constants of the compiler's own must not be fake
            return Graph(inner, values, session)

    made: Callable[..., Any] = aot_autograd(fw_compiler=compiled, inference_compiler=compiled)(graph_module, inputs)
    return made
