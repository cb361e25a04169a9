"""Finding plugins and asking them what they bring, one plugin at a time, so that a bad one costs only itself."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import time
import types
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import pluggy
from torch._ops import OpOverload

from trtplug_registry import hookspecs
from trtplug_registry.conversion import Converter
from trtplug_registry.errors import PassOrderError, PluginError, PluginWarning, TrtplugError, raised, unknown_name
from trtplug_registry.examples import Example
from trtplug_registry.executor import Executor
from trtplug_registry.hookspecs import CONTRACT, GROUP
from trtplug_registry.passes import DisablePass, LoweringPass, OrderPasses
from trtplug_registry.pipeline import arrange_passes

DISTRIBUTION = "trtplug"
CONTRACT_NAME = "trtplug_contract"


@dataclasses.dataclass(frozen=True)
class Plugin:
    """A plugin, and what it brought.

    Attributes:
        name: of its entry point; unique.
        distribution, version: of the package that holds it; "" for one registered by hand.
        built_in: whether it came with trtplug.
        contract: the version of the plugin contract that it states; None where it could not be asked.
        error: why it is disabled, or "". A disabled plugin brings nothing.
        seconds: how long it took to import and ask.
    """

    name: str
    distribution: str = ""
    version: str = ""
    built_in: bool = False
    contract: Any = None
    converters: tuple[Converter, ...] = ()
    passes: tuple[LoweringPass, ...] = ()
    pass_choices: tuple[DisablePass | OrderPasses, ...] = ()
    decompositions: Mapping[OpOverload, Callable[..., Any]] = dataclasses.field(default_factory=dict)
    executors: tuple[Executor, ...] = ()
    examples: tuple[Example, ...] = ()
    error: str = ""
    seconds: float = 0.0


class _Manager(pluggy.PluginManager):
    """Takes every function named ``trtplug_*`` for a hook, marked or not, so that a misspelt one is an error."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        options = super().parse_hookimpl_opts(plugin, name)
        if options is None and name.startswith(f"{GROUP}_") and callable(getattr(plugin, name, None)):
            return {}
        return options


class PluginManager:
    """The plugins of one owner: found, loaded, asked. Holds no state outside itself.

    Args:
        block: names of plugins that are not even imported.
        strict: raise `PluginError` where a plugin would be disabled with a `PluginWarning`.
        only_executors: ask them for nothing else, for engines that are finished: checking converters takes far longer.
    """

    def __init__(self, *, block: Iterable[str] = (), strict: bool = False, only_executors: bool = False) -> None:
        self.block = frozenset(block)
        self.strict = strict
        self.only_executors = only_executors
        self._plugins: dict[str, Plugin] = {}
        self._blocked: set[str] = set()

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """All plugins that are not blocked, disabled ones included, by name."""
        return tuple(self._plugins[name] for name in sorted(self._plugins))

    @property
    def names(self) -> frozenset[str]:
        """The names of all plugins there are, blocked ones included."""
        return frozenset(self._plugins) | self._blocked

    @property
    def blocked(self) -> frozenset[str]:
        """The names of those that are there and blocked."""
        return frozenset(self._blocked)

    @staticmethod
    def entry_point_names() -> frozenset[str]:
        """The names of the plugins that are installed; imports none of them."""
        return frozenset(entry.name for entry in importlib.metadata.entry_points(group=GROUP))

    def load_entry_points(self, only: str = "") -> None:
        """Loads every plugin that an installed distribution names in the entry-point group ``trtplug``.

        Args:
            only: the name of the one plugin to load; all where it is "".

        Raises:
            UnknownNameError: `block` names a plugin that does not exist.
            PluginError: in strict mode, a plugin cannot be loaded.
        """
        found = [entry for entry in importlib.metadata.entry_points(group=GROUP) if only in ("", entry.name)]
        for entry in sorted(found, key=lambda entry: (entry.name, entry.dist.name if entry.dist else "")):
            distribution, version = (entry.dist.name, entry.dist.version) if entry.dist else ("", "")
            self.register(entry.load, entry.name, distribution=distribution, version=version, lazy=True)
        for name in self.block - self.names if not only else ():
            raise unknown_name("plugin", name, self.names)

    def settle_passes(
        self, *, disable: Sequence[str] = (), enable: Sequence[str] = (), order: Sequence[str] = ()
    ) -> None:
        """Disables the fewest third parties whose passes cannot be ordered with the rest.

        Args:
            disable, enable, order: what the user says of the passes, as for `arrange_passes`.

        Raises:
            PluginError: in strict mode.
        """
        said = {"disable": disable, "enable": enable, "order": order}
        why = self._disorder((), said)
        third = [
            name
            for name, plugin in sorted(self._plugins.items())
            if (plugin.passes or plugin.pass_choices) and not plugin.built_in
        ]
        for count in range(1, len(third) + 1) if why else ():
            for culprits in itertools.combinations(third, count):
                if not self._disorder(culprits, said):
                    for name in culprits:
                        self._disable(name, _identity(self._plugins[name]), why)
                    return

    def _disorder(self, without: Collection[str], said: Mapping[str, Sequence[str]]) -> str:
        """Why the passes cannot be ordered without these plugins, or ""."""
        absent = {*self._blocked, *(name for name, plugin in self._plugins.items() if plugin.error)}
        present = [plugin for name, plugin in self._plugins.items() if name not in {*absent, *without}]
        # what a culprit brought is moot; what it never had is the fault of who names it
        absent |= {item.id for name in without for item in self._plugins[name].passes}
        passes = [item for plugin in present for item in plugin.passes]
        choices = [item for plugin in present for item in plugin.pass_choices]
        try:
            arrange_passes(passes, choices=choices, **said, absent=absent)
        except PassOrderError as error:
            return str(error)
        return ""

    def register(
        self, plugin: Any, name: str, *, distribution: str = "", version: str = "", lazy: bool = False
    ) -> None:
        """Adds a plugin: a module or object with hooks, or with ``lazy=True`` a function that returns one.

        A plugin that cannot be loaded, or that declares something invalid, is kept as disabled, with a `PluginWarning`.

        Raises:
            PluginError: in strict mode.
        """
        if name in self.block:
            self._blocked.add(name)
            return
        built_in = distribution == DISTRIBUTION
        facts: dict[str, Any] = {"name": name, "distribution": distribution, "version": version, "built_in": built_in}
        start = time.perf_counter()
        if name in self._plugins:
            holder = self._plugins[name].distribution or "this program"
            self._disable(f"{name}@{distribution}", facts, f"its name is taken by the plugin of {holder!r}")
            return
        loaded = None
        try:
            loaded = plugin() if lazy else plugin
            hook = _hooks(loaded, name)
            brought = _executors(hook, name) if self.only_executors else _ask(hook, name, built_in=built_in)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything at import, SystemExit included
            facts |= {"contract": getattr(loaded, CONTRACT_NAME, None), "seconds": time.perf_counter() - start}
            self._disable(name, facts, _describe(error), error)
            return
        facts["contract"] = CONTRACT
        self._plugins[name] = Plugin(**facts, **brought, seconds=time.perf_counter() - start)

    def _disable(self, name: str, facts: dict[str, Any], why: str, cause: BaseException | None = None) -> None:
        origin = f" of {facts['distribution']} {facts['version']}" if facts["distribution"] else ""
        message = f"plugin {facts['name']!r}{origin} is disabled: {why}"
        if self.strict:
            raise PluginError(message) from cause
        self._plugins[name] = Plugin(**{**facts, "name": name}, error=why)
        warnings.warn(message, PluginWarning, stacklevel=4)


def _identity(plugin: Plugin) -> dict[str, Any]:
    return {name: getattr(plugin, name) for name in ("name", "distribution", "version", "built_in", "contract")}


def _describe(error: BaseException) -> str:
    if isinstance(error, TrtplugError | pluggy.PluginValidationError):
        return str(error)
    return raised(error)


def _check_converters(converters: Iterable[Converter]) -> None:
    """Raises for a converter that does not fit its op, and for two that one plugin gives the same calls."""
    seen: dict[tuple[str, int], list[Converter]] = {}
    for item in converters:
        item.overloads()  # a target by name is only now looked up
        str(item.domain)
        rivals = seen.setdefault((item.target_name, item.priority), [])
        for other in rivals:
            if not other.domain.disjoint(item.domain):
                raise PluginError(
                    f"its converters {other.name!r} and {item.name!r} both claim {item.target_name} with equal"
                    " priority, and no argument keeps their domains apart; leave one out, or give one a priority"
                )
        rivals.append(item)


def _hooks(plugin: Any, name: str) -> Any:
    """The hooks of one plugin, which states the right contract."""
    contract = getattr(plugin, CONTRACT_NAME, None)
    if contract is None:
        raise PluginError(f"it does not state its contract version; add: trtplug_contract = {CONTRACT}")
    if contract != CONTRACT:
        raise PluginError(f"it was written for version {contract!r} of the plugin contract, this is version {CONTRACT}")
    manager = _Manager(GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin, name)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        known = {hook for hook in vars(hookspecs) if hook.startswith(f"{GROUP}_")}
        raise unknown_name("hook", min(vars(manager.hook).keys() - known), known) from error
    return manager.hook


def _executors(hook: Any, name: str) -> dict[str, Any]:
    executors = _declared(hook.trtplug_executors(), Executor, "trtplug_executors")
    _check_names("executors", executors)
    return {"executors": tuple(dataclasses.replace(item, plugin=name) for item in executors)}


def _check_names(kind: str, items: Iterable[Any]) -> None:
    names = [item.name for item in items]
    for twice in sorted({name for name in names if names.count(name) > 1}):
        raise PluginError(f"it has two {kind} named {twice!r}")


def _ask(hook: Any, name: str, *, built_in: bool) -> dict[str, Any]:
    """What one plugin brings, validated and stamped with its name."""
    stamp = {"plugin": name}
    converters = _declared(hook.trtplug_converters(), Converter, "trtplug_converters")
    _check_converters(converters)
    brought = _declared(
        hook.trtplug_lowering_passes(), (LoweringPass, DisablePass, OrderPasses), "trtplug_lowering_passes"
    )
    passes = [item for item in brought if isinstance(item, LoweringPass)]
    _check_names("lowering passes", passes)
    examples = _declared(hook.trtplug_examples(), Example, "trtplug_examples")
    decompositions: dict[OpOverload, Callable[..., Any]] = {}
    for mapping in hook.trtplug_decompositions():
        _check_decompositions(mapping)
        decompositions |= mapping
    subjects = {c.target_name for c in converters} | {p.name for p in passes} | {op.name() for op in decompositions}
    for example in examples:
        if example.subject not in subjects:
            raise unknown_name("subject of an example", example.subject, subjects)
    return {
        "converters": tuple(dataclasses.replace(item, **stamp, built_in=built_in) for item in converters),
        "passes": tuple(_stamped(item, name) for item in passes),
        "pass_choices": tuple(_stamped_choice(item, name) for item in brought if not isinstance(item, LoweringPass)),
        **_executors(hook, name),
        "examples": tuple(dataclasses.replace(item, **stamp) for item in examples),
        "decompositions": types.MappingProxyType(decompositions),
    }


def _stamped(item: LoweringPass, plugin: str) -> LoweringPass:
    """The pass with its owner; anchors without a plugin mean the same plugin."""

    def whole(anchors: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_whole(anchor, plugin) for anchor in anchors)

    (replaces,) = whole((item.replaces,)) if item.replaces else ("",)
    return dataclasses.replace(
        item, plugin=plugin, before=whole(item.before), after=whole(item.after), replaces=replaces
    )


def _stamped_choice(item: DisablePass | OrderPasses, plugin: str) -> DisablePass | OrderPasses:
    if isinstance(item, DisablePass):
        return dataclasses.replace(item, plugin=plugin)
    return dataclasses.replace(
        item, plugin=plugin, first=_whole(item.first, plugin), second=_whole(item.second, plugin)
    )


def _whole(anchor: str, plugin: str) -> str:
    return anchor if ":" in anchor else f"{plugin}:{anchor}"


def _declared(results: Iterable[Any], kind: type | tuple[type, ...], hook: str) -> list[Any]:
    """The declared values that a hook returned; tables (tuples of them) are flattened."""
    found: list[Any] = []
    for result in results:
        if not isinstance(result, Iterable):
            raise PluginError(f"{hook}() returned {result!r}; it returns a list")
        for item in result:
            group = item if isinstance(item, tuple | list) else (item,)
            for value in group:
                if not isinstance(value, kind):
                    wanted = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
                    raise PluginError(f"{hook}() returned {value!r}, which is not a {wanted}")
                found.append(value)
    return found


def _check_decompositions(mapping: Any) -> None:
    if not isinstance(mapping, Mapping):
        raise PluginError(
            f"trtplug_decompositions() returned {mapping!r}; it returns a mapping of overloads to functions"
        )
    for op, function in mapping.items():
        if not isinstance(op, OpOverload) or not callable(function):
            raise PluginError(f"trtplug_decompositions() maps {op!r} to {function!r}; it maps overloads to functions")
