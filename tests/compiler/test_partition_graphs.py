"""Graphs made by hand for the partition's tests, and the checks that hold for every partition; with their own tests."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from trtplug.partition import Partition, extract, link, partition

aten = torch.ops.aten
relu, sin, exp, add, mul = (
    aten.relu.default,
    aten.sin.default,
    aten.exp.default,
    aten.add.Tensor,
    aten.mul.Tensor,
)
OUTER = ("placeholder", "get_attr", "output")


class Maker:
    """Builds a lowered graph node by node, fake values in `meta["val"]`."""

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
        self.attributes: dict[str, torch.Tensor] = {}

    def input(
        self, name: str, shape: Sequence[int], dynamic: Sequence[int] = (), dtype: Any = torch.float32
    ) -> fx.Node:
        """A tensor placeholder; the dims in `dynamic` are symbols of their own, with `shape` as their hints."""
        kinds = [DimDynamic.DYNAMIC if dim in dynamic else DimDynamic.STATIC for dim in range(len(shape))]
        fake = self.mode.from_tensor(
            torch.zeros(tuple(shape), dtype=dtype),
            source=ConstantSource(name),
            symbolic_context=StatelessSymbolicContext(dynamic_sizes=kinds),
        )
        return self.with_val(self.graph.placeholder(name), fake)

    def value(self, name: str, val: object) -> fx.Node:
        """A placeholder of any value, such as a SymInt."""
        return self.with_val(self.graph.placeholder(name), val)

    def weight(self, name: str, tensor: torch.Tensor) -> fx.Node:
        self.attributes[name] = tensor
        return self.with_val(self.graph.create_node("get_attr", name), self.mode.from_tensor(tensor))

    def call(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        node = self.graph.call_function(target, args, kwargs)
        vals, kwvals = fx.map_arg((args, kwargs), lambda n: n.meta["val"])
        with self.mode:
            return self.with_val(node, target(*vals, **kwvals))

    def size(self, node: fx.Node, dim: int) -> fx.Node:
        read = self.graph.call_function(aten.sym_size.int, (node, dim))
        return self.with_val(read, node.meta["val"].shape[dim])

    def with_val(self, node: fx.Node, val: object) -> fx.Node:
        node.meta["val"] = val
        node.meta["stack_trace"] = f"line of {node.name}"
        node.meta["nn_module_stack"] = {node.name: ("path", nn.Module)}
        node.meta["custom"] = {"of": node.name}
        return node

    def done(self, *outputs: Any) -> fx.GraphModule:
        self.graph.output(outputs)
        self.graph.lint()
        root: dict[str, Any] = dict(self.attributes)
        return fx.GraphModule(root, self.graph)


def sample(*shape: int) -> torch.Tensor:
    return torch.linspace(-2, 3, torch.Size(shape).numel()).reshape(shape)


def names(nodes: Iterable[fx.Node]) -> list[str]:
    return [node.name for node in nodes]


def refusing(*refused: str | fx.Node) -> Callable[[fx.Node], bool]:
    """A `supported` that refuses the given nodes or op names."""
    ops = {r for r in refused if isinstance(r, str)}
    nodes = {r for r in refused if isinstance(r, fx.Node)}
    return lambda node: node not in nodes and str(node.target).split(".")[1] not in ops


def linked(gm: fx.GraphModule, parts: Partition) -> fx.GraphModule:
    """The outer module, the blocks run in eager Torch."""
    return link(gm, parts, [extract(gm, block) for block in parts.blocks])


def check_equal(ours: Sequence[Any], eager: Sequence[Any]) -> None:
    """dtype, then shape, then values."""
    assert len(ours) == len(eager)
    for position, (got, want) in enumerate(zip(ours, eager, strict=True)):
        if not isinstance(want, torch.Tensor):
            assert got == want, f"output {position}"
            continue
        assert (position, got.dtype) == (position, want.dtype)
        assert (position, got.shape) == (position, want.shape)
        torch.testing.assert_close(
            got, want, rtol=0, atol=0, equal_nan=True, msg=lambda m, p=position: f"output {p}: {m}"
        )


def check_runs(gm: fx.GraphModule, parts: Partition, *inputs: Any) -> fx.GraphModule:
    """The linked module does what `gm` does, to the same bits and with the same writes to inputs and buffers."""
    outer = linked(gm, parts)
    copies = [x.clone() if isinstance(x, torch.Tensor) else x for x in inputs]
    state = {name: tensor.clone() for name, tensor in gm.state_dict().items()}
    eager = [x.clone() if isinstance(x, torch.Tensor) else x for x in gm(*inputs)]
    after = {name: tensor.clone() for name, tensor in gm.state_dict().items()}
    for name, tensor in gm.state_dict().items():
        tensor.copy_(state[name])
    check_equal(outer(*copies), eager)
    check_equal(copies, inputs)
    check_equal(list(gm.state_dict().values()), list(after.values()))
    for name, tensor in gm.state_dict().items():
        tensor.copy_(state[name])
    return outer


def check_shape_of(gm: fx.GraphModule, parts: Partition) -> None:
    """Whatever holds for every partition, extracted block and linked module, apart from numbers and minimality."""
    inside = [node for block in parts.blocks for node in block.nodes]
    assert len(set(inside)) == len(inside), "a node in two blocks"
    assert not set(inside) & set(parts.torch_nodes)
    order = {node: i for i, node in enumerate(gm.graph.nodes)}
    for index, block in enumerate(parts.blocks):
        assert block.index == index
        assert block.outputs, f"block {index} makes nothing that is read"
        for field in ("nodes", "copies", "inputs", "outputs", "sizes"):
            nodes = getattr(block, field)
            assert len(set(nodes)) == len(nodes), field
            if field != "copies":
                assert list(nodes) == sorted(nodes, key=order.__getitem__), field
        for node in (*block.inputs, *block.outputs):
            assert isinstance(node.meta["val"], torch.Tensor), f"{node} crosses the border of block {index}"
        for node in block.sizes:
            assert isinstance(node.meta["val"], torch.SymInt), f"{node} is a size input of block {index}"
        check_extracted(gm, extract(gm, block), block)
    check_linked(gm, linked(gm, parts), parts)


def check_extracted(gm: fx.GraphModule, alone: fx.GraphModule, block: Any) -> None:
    alone.graph.lint()
    nodes = {node.name: node for node in alone.graph.nodes}
    placeholders = [node for node in alone.graph.nodes if node.op == "placeholder"]
    assert names(placeholders) == names((*block.inputs, *block.sizes))
    for original in (*block.inputs, *block.sizes, *block.nodes):
        assert nodes[original.name].meta == original.meta, original.name
    for node in alone.graph.nodes:
        if node.op == "get_attr":
            shared = operator.attrgetter(str(node.target))
            assert shared(alone).data_ptr() == shared(gm).data_ptr(), f"{node} is a copy of the data"
        if node.op == "call_function":
            assert "val" in node.meta, node
    (output,) = [node for node in alone.graph.nodes if node.op == "output"]
    assert isinstance(output.args[0], tuple)
    assert names(output.args[0]) == names(block.outputs)


def check_linked(gm: fx.GraphModule, outer: fx.GraphModule, parts: Partition) -> None:
    outer.graph.lint()
    ours, theirs = ([n for n in g.graph.nodes if n.op == "placeholder"] for g in (outer, gm))
    assert [(n.name, n.target, n.meta) for n in ours] == [(n.name, n.target, n.meta) for n in theirs]
    calls = [node for node in outer.graph.nodes if node.op == "call_module" and str(node.target).startswith("engine_")]
    assert sorted(str(call.target) for call in calls) == sorted(f"engine_{block.index}" for block in parts.blocks)
    for call in calls:
        block = parts.blocks[int(str(call.target).removeprefix("engine_"))]
        vals = [arg.meta["val"] if isinstance(arg, fx.Node) else arg for arg in call.args]
        tensors, sizes = vals[: len(block.inputs)], vals[len(block.inputs) :]
        assert all(isinstance(val, torch.Tensor) for val in tensors)
        assert len(sizes) == len(block.sizes)
        assert all(isinstance(val, torch.SymInt | int) for val in sizes)
        assert all(user.target is operator.getitem for user in call.users)
        assert all(isinstance(user.meta["val"], torch.Tensor) for user in call.users)
    left = {node.name for node in parts.torch_nodes}
    assert left <= set(names(outer.graph.nodes))
    assert not {node.name for b in parts.blocks for node in b.nodes if node not in b.outputs} & set(
        names(n for n in outer.graph.nodes if n.op == "call_function")
    )
    for node in outer.graph.nodes:
        assert node.users or node.op in ("placeholder", "output", "call_module") or node.name in left, f"dead: {node}"


def test_the_checks_notice_a_wrong_partition() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    a = make.call(aten.relu.default, x)
    b = make.call(aten.sin.default, a)
    gm = make.done(b)
    parts = partition(gm, refusing("sin"))
    check_shape_of(gm, parts)
    other = partition(gm, refusing())
    mixed = Partition((*parts.blocks, *other.blocks), parts.torch_nodes, {}, parts.flow)
    with pytest.raises(AssertionError, match="two blocks"):
        check_shape_of(gm, mixed)


def test_the_maker_gives_symbols_and_metadata() -> None:
    make = Maker()
    x = make.input("x", (3, 4), dynamic=[0])
    total = make.call(aten.sum.dim_IntList, x, [1])
    assert isinstance(total.meta["val"].shape[0], torch.SymInt)
    assert total.meta["val"].shape[0] == x.meta["val"].shape[0]
    check_equal(make.done(total)(torch.ones(5, 4)), (torch.full((5,), 4.0),))


def test_equal_means_dtype_shape_and_values() -> None:
    check = functools.partial(check_equal, [torch.ones(2)])
    check([torch.ones(2)])
    for other in (torch.ones(2, dtype=torch.int64), torch.ones(1), torch.zeros(2)):
        with pytest.raises(AssertionError):
            check([other])
