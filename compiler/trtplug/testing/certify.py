"""Every law over everything that one plugin brings: as cases for tests, and as verdicts for ``trtplug certify``."""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from trtplug.testing.cases import cannot_be_used, law_cases, profile_of_environment
from trtplug.testing.compare import mismatch
from trtplug.testing.errors import LawViolationError, NotApplicableError, UndescribedError, UnprovenError
from trtplug.testing.laws import Law, profile_named
from trtplug.testing.passes import check_pass
from trtplug.testing.profiles import Profile
from trtplug.testing.verdicts import check_registry
from trtplug_registry import Converter, Example, Executor, LoweringPass, Plugin, Registry, unknown_name

WITHOUT_DRAWING = (Law.ORDER,)
"""The laws that can be tried on a converter whose domain nothing can be drawn from."""


class Status(enum.StrEnum):
    """What became of a law."""

    HOLDS = "holds"
    VIOLATED = "violated"
    NOT_APPLICABLE = "not-applicable"
    UNPROVEN = "unproven"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One law on one thing that a plugin brings.

    Attributes:
        subject: the id of a converter or pass, the name of an op or executor, or of the plugin itself.
        kind: ``converter``, ``pass``, ``decomposition``, ``executor`` or ``plugin``.
        law: its name.
        dtype: of the leading tensor, or "" where the law does not depend on it.
        status: what became of it.
        detail: why it is violated (with a script that shows it), does not apply, or is not proven; else "".
        seconds: that it took.
    """

    subject: str
    kind: str
    law: str
    dtype: str
    status: Status
    detail: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "status": self.status.value, "seconds": round(self.seconds, 3)}


@dataclasses.dataclass(frozen=True, eq=False)
class PluginCase:
    """One law on one thing that a plugin brings, ready to be tried."""

    subject: str
    kind: str
    law: str
    dtype: str
    function: Callable[[Profile, str], int | None]

    @property
    def id(self) -> str:
        return "-".join(filter(None, (self.subject, self.dtype, self.law)))

    def __str__(self) -> str:
        return self.id

    def check(self, profile: Profile | str | None = None, executor: str = "reference") -> int:
        """Tries it, and says on how many drawn examples; the profile is that of the environment where None is given.

        Raises:
            LawViolationError, UndescribedError: the law does not hold.
            NotApplicableError: it has nothing to say here.
            UnprovenError: there is nothing to try it on.
        """
        return self.function(profile_of_environment() if profile is None else profile_named(profile), executor) or 0

    def judge(self, profile: Profile | str | None = None, executor: str = "reference") -> Verdict:
        """Tries it, and says what became of it. Raises nothing."""
        start = time.perf_counter()
        status, detail = Status.HOLDS, ""
        try:
            self.check(profile, executor)
        except UnprovenError as error:
            status, detail = Status.UNPROVEN, str(error)
        except NotApplicableError as error:
            status, detail = Status.NOT_APPLICABLE, str(error)
        except (LawViolationError, UndescribedError) as error:
            status, detail = Status.VIOLATED, str(error)
        except Exception as error:  # whatever a plugin raises is its own fault here
            status, detail = Status.VIOLATED, f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - start
        return Verdict(self.subject, self.kind, self.law, self.dtype, status, detail, seconds)


def plugin_cases(
    plugin: str, registry: Registry | None = None, profile: Profile | str | None = None
) -> list[PluginCase]:
    """Every law over everything that an installed plugin brings.

    For a parametrized test in the plugin's own suite::

        @pytest.mark.parametrize("case", plugin_cases("my-ops"), ids=str)
        def test_law(case):
            case.check()

    Args:
        plugin: its name, as ``trtplug plugins`` lists it.
        registry: that it is part of; the installed plugins, this one preferred, where None is given.
        profile: decides which dtypes are tried.

    Raises:
        UnknownNameError: there is no such plugin.
        PluginError: it is disabled; the message says why.
    """
    chosen = profile_of_environment() if profile is None else profile_named(profile)
    assembled = _assembled(plugin) if registry is None else registry
    found = next((p for p in assembled.plugins if p.name == plugin), None)
    if found is None:
        raise unknown_name("plugin", plugin, [p.name for p in assembled.plugins])
    return [
        *_converter_cases(assembled, found, chosen),
        *(_pass_case(item, found) for item in found.passes),
        *(_decomposition_case(assembled, op.name(), found) for op in found.decompositions),
        *(_executor_case(assembled, item) for item in found.executors),
        PluginCase(plugin, "plugin", str(Law.ORDER), "", lambda profile, executor: check_registry(assembled)),
    ]


def _assembled(plugin: str) -> Registry:
    """The installed plugins, the one under test preferred, so that a rival does not hide it; it must load."""
    import trtplug
    from trtplug_registry import PluginManager

    manager = PluginManager(strict=True)
    names = manager.entry_point_names()
    if plugin not in names:
        raise unknown_name("plugin", plugin, names)
    manager.load_entry_points(only=plugin)  # raises for this one, whatever the others do
    return trtplug.registry(prefer=[plugin], block=[], torch_ops=[], strict_plugins=False)


def _converter_cases(registry: Registry, plugin: Plugin, profile: Profile) -> Iterator[PluginCase]:
    mine = {id(c) for c in plugin.converters}
    for converter in plugin.converters:
        if not converter.overloads():
            why = f"{converter.target_name} is not loaded; let the plugin import what defines it"
            yield _unproven(converter.id, "converter", "all", why)
        elif lacking := cannot_be_used(registry, converter):
            yield _unproven(converter.id, "converter", "all", str(lacking))
        elif _is_opaque(converter) and not any(e.subject == converter.target_name for e in plugin.examples):
            why = "its domain is a predicate that nothing can be drawn from, and there is no example of its op"
            yield _unproven(converter.id, "converter", str(Law.EQUALS_EAGER), why)
        for example in plugin.examples:
            if example.subject == converter.target_name:
                yield _example_case(registry, example, converter.id, "converter", _converted_by(converter))
    for case in law_cases(registry, profile):
        if id(case.converter) in mine and (case.law in WITHOUT_DRAWING or not _is_opaque(case.converter)):
            dtype = "" if case.dtype is None else str(case.dtype).removeprefix("torch.")
            yield PluginCase(case.converter.id, "converter", str(case.law), dtype, case.check)


def _converted_by(converter: Converter) -> Callable[[Any], bool]:
    return lambda node: node.converter == converter.id


def _is_opaque(converter: Converter) -> bool:
    domain = converter.domain
    return any(relation.opaque for relation in domain.relations) or any(use.opaque for use in domain.outputs)


def _unproven(subject: str, kind: str, law: str, why: str) -> PluginCase:
    def check(profile: Profile, executor: str) -> None:
        raise UnprovenError(f"{subject}: {why}")

    return PluginCase(subject, kind, law, "", check)


def _pass_case(item: LoweringPass, plugin: Plugin) -> PluginCase:
    examples = [example for example in plugin.examples if example.subject == item.name]
    if not examples:
        return _unproven(item.id, "pass", "preserves", "there is no example that it changes; see trtplug_examples()")

    def check(profile: Profile, executor: str) -> None:
        for number, example in enumerate(examples):
            if not check_pass(item, example.model, example.args(), dynamic_shapes=example.dynamic_shapes):
                raise UnprovenError(f"{item.id} leaves its example {number} as it is")

    return PluginCase(item.id, "pass", "preserves", "", check)


def _decomposition_case(registry: Registry, op: str, plugin: Plugin) -> PluginCase:
    examples = [example for example in plugin.examples if example.subject == op]
    if not examples:
        return _unproven(op, "decomposition", "example", "there is no example of its op; see trtplug_examples()")
    end = f"decomposed by {plugin.name}"
    return _example_case(registry, examples[0], op, "decomposition", lambda node: node.origin.endswith(end))


def _example_case(
    registry: Registry, example: Example, subject: str, kind: str, at_work: Callable[[Any], bool]
) -> PluginCase:
    """The example compiles to what eager computes, and the subject has a part in that."""

    def check(profile: Profile, executor: str) -> None:
        report = _compiles_to_eager(registry, example.model, example.args(), executor, example.dynamic_shapes, subject)
        if not any(map(at_work, report.nodes)):
            raise UnprovenError(f"{subject} has no part in its example:\n{report}")

    return PluginCase(subject, kind, "example", "", check)


def _executor_case(registry: Registry, item: Executor) -> PluginCase:
    def check(profile: Profile, executor: str) -> None:
        why = item.unavailable()
        if why is not None:
            raise NotApplicableError(f"the executor {item.name!r} cannot run here: {why}")
        _compiles_to_eager(registry, _small, (torch.linspace(-2, 2, 12).view(3, 4),), item.name, None, item.name)

    return PluginCase(item.name, "executor", str(Law.EQUALS_EAGER), "", check)


def _small(x: torch.Tensor) -> Any:
    return torch.relu(x) @ x.t(), x.sum(1)


class _Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def _compiles_to_eager(
    registry: Registry, model: Any, args: tuple[Any, ...], executor: str, dynamic_shapes: Any, subject: str
) -> Any:
    """Holds a compiled model to eager's results; returns its report."""
    import trtplug

    module = model if isinstance(model, nn.Module) else _Function(model)
    device = next((e.device for e in registry.executors if e.name == executor and e.device), "")
    if device:
        module, args = module.to(device), pytree.tree_map_only(torch.Tensor, lambda t: t.to(device), args)
    if not isinstance(model, nn.Module) and dynamic_shapes is not None:
        dynamic_shapes = (tuple(dynamic_shapes),)
    compiled = trtplug.compile(
        module,
        args,
        dynamic_shapes=dynamic_shapes,
        registry=registry,
        executor=executor,
        min_block_size=1,
        on_failure="raise",
    )
    with torch.no_grad():
        ours, theirs = (pytree.tree_leaves(run(*args)) for run in (compiled, module))
    found = mismatch(ours, theirs, {})
    if found is not None:
        raise LawViolationError(f"{subject}: the compiled model differs from eager: {found}")
    return compiled.report
