"""What the graphs of one ``torch.compile`` share: the settings, the registry, and the reports."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Any

from trtplug.assembly import registry_for
from trtplug.errors import InputError
from trtplug.executors import executor_of_name
from trtplug.report import CompilationReport
from trtplug.settings import Settings
from trtplug_registry import Registry

_ATTRIBUTE = "_trtplug_session"


class Session:
    """One ``torch.compile(…, backend="trtplug")``.

    Attributes:
        settings: from its options.
        reports: what makes each graph's, by its number; a graph that is compiled again replaces its own.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.reports: dict[int, Callable[[], CompilationReport]] = {}
        self._numbers = itertools.count()

    @functools.cached_property
    def registry(self) -> Registry:
        """Assembled once, however many graphs there are.

        Raises:
            UnknownNameError, PassOrderError: an option names what is not there, an executor too.
            PluginError: under ``strict_plugins``.
        """
        made = registry_for(self.settings)
        if self.settings.executor != "auto":
            executor_of_name(made, self.settings.executor)
        return made

    def number(self) -> int:
        """Of the next graph."""
        return next(self._numbers)


def session_of(backend: Callable[..., Any], make: Callable[[], Session]) -> Session:
    """The session of the ``torch.compile`` that Dynamo compiles for at this moment; a new one outside of Dynamo.

    It is kept by the object that ``torch.compile`` makes of a backend and its options, and so lives as long as that.
    """
    from torch._dynamo.symbolic_convert import InstructionTranslator

    try:
        compiler = _innermost(InstructionTranslator.current_tx().output.compiler_fn)
    except AttributeError:  # called by hand
        return make()
    if compiler is backend:  # torch._dynamo.optimize makes no object of its own
        return make()
    attributes = vars(compiler)
    if _ATTRIBUTE not in attributes:
        attributes[_ATTRIBUTE] = make()
    session: Session = attributes[_ATTRIBUTE]
    return session


def reports(fast: Any) -> tuple[CompilationReport, ...]:
    """What became of each graph that Dynamo found, in the order in which they were first compiled.

    A graph that runs in Torch as a whole has a report too, with the reason at each node and among the ``warnings``.
    Dynamo shares what it compiled among calls of ``torch.compile`` on the same code with equal options: the reports
    are with the first.

    Args:
        fast: what ``torch.compile(…, backend="trtplug")`` returned, or a module whose ``compile`` method was called.

    Raises:
        InputError: it is something else.
    """
    compiled = getattr(fast, "_compiled_call_impl", None) or fast
    config = getattr(compiled, "get_compiler_config", None)
    context = inspect.getclosurevars(config).nonlocals.get("self") if inspect.isfunction(config) else None
    compiler = _innermost(getattr(context, "callback", None))
    if getattr(compiler, "compiler_name", "") != "trtplug":
        name = type(fast).__name__
        raise InputError(f"reports: expected what torch.compile(..., backend='trtplug') returns, found a {name}")
    session: Session | None = getattr(compiler, _ATTRIBUTE, None)
    return () if session is None else tuple(report() for _, report in sorted(session.reports.items()))


def _innermost(compiler: Any) -> Any:
    while hasattr(compiler, "_torchdynamo_orig_backend"):
        compiler = compiler._torchdynamo_orig_backend
    return compiler
