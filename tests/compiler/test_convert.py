"""The convert stage and the checked builder: what is built, and what an error says."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.export import Dim

from trtplug.convert import convert
from trtplug.errors import BuildError, ConversionError
from trtplug.network.finished import mentioned
from trtplug.ranges import Range, size_range
from trtplug_registry import Anything, Domain, Tensor, converter

aten = torch.ops.aten


class OneOp(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor) -> Any:
        result = self.function(*args)
        return tuple(result) if isinstance(result, list | tuple) else (result,)


def graph_of(function: Callable[..., Any], *args: torch.Tensor, dynamic: Any = None) -> torch.fx.GraphModule:
    shapes = (dynamic,) if dynamic is not None else None  # for *args
    return torch.export.export(OneOp(function), args, dynamic_shapes=shapes).graph_module


def relu_with(function: Callable[..., Any]) -> Callable[[Any], Any]:
    made = converter(aten.relu.default, Domain(self=Tensor()))(function)
    return lambda node: made


@pytest.fixture
def relu_graph() -> torch.fx.GraphModule:
    return graph_of(torch.relu, torch.randn(2, 3))


def good(ctx, self):
    return ctx.activation("RELU", self)


def test_layers_are_named_after_their_node(relu_graph):
    network = convert(relu_graph, relu_with(good))
    names = [network.definition.get_layer(i).name for i in range(network.num_layers)]
    assert names == ["relu.activation"]
    assert network.definition.get_layer(0).metadata == "relu:aten::relu"
    (node,) = network.nodes_of(("relu.activation",))
    assert node.target is aten.relu.default


def test_the_engine_is_real(relu_graph):
    phases = []
    network = convert(relu_graph, relu_with(good))
    plan = network.build(lambda phase, done, total: phases.append((phase, done, total)))
    assert len(plan) > 1000
    assert any(phase.startswith("Building engine") for phase, _, _ in phases)
    x = torch.randn(2, 3)
    torch.testing.assert_close(network.lift()(x), (torch.relu(x),))


# --- what goes wrong ----------------------------------------------------------------------------------------------


def refused_by_tensorrt(ctx, self):
    return ctx.add("concatenation", [self, ctx.constant(1.0)]).get_output(0)


def raises(ctx, self):
    raise ZeroDivisionError("oops")


def wrong_dtype(ctx, self):
    return ctx.cast(self, torch.float16)


def wrong_shape(ctx, self):
    return ctx.permute(self, [1, 0])


def two_results(ctx, self):
    return self, self


def not_a_tensor(ctx, self):
    return 3


def no_such_layer(ctx, self):
    return ctx.add("telepathy", self)


def no_such_attribute(ctx, self):
    return ctx.add("activation", self, ctx.trt.ActivationType.RELU, slope=3).get_output(0)


def bad_argument(ctx, self):
    return ctx.add("activation", self, "RELU").get_output(0)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (refused_by_tensorrt, "TensorRT: "),
        (raises, "raised ZeroDivisionError: oops"),
        (wrong_dtype, r"made float16\[2, 3\], the node promises float32\[2, 3\]"),
        (wrong_shape, r"made float32\[3, 2\], the node promises float32\[2, 3\]"),
        (two_results, "returned 2 results, the op has 1"),
        (not_a_tensor, "returned a int, not a network tensor"),
        (no_such_layer, "has no add_telepathy"),
        (no_such_attribute, "has no attribute 'slope'"),
        (bad_argument, "add_activation: "),
    ],
)
def test_an_error_names_op_node_line_and_tensorrts_words(relu_graph, function, words):
    with pytest.raises(ConversionError, match=words) as caught:
        convert(relu_graph, relu_with(function))
    assert caught.value.node.target is aten.relu.default
    message = str(caught.value)
    assert message.startswith("aten::relu (node 'relu', ")
    assert "test_convert.py" in message
    assert "catchCudaError" not in message


def test_a_result_that_nobody_makes_is_named():
    @converter(aten.max.dim, Domain(self=Tensor(), dim=Anything()))
    def maximum(ctx, self, dim, keepdim=False):
        return ctx.reduce("MAX", self, [dim], keepdim), None

    values = graph_of(lambda x: torch.max(x, 1)[0], torch.randn(2, 3))
    assert convert(values, lambda node: maximum).num_layers == 1
    both = graph_of(lambda x: torch.max(x, 1), torch.randn(2, 3))
    with pytest.raises(ConversionError, match=r"the converter aten::max\.dim makes no result 1, which is read"):
        convert(both, lambda node: maximum)


def test_what_tensorrt_refuses_at_build_names_our_layer():
    def out_of_bounds(ctx, self):
        return ctx.slice(self, [0, 2], [2, 3], [1, 1])

    network = convert(graph_of(torch.relu, torch.randn(2, 3)), relu_with(out_of_bounds))
    with pytest.raises(BuildError, match="TensorRT cannot build engine") as caught:
        network.build()
    assert caught.value.messages


def test_layer_names_are_found_as_whole_words():
    assert mentioned(("Error at add.shuffle: bad",), {"add.shuffle": 0, "add.shuffle.2": 0, "add": 0}) == (
        "add.shuffle",
    )


# --- constants ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.bool])
@pytest.mark.parametrize("shape", [(), (2, 3), (0, 3)])
def test_constants_of_every_dtype_and_shape(dtype, shape):
    value = torch.ones(shape, dtype=dtype)

    def constant(ctx, self):
        made = ctx.constant(value)
        assert torch.equal(ctx.frozen(made), value)
        assert ctx.constant(value) is made
        return made

    graph = graph_of(torch.relu, torch.randn(shape))
    for node in graph.graph.nodes:
        if node.target is aten.relu.default:
            node.meta["val"] = node.meta["val"].to(dtype)
    network = convert(graph, relu_with(constant))
    assert torch.equal(network.lift()(torch.randn(shape))[0], value)


def test_numbers_are_never_truncated(relu_graph):
    def add_half(ctx, self):
        return ctx.elementwise("SUM", ctx.cast(self, torch.int32), 0.5)

    with pytest.raises(ConversionError, match=r"the number 0\.5 cannot be a constant of torch\.int32"):
        convert(relu_graph, relu_with(add_half))


def test_outputs_that_are_inputs_constants_or_twice_the_same():
    def model(x):
        y = torch.relu(x)
        return y, x, y, x

    network = convert(graph_of(model, torch.randn(2)), relu_with(good))
    x = torch.tensor([-1.0, 2.0])
    torch.testing.assert_close(network.lift()(x), model(x))
    assert len(network.build()) > 0


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_sizes_are_derived_inside_the_network():
    @converter(aten.view.default, Domain(self=Tensor(), size=Anything()))
    def view(ctx, self, size):
        return ctx.reshape(self, size)

    def model(x):
        rows, columns = x.shape
        return (x.view(rows * columns), x.view(columns, rows), x.view((rows * 6) // 3, columns // 2, 1))

    dims = {0: Dim("rows", min=1, max=9), 1: 2 * Dim("half", min=1, max=8)}
    network = convert(graph_of(model, torch.randn(3, 4), dynamic=(dims,)), lambda node: view)
    assert len(network.build()) > 0
    lifted = network.lift()
    for shape in [(3, 4), (1, 2), (9, 16)]:
        x = torch.randn(shape)
        torch.testing.assert_close(lifted(x), model(x))
    (binding,) = network.inputs
    assert (binding.smallest, binding.largest) == ((2, 4), (9, 16))
    assert network.outputs[1].facts.shape == (-1, -1)


def test_size_inputs_are_int64_scalars():
    graph = graph_of(lambda x: x.view(x.shape[0]), torch.randn(3, 1), dynamic=({0: Dim("n", min=1, max=9)},))
    (symbol,) = graph.graph.find_nodes(op="placeholder")[0].meta["val"].shape[0].node.expr.free_symbols
    (size,) = graph.graph.find_nodes(op="call_function", target=aten.sym_size.int)
    with graph.graph.inserting_after(graph.graph.find_nodes(op="placeholder")[0]):
        given = graph.graph.placeholder("length")
        given.meta["val"] = size.meta["val"]
    size.replace_all_uses_with(given)
    graph.graph.erase_node(size)

    @converter(aten.view.default, Domain(self=Tensor(), size=Anything()))
    def view(ctx, self, size):
        return ctx.reshape(self, size)

    network = convert(graph, lambda node: view, ranges={symbol: Range(1, 3, 9)})
    assert [binding.size for binding in network.inputs] == [False, True]
    x = torch.randn(5, 1)
    torch.testing.assert_close(network.lift()(x, torch.tensor(5)), (x.view(5),))
    assert len(network.build()) > 0


def test_a_size_without_bound_says_what_to_do():
    graph = graph_of(torch.relu, torch.randn(3), dynamic=({0: Dim.DYNAMIC},))
    with pytest.raises(ConversionError, match="has no upper bound; give one"):
        convert(graph, relu_with(good))


def test_the_range_of_an_expression():
    graph = graph_of(torch.relu, torch.randn(6), dynamic=({0: 2 * Dim("half", min=1, max=8)},))
    size = graph.graph.find_nodes(op="placeholder")[0].meta["val"].shape[0]
    assert size_range(size, {}) == Range(4, 6, 16)  # torch.export reasons from 2
    assert size_range(7, {}) == Range(7, 7, 7)


def test_arithmetic_on_sizes_without_a_layer_is_refused():
    graph = graph_of(lambda x: x.view(x.shape[0]), torch.randn(3, 1), dynamic=({0: Dim("n", min=1, max=9)},))
    (size,) = graph.graph.find_nodes(op="call_function", target=aten.sym_size.int)
    with graph.graph.inserting_after(size):
        odd = graph.graph.call_function(operator.xor, (size, 1))
        odd.meta["val"] = size.meta["val"]
    with pytest.raises(ConversionError, match="this arithmetic on sizes has no layer"):
        convert(graph, lambda node: None)
