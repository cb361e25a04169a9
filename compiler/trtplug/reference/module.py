"""The lifted network: a graph module whose errors name the layer they come from."""

from __future__ import annotations

from typing import Any

import torch

from trtplug.reference.errors import LayerError


class LiftedModule(torch.fx.GraphModule):
    """A network as Torch code. Takes the network's inputs in order, returns the tuple of its outputs in order.

    Any failure is raised as `LayerError`: the graph is replayed node by node to find the layer, so that a run without
    failures pays nothing for it.
    """

    def __call__(self, *args: Any) -> Any:
        try:
            return super().__call__(*args)
        except LayerError:
            raise
        except Exception as error:
            raise _blame(self, args, error) from error


class _Replay(torch.fx.Interpreter):
    current: torch.fx.Node | None = None

    def run_node(self, n: torch.fx.Node) -> Any:
        self.current = n
        return super().run_node(n)


def _blame(module: torch.fx.GraphModule, args: tuple[Any, ...], error: Exception) -> LayerError:
    replay = _Replay(module)
    replay.extra_traceback = False
    try:
        replay.run(*args)
    except LayerError as inner:
        return inner
    except Exception as again:
        error = again
    node = replay.current
    if node is None:
        return LayerError("?", "?", str(error))
    name = node.meta.get("layer", node.name)
    kind = node.meta.get("kind", node.op)
    return LayerError(name, kind, f"{error}" if isinstance(error, (ValueError, IndexError)) else repr(error))
