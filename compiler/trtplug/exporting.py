"""``torch.export``, and its words about a model that it refuses: which line of the model, and what to do."""

from __future__ import annotations

import contextlib
import logging
import os
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from trtplug.errors import InputError, TraceError

_TORCH = os.path.dirname(torch.__file__) + os.sep


def export(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any) -> ExportedProgram:
    exported = torch.export.export(model, *_apart(args, kwargs), dynamic_shapes=dynamic_shapes, strict=False)
    if torch._C._is_any_autocast_enabled():  # export leaves the casts of an autocast around it to who runs the program
        with warnings.catch_warnings():
            # torch's own pytree, while it copies the program
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            exported = exported.run_decompositions({})
    return exported


def _apart(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The examples, none sharing memory with another: export refuses a write to memory that two inputs share.

    That they do share it in a call is then checked in each call of a model that writes to its inputs.
    """
    seen: set[int] = set()

    def apart(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or leaf.layout is not torch.strided:
            return leaf
        memory = leaf.untyped_storage()._cdata
        if memory not in seen:
            seen.add(memory)
            return leaf
        return leaf.detach().clone().requires_grad_(leaf.requires_grad)

    changed: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_map(apart, (args, kwargs))
    return changed


@contextlib.contextmanager
def refusals(model: nn.Module, diagnose: Callable[[], str]) -> Iterator[None]:
    """Turns whatever export raises into a `TraceError` that names the line and what to do."""
    try:
        yield
    except (TraceError, InputError):
        raise
    except Exception as error:
        words = _concise(str(error)) or type(error).__name__
        name = type(model).__name__
        if "onstraint" in words or "specialized" in words:
            raise TraceError(
                f"{name} does not hold for all the sizes that its inputs allow: {words}{diagnose()}\n"
                "Make the dimension static (min_shape equal to max_shape), narrow its range, give dimensions that must"
                " be equal one name (dims=), or change the code that depends on the size."
            ) from error
        line = _model_line(error)
        where = f" at {line}" if line else ""
        advice = "\nDimensions that must be equal need one name in dims=." if "must match" in words else ""
        raise TraceError(f"torch.export refuses {name}{where}: {type(error).__name__}: {words}{advice}") from error


_NOISE = (
    "For more information, run with",
    "For extended logs",
    "For C++ stack trace",
    "If you suspect the guard",
    "For more debugging help",
    "The error above occurred when calling torch.export",
)


def _concise(message: str) -> str:
    """Export's message without its advice on debugging torch itself."""
    kept = []
    for line in message.partition("Suggested fixes:")[0].splitlines():
        head, noise, _ = line.partition("For more information, run with")
        line = head.rstrip() if noise else line.split(" If you're using mark_dynamic")[0].rstrip()
        if line and not line.startswith(_NOISE):
            kept.append(line)
    return "\n".join(kept)


def _model_line(error: BaseException) -> str:
    """The innermost frame of the error's traceback that is neither torch's nor ours."""
    return _outside_torch(traceback.extract_tb(error.__traceback__))


def _outside_torch(frames: Sequence[traceback.FrameSummary]) -> str:
    for frame in reversed(frames):
        if (
            not frame.filename.startswith((_TORCH, os.path.dirname(__file__), "<"))
            and "/contextlib" not in frame.filename
        ):
            return f"{frame.filename}:{frame.lineno}, in {frame.name}: {frame.line}"
    return ""


class Specialization(logging.Handler):
    """Finds the model's lines that fix a size: export logs each guard while the stack is still that line's."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "[guard added]" in text:
            line = _outside_torch([f for f in traceback.extract_stack() if "logging" not in f.filename])
            guard = text.partition("[guard added]")[0].removeprefix("eval ").strip()
            if line and not guard.startswith("Ne("):  # inequalities with 0 and 1 are export's own
                self.lines.setdefault(line, guard)

    def __str__(self) -> str:
        return "".join(f"\n  {guard} comes from {line}" for line, guard in list(self.lines.items())[:3])

    @classmethod
    def watch(cls, attempt: Callable[[], Any]) -> str:
        """Exports once more, in a way that lets export specialize, and tells where it does; "" if nothing is found."""
        logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
        handler, level, propagate = cls(), logger.level, logger.propagate
        others = logger.handlers[:]
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO)
        try:
            attempt()
        except Exception:
            pass  # the first attempt's error is the one to report
        finally:
            logger.handlers[:] = others
            logger.propagate = propagate
            logger.setLevel(level)
        return str(handler)

    @classmethod
    def find(cls, model: nn.Module, args: Any, kwargs: Any, dynamic_shapes: Any) -> str:
        return cls.watch(lambda: export(model, args, kwargs, dynamic_shapes))
