"""The op that stands for an engine: under torch.compile, torch.export, fake tensors and inference mode."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import trtplug
from trtplug import engine_op
from trtplug.compiled import CompiledModule
from trtplug.errors import ExecutorError


class Rows(torch.nn.Module):
    """Results of two shapes, one of them computed from the input's."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.relu(x) * 2, torch.cat([x, x]).sigmoid().flatten()


@pytest.fixture(scope="module")
def compiled() -> CompiledModule:
    shapes = {"min_shape": (2, 4), "opt_shape": (4, 4), "max_shape": (8, 4)}
    return trtplug.compile(Rows().eval(), inputs=[trtplug.Input(**shapes)], min_block_size=1, executor="reference")


X = torch.linspace(-1, 1, 20).reshape(5, 4)


def agree(results: tuple[torch.Tensor, ...], x: torch.Tensor = X) -> None:
    for ours, eager in zip(results, Rows()(x), strict=True):
        torch.testing.assert_close(ours, eager)


def test_compile_sees_one_node(compiled: CompiledModule) -> None:
    seen = []

    def backend(graph_module: torch.fx.GraphModule, inputs: object) -> object:
        seen.extend(node.target for node in graph_module.graph.nodes if node.op == "call_function")
        return graph_module.forward

    torch._dynamo.reset()
    again = torch.compile(compiled, backend=backend, fullgraph=True)
    agree(again(X))
    agree(again(X[:3]), X[:3])
    assert seen.count(engine_op.run) >= 1


def test_export_with_a_dynamic_size(compiled: CompiledModule) -> None:
    rows = torch.export.Dim("rows", min=2, max=8)
    program = torch.export.export(compiled, (X,), dynamic_shapes={"args": ({0: rows},)})
    (call,) = [node for node in program.graph.nodes if node.target is engine_op.run]
    assert [str(size) for value in call.meta["val"] for size in value.shape][1:2] == ["4"]
    agree(program.module()(X[:3]), X[:3])


def test_fake_results(compiled: CompiledModule) -> None:
    with FakeTensorMode(shape_env=ShapeEnv()) as mode:
        fake = mode.from_tensor(X)
        one, two = compiled.graph_module(fake)
    assert (tuple(one.shape), tuple(two.shape)) == ((5, 4), (40,))
    assert isinstance(one, torch._subclasses.FakeTensor)


def test_inference_mode_and_copies(compiled: CompiledModule) -> None:
    with torch.inference_mode():
        agree(copy.deepcopy(compiled.graph_module)(X))


def test_opcheck(compiled: CompiledModule) -> None:
    (module,) = [m for m in compiled.graph_module.modules() if hasattr(m, "executor")]
    torch.library.opcheck(engine_op.run, (module._key, [X], []))


def test_a_key_whose_engine_is_gone() -> None:
    shape = {"shape": (2, 4)}
    made = trtplug.compile(Rows().eval(), inputs=[trtplug.Input(**shape)], min_block_size=1, executor="reference")
    (key,) = [m._key for m in made.graph_module.modules() if hasattr(m, "executor")]
    engine_op.find(key)
    del made
    gc.collect()
    with pytest.raises(ExecutorError, match="no engine 'engine_0-"):
        engine_op.run(key, [X[:2]], [])


def test_torch_need_not_look_for_who_registers_the_op() -> None:
    """Among all modules that are loaded, which takes long: the file is that of the op registered with Torch itself."""
    fake = torch._library.simple_registry.singleton.find(engine_op.OP).fake_impl
    assert "stored_engine.py" in fake.kernel.source
