"""``torch.compile(model, backend="trtplug", options={...})``.

Dynamo's graph is traced once more, on its fake tensors and before composite ops are taken apart, and enters the same
pipeline as an exported program (`trtplug.jit.tracing`). Parameters and buffers become constants of the engines, where
nobody asks for their gradient; each call checks that they are still the tensors that were compiled
(`trtplug.jit.state`). `reports` tells what became of each graph.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from trtplug.jit.graph import Graph, TorchOnlyWarning, run_in_torch
from trtplug.jit.session import Session, reports, session_of
from trtplug.jit.sizes import MAX_SIZE
from trtplug.jit.subclasses import has_subclasses, over_inner_tensors
from trtplug.settings import Settings

__all__ = ["MAX_SIZE", "TorchOnlyWarning", "backend", "reports"]

_log = logging.getLogger(__name__)


def backend(
    graph_module: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Any]:
    """The Dynamo backend. `options` are fields of `trtplug.Settings`.

    Raises:
        TrtplugError: an option is wrong. A graph that cannot be compiled runs in Torch, with a `TorchOnlyWarning`,
            unless ``on_failure="raise"``.
    """
    session = session_of(backend, lambda: Session(_settings(options, mode)))
    if torch.is_grad_enabled() and any(isinstance(v, torch.Tensor) and v.requires_grad for v in example_inputs):
        why = "gradients are asked for; call the model under torch.no_grad() or torch.inference_mode()"
        return run_in_torch(graph_module, session, session.number(), why)
    _ = session.registry  # an option that names what is not there is no graph's fault
    try:
        if has_subclasses(example_inputs):
            return over_inner_tensors(graph_module, example_inputs, session)
        return Graph(graph_module, example_inputs, session)
    except Exception as error:
        if session.settings.on_failure == "raise":
            raise
        _log.info("a graph cannot be compiled", exc_info=True)
        words = str(error).strip() or type(error).__name__
        return run_in_torch(graph_module, session, session.number(), f"{type(error).__name__}: {words}")


def _settings(options: Mapping[str, Any] | None, mode: str | None) -> Settings:
    if mode not in (None, "default"):
        warnings.warn(f"trtplug has no mode {mode!r}; it is ignored", UserWarning, stacklevel=2)
    return Settings.of(options or {})
