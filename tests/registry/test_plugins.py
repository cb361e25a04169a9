"""Plugins are found through entry points and asked one at a time; a bad one costs only itself."""

from __future__ import annotations

import inspect
import sys
import textwrap

import pytest
import torch
from conftest_registry import make_plugin

from trtplug_registry import (
    CONTRACT,
    FLOATS,
    INTS,
    Domain,
    Example,
    Executor,
    PluginError,
    PluginManager,
    PluginWarning,
    Registry,
    Tensor,
    UnknownNameError,
    converter,
    hookspecs,
    lowering_pass,
)

aten = torch.ops.aten


@converter(aten.relu.default, Domain(self=Tensor()))
def relu(ctx, self): ...


@converter(aten.cos.default, Domain(self=Tensor()))
def cos(ctx, self): ...


@lowering_pass("nothing")
def nothing(graph_module):
    """x -> x"""
    return False


HEALTHY = """
    import torch
    from trtplug_registry import Domain, Tensor, converter
    trtplug_contract = 1

    @converter(torch.ops.aten.sin.default, Domain(self=Tensor()))
    def sin(ctx, self): ...

    def trtplug_converters():
        return [sin]
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a distribution with one plugin module into a folder on sys.path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = []

    def install(distribution: str, source: str, entry: str | None = None) -> None:
        module = distribution.replace("-", "_")
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[trtplug]\n{entry or distribution} = {module}\n")

    yield install
    for module in modules:
        sys.modules.pop(module, None)


def test_an_installed_plugin_is_found(install):
    install("healthy-ops", HEALTHY)
    manager = PluginManager(strict=True)
    manager.load_entry_points()
    (plugin,) = (plugin for plugin in manager.plugins if plugin.name == "healthy-ops")
    assert (plugin.distribution, plugin.version, plugin.built_in, plugin.error) == ("healthy-ops", "1.0", False, "")
    assert [c.id for c in plugin.converters] == ["healthy-ops:aten::sin"]


def test_the_built_ins_come_in_through_the_same_door():
    manager = PluginManager()
    manager.load_entry_points()
    built_in = {plugin.name for plugin in manager.plugins if plugin.built_in}
    assert built_in == {"trtplug-converters", "trtplug-passes", "trtplug-reference", "trtplug-tensorrt"}


def test_a_blocked_plugin_is_not_even_imported(install):
    install("bomb", "raise RuntimeError('imported')")
    manager = PluginManager(block=["bomb"], strict=True)
    manager.load_entry_points()
    assert "bomb" not in {plugin.name for plugin in manager.plugins}
    assert "bomb" not in sys.modules


def test_blocking_what_does_not_exist_is_an_error():
    manager = PluginManager(block=["trtplug-convertres"])
    with pytest.raises(UnknownNameError, match="did you mean 'trtplug-converters'"):
        manager.load_entry_points()


BAD = {
    "import error": ("import not_there", "ModuleNotFoundError: No module named 'not_there'"),
    "syntax error": ("def (", "SyntaxError"),
    "exit at import": ("import sys\nsys.exit(3)", "SystemExit: 3"),
    "no contract": ("", "does not state its contract version; add: trtplug_contract = 1"),
    "other contract": ("trtplug_contract = 99", "written for version 99 of the plugin contract, this is version 1"),
    "unknown hook": (
        "trtplug_contract = 1\ndef trtplug_convertors(): return []",
        "unknown hook 'trtplug_convertors': did you mean 'trtplug_converters'",
    ),
    "raises at import": ("x = 1\n{}['key']", "bad_ops.py:2)"),
    "hook raises": ("trtplug_contract = 1\ndef trtplug_converters(): 1 / 0", "division by zero ("),
    "hook returns no list": (
        "trtplug_contract = 1\ndef trtplug_converters(): return 7",
        "trtplug_converters() returned 7",
    ),
    "hook returns no mapping": (
        "trtplug_contract = 1\ndef trtplug_decompositions(): return [3]",
        "trtplug_decompositions() returned [3]; it returns a mapping",
    ),
    "hook with arguments": ("trtplug_contract = 1\ndef trtplug_converters(x): return []", "declared in the hookimpl"),
    "not a converter": (
        "trtplug_contract = 1\ndef trtplug_converters(): return [3]",
        "returned 3, which is not a Conv",
    ),
    "an example of nothing": (
        "from trtplug_registry import Example\ntrtplug_contract = 1\n"
        "def trtplug_examples(): return [Example('tidi', len, tuple)]",
        "unknown subject of an example 'tidi'",
    ),
    "not a mapping": ("trtplug_contract = 1\ndef trtplug_decompositions(): return {'a': 3}", "maps overloads to func"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_plugin_is_disabled_and_a_healthy_one_works(install, name):
    source, words = BAD[name]
    install("bad-ops", source)
    install("healthy-ops", HEALTHY)
    manager = PluginManager()
    with pytest.warns(PluginWarning, match="plugin 'bad-ops' of bad-ops 1.0 is disabled") as caught:
        manager.load_entry_points()
    assert len(caught) == 1
    by_name = {plugin.name: plugin for plugin in manager.plugins}
    assert words in by_name["bad-ops"].error
    assert not by_name["bad-ops"].converters
    assert by_name["healthy-ops"].converters
    assert Registry(manager.plugins).candidates(aten.sin.default)


@pytest.mark.parametrize("name", BAD)
def test_strict_plugins_raise(install, name):
    install("bad-ops", BAD[name][0])
    with pytest.raises(PluginError, match=r"plugin 'bad-ops' of bad-ops 1\.0 is disabled"):
        PluginManager(strict=True).load_entry_points()


def test_two_plugins_of_one_name(install):
    install("healthy-ops", HEALTHY)
    install("other-ops", HEALTHY, entry="healthy-ops")
    manager = PluginManager()
    with pytest.warns(PluginWarning, match="its name is taken by the plugin of 'healthy-ops'"):
        manager.load_entry_points()


def test_two_passes_of_one_name():
    manager = PluginManager()
    with pytest.warns(PluginWarning, match="two lowering passes named 'nothing'"):
        manager.register(make_plugin(lowering_passes=[nothing, nothing]), "twice")


def test_two_converters_for_the_same_calls():
    manager = PluginManager()
    with pytest.warns(PluginWarning, match=r"'relu' and 'relu' both claim aten::relu with equal priority"):
        manager.register(make_plugin(converters=[relu, relu]), "twice")
    apart = [converter(aten.relu.default, Domain(self=Tensor(dtypes)))(relu.function) for dtypes in (FLOATS, INTS)]
    PluginManager(strict=True).register(make_plugin(converters=apart), "apart")


def test_a_converter_by_name_is_held_to_the_schema_when_it_is_there():
    misfit = converter("aten::relu", Domain(x=Tensor()))(lambda ctx, x: x)
    manager = PluginManager()
    with pytest.warns(PluginWarning, match=r"for aten::relu: its parameters after ctx are \['x'\]"):
        manager.register(make_plugin(converters=[misfit]), "misfit")


def anchored(name: str, **anchors):
    return lowering_pass(name, **anchors)(nothing.function)


def test_passes_that_cannot_be_ordered_disable_the_fewest_plugins():
    """One that names what does not exist, and two that wait for each other; a third is as before."""
    manager = PluginManager()
    manager.register(make_plugin(lowering_passes=[anchored("x", after=["nowhere:y"])]), "lost")
    manager.register(make_plugin(lowering_passes=[anchored("p", after=["b:q"])]), "a")
    manager.register(make_plugin(lowering_passes=[anchored("q", after=["a:p"])]), "b")
    manager.register(make_plugin(lowering_passes=[anchored("r", before=["a:p"])]), "healthy")
    with pytest.warns(PluginWarning, match="the lowering passes cannot be ordered") as caught:
        manager.settle_passes()
    assert len(caught) == 2
    assert [plugin.name for plugin in manager.plugins if plugin.error] == ["a", "lost"]
    assert [item.id for item in Registry(manager.plugins).passes] == ["b:q", "healthy:r"]


def test_what_the_user_says_of_passes_counts_before_a_plugin_is_disabled():
    manager = PluginManager(strict=True)
    for name in ("a", "b"):
        manager.register(make_plugin(lowering_passes=[anchored("x", replaces="base:x")]), name)
    manager.register(make_plugin(lowering_passes=[nothing, anchored("x")]), "base")
    manager.settle_passes(disable=["b:x"])
    with pytest.raises(PluginError, match=r"plugin 'a' is disabled: [^']*'a:x' and 'b:x' both replace"):
        manager.settle_passes()


def test_what_a_plugin_brings_is_stamped_with_its_name():
    manager = PluginManager(strict=True)
    manager.register(make_plugin(converters=[relu, (cos,)], lowering_passes=[nothing]), "acme")
    (plugin,) = manager.plugins
    assert [c.plugin for c in plugin.converters] == ["acme", "acme"]
    assert plugin.passes[0].id == "acme:nothing"
    assert relu.plugin == ""  # the declared value is as it was


def test_a_registry_leaves_no_trace_in_another():
    """Law 6: nothing is shared between two managers."""
    manager = PluginManager(strict=True)
    manager.register(make_plugin(converters=[relu]), "acme")
    assert Registry(manager.plugins).candidates(aten.relu.default)
    assert not Registry(PluginManager().plugins).candidates(aten.relu.default)


def test_every_hook_is_documented_and_tested():
    hooks = {name: spec for name, spec in vars(hookspecs).items() if hasattr(spec, "trtplug_spec")}
    assert set(hooks) == {
        "trtplug_converters",
        "trtplug_decompositions",
        "trtplug_examples",
        "trtplug_executors",
        "trtplug_lowering_passes",
    }
    for name, spec in hooks.items():
        assert inspect.getdoc(spec), name
        assert "return" in spec.__annotations__, name
    assert CONTRACT == 1


def test_each_hook_is_asked():
    executor = Executor("here", lambda: None, lambda engine: lambda *args: args)
    manager = PluginManager(strict=True)
    decompositions = {aten.relu.default: lambda self: self.clamp(min=0)}
    example = Example("nothing", torch.relu, lambda: (torch.ones(2),))
    brought = {"converters": [relu], "lowering_passes": [nothing], "executors": [executor], "examples": [example]}
    manager.register(make_plugin(**brought, decompositions=decompositions), "acme")
    assert [(e.plugin, e.subject) for e in manager.plugins[0].examples] == [("acme", "nothing")]
    registry = Registry(manager.plugins)
    assert [c.id for c in registry] == ["acme:aten::relu"]
    assert [p.id for p in registry.passes] == ["acme:nothing"]
    assert dict(registry.decompositions) == decompositions
    assert [(e.plugin, e.name) for e in registry.executors] == [("acme", "here")]
