"""A bad plugin costs itself: the user's compile ends right, with one warning, and a healthy plugin beside it works.

Each case runs in a process of its own (see `isolation_server`); ``strict_plugins=True`` raises instead.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HEALTHY = """
    from trtplug_registry import FLOATS, Domain, Tensor, converter
    trtplug_contract = 1

    @converter("healthy::double", Domain(x=Tensor(FLOATS)))
    def double(ctx, x):
        return ctx.elementwise("SUM", x, x)

    def trtplug_converters():
        return [double]
"""

HEAD = """
    import random
    import torch
    from trtplug_registry import FLOATS, Domain, Only, Relation, Static, Tensor, converter, lowering_pass
    trtplug_contract = 1
    aten = torch.ops.aten
    kept = []

    def right(ctx, x):
        return ctx.activation("RELU", x)

    def trtplug_converters():
        return [value for value in globals().values() if type(value).__name__ == "Converter"]

    def trtplug_lowering_passes():
        return [value for value in globals().values() if type(value).__name__ == "LoweringPass"]
"""


def relu(body: str, relation: str = "") -> str:
    return f"""
    @converter(aten.relu.default, Domain({relation}self=Tensor(FLOATS)))
    def relu(ctx, self):
        {body}
"""


def rewrite(body: str) -> str:
    return f"""
    @lowering_pass("rewrite")
    def rewrite(graph_module):
        '''relu(x) -> relu(x)'''
        graph = graph_module.graph
        relus = [node for node in graph.nodes if node.target is aten.relu.default]
        {body}
"""


BROKEN = "plugin 'bad-ops' of bad-ops 1.0 is disabled: "
AT_RELU = "the converter bad-ops:aten::relu "

# the plugin's source, words of the one warning, and whether the plugin's converter may be in use all the same
CASES = {
    "import error": ("import not_there", BROKEN + "ModuleNotFoundError: No module named 'not_there'"),
    "syntax error": ("def (", BROKEN + "SyntaxError"),
    "exit at import": ("import sys\nsys.exit(3)", BROKEN + "SystemExit: 3"),
    "other contract": ("trtplug_contract = 2", BROKEN + "it was written for version 2 of the plugin contract"),
    "wrong signature": (
        HEAD + "\n    @converter(aten.relu.default, Domain(self=Tensor()))\n    def relu(ctx, input): ...",
        BROKEN + "converter 'relu' for aten::relu: its parameters after ctx are ['input'], the schema's are ['self']",
    ),
    "wrong signature, by name": (
        HEAD + "\n    @converter('healthy::double', Domain(x=Tensor()))\n    def double(ctx, y): ...",
        BROKEN + "converter 'double' for healthy::double: its parameters after ctx are ['y'], the schema's are ['x']",
    ),
    "duplicate id": (
        HEAD
        + relu("return right(ctx, self)")
        + "\n    again = converter(aten.relu.default, relu.domain)(relu.function)",
        BROKEN + "its converters 'relu' and 'relu' both claim aten::relu",
    ),
    "contradictory domain": (
        HEAD + "\n    @converter(aten.relu.default, Domain(self=Tensor(rank=(3, 2))))\n    def relu(ctx, self): ...",
        BROKEN + "domain: self admits nothing",
    ),
    "a pass whose anchor does not exist": (
        HEAD + rewrite("return False").replace('pass("rewrite")', 'pass("rewrite", after=["trtplug-passes:gone"])'),
        "'bad-ops:rewrite': unknown pass 'trtplug-passes:gone'",
    ),
    "a converter that raises": (
        HEAD + relu("raise KeyError('mine')"),
        AT_RELU + "raised KeyError: 'mine'",
    ),
    "too many results": (HEAD + relu("return self, self"), AT_RELU + "returned 2 results, the op has 1"),
    "too few results": (
        HEAD
        + """
    @converter(aten.topk.default, Domain(self=Tensor(), k=Static(), dim=Static(), largest=Only(True)))
    def topk(ctx, self, k, dim=-1, largest=True, sorted=True):
        return self
""",
        "the converter bad-ops:aten::topk returned 1 results, the op has 2",
    ),
    "no result": (HEAD + relu("pass"), AT_RELU + "returned a NoneType, not a network tensor"),
    "the wrong dtype": (
        HEAD + relu("return ctx.cast(right(ctx, self), torch.float16)"),
        AT_RELU + "made float16[3, 4], the node promises float32[3, 4]",
    ),
    "the wrong shape": (
        HEAD + relu("return ctx.permute(right(ctx, self), [1, 0])"),
        AT_RELU + "made float32[4, 3], the node promises float32[3, 4]",
    ),
    "a converter that mutates its node": (
        HEAD + relu("ctx.node.meta['val'] = None; return right(ctx, self)"),
        AT_RELU + "changed its node, which is read only",
    ),
    "a converter that mutates its graph": (
        HEAD + relu("ctx.node.graph.erase_node(list(ctx.node.users)[0]); return right(ctx, self)"),
        AT_RELU,
    ),
    "a converter that keeps a tensor of another network": (
        HEAD + relu("kept.append(right(ctx, self)); return kept[0]"),
        AT_RELU + "returned a tensor of another network, which it kept",
    ),
    "a converter that keeps its context": (
        HEAD + relu("kept.append((ctx, self)); return right(*kept[0])"),
        AT_RELU + "failed: output (node 'output'): this network is finished: a converter kept it",
    ),
    "a relation that raises": (
        HEAD + relu("return right(ctx, self)", "Relation('luck', ('self',), lambda call: call['nothing']), "),
        "converter bad-ops:aten::relu of plugin 'bad-ops' is refused: its domain raised KeyError: 'nothing'",
    ),
    "a relation that never answers the same twice": (
        HEAD
        + "\n    moods = iter([True, False] * 999)"
        + relu("return right(ctx, self)", "Relation('luck', ('self',), lambda call: next(moods)), "),
        "converter bad-ops:aten::relu of plugin 'bad-ops' is refused: its domain, asked twice about one call, said",
    ),
    "a pass that breaks the graph": (
        HEAD + rewrite("relus[0].append(relus[0].args[0]); return True"),
        "lowering pass 'bad-ops:rewrite' is undone: the graph is broken",
    ),
    "a pass that changes an output": (
        HEAD + rewrite("graph.output_node().args = ((relus[0], relus[0]),); return True"),
        "lowering pass 'bad-ops:rewrite' is undone: output",
    ),
    "a pass that raises": (
        HEAD + rewrite("graph.erase_node(relus[0])"),
        "lowering pass 'bad-ops:rewrite' is undone: it raised RuntimeError",
    ),
    "a pass that lies about having changed the graph": (
        HEAD + rewrite("new = graph.node_copy(relus[0]); relus[0].append(new); return False"),
        "lowering pass 'bad-ops:rewrite' changed the graph, but returned False",
    ),
}


@pytest.fixture(scope="module")
def server():
    script = Path(__file__).with_name("isolation_server.py")
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process  # leaving closes both pipes: the server then ends


@pytest.fixture
def compile_beside(server, tmp_path):
    """Compiles beside plugins that are given as sources by the name of their distribution."""

    def compile_beside(plugins: dict[str, str], **settings) -> dict:
        for name, source in plugins.items():
            module = name.replace("-", "_")
            (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
            info = tmp_path / f"{module}-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            (info / "entry_points.txt").write_text(f"[trtplug]\n{name} = {module}\n")
        server.stdin.write(json.dumps({"folder": str(tmp_path), "settings": settings}) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    return compile_beside


@pytest.mark.parametrize("case", CASES)
def test_a_bad_plugin_costs_itself(compile_beside, case):
    source, words = CASES[case]
    found = compile_beside({"bad-ops": source, "healthy-ops": HEALTHY})
    assert found["error"] == ""
    assert found["equal"], found
    assert len(found["warnings"]) == 1, found["warnings"]
    assert words in found["warnings"][0]
    assert found["converters"].count("healthy-ops:healthy::double") == 3


@pytest.mark.parametrize("case", CASES)
def test_strict_plugins_raise(compile_beside, case):
    source, words = CASES[case]
    found = compile_beside({"bad-ops": source, "healthy-ops": HEALTHY}, strict_plugins=True)
    assert words.replace(" is undone:", ":") in found["error"]


def test_the_healthy_plugin_alone_needs_no_warning(compile_beside):
    found = compile_beside({"healthy-ops": HEALTHY}, strict_plugins=True)
    assert (found["error"], found["warnings"], found["equal"]) == ("", [], True)
    assert not {"healthy::double", "aten::relu"} & set(found["left"])
