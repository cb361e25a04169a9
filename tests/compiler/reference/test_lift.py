"""What lifting promises apart from the numbers: readable graphs, independence of the network, strictness, weights."""

from __future__ import annotations

import copy
import gc
import importlib
import weakref
from typing import Any

import pytest
import torch
from handmade import Handmade, trt

from trtplug.reference import LayerError, LiftedModule, MissingWeights, UnsupportedLayer, lift
from trtplug_registry import TrtplugError

F32, F16, BF16, I32 = torch.float32, torch.float16, torch.bfloat16, torch.int32
PLAIN = (int, float, bool, str, type(None), torch.dtype)


def classifier(made: Handmade) -> list[Any]:
    """Convolution, pooling, flattening, top-k: two outputs."""
    kernel = torch.randn(4, 3, 3, 3)
    x = made.input("pixel values", F32, -1, 3, 8, 8)
    layer = made.network.add_convolution_nd(x, 4, (3, 3), made.weights(kernel), made.weights(torch.randn(4)))
    layer.padding_nd = (1, 1)
    layer.name = "/stem/conv"
    pool = made.network.add_pooling_nd(layer.get_output(0), trt.PoolingType.AVERAGE, (8, 8))
    flat = made.network.add_shuffle(pool.get_output(0))
    flat.reshape_dims = (0, -1)
    flat.name = "forward"  # a method of every module
    top = made.network.add_topk(flat.get_output(0), trt.TopKOperation.MAX, 2, 2)
    return [flat.get_output(0), top.get_output(1)]


def test_names_and_order() -> None:
    made = Handmade()
    module = made.lift(*classifier(made))
    assert isinstance(module, LiftedModule)
    assert [node.target for node in module.graph.nodes if node.op == "placeholder"] == ["pixel_values"]
    assert "stem_conv_kernel" in dict(module.named_buffers())
    assert "def forward(self, pixel_values)" in module.code
    scores, places = module(torch.randn(5, 3, 8, 8))
    assert scores.shape == (5, 4)
    assert places.dtype is I32


def test_nothing_of_the_network_is_kept() -> None:
    made = Handmade()
    module = made.lift(*classifier(made))
    before = [t.clone() for t in module(torch.ones(1, 3, 8, 8))]
    watched = weakref.ref(made)
    del made
    gc.collect()
    assert watched() is None
    for copied in (module, copy.deepcopy(module)):
        assert isinstance(copied, LiftedModule)
        assert all(torch.equal(a, b) for a, b in zip(copied(torch.ones(1, 3, 8, 8)), before, strict=True))


def test_nodes_are_importable_functions_of_plain_constants() -> None:
    made = Handmade()
    module = made.lift(*classifier(made))
    for node in module.graph.nodes:
        if node.op == "call_function":
            assert getattr(importlib.import_module(node.target.__module__ or "torch"), node.target.__name__)
        else:
            assert node.op in ("placeholder", "get_attr", "output")
        leaves: list[Any] = []
        torch.fx.node.map_aggregate((node.args, node.kwargs), leaves.append)
        assert all(isinstance(leaf, (torch.fx.Node, *PLAIN)) for leaf in leaves), node


def test_shapes_and_dtypes_are_asserted() -> None:
    made = Handmade()
    module = made.lift(*classifier(made))
    for wrong in (torch.randn(1, 3, 8, 9), torch.randn(1, 3, 8, 8).half(), torch.randn(3, 8, 8)):
        with pytest.raises(LayerError, match=r"layer 'pixel values' \(INPUT\): TensorRT infers torch.float32"):
            module(wrong)


def test_check_can_be_left_out() -> None:
    made = Handmade()
    module = made.lift(*classifier(made), check=False)
    assert "expect" not in module.code
    assert len(module(torch.randn(2, 3, 8, 8))) == 2


def test_errors_of_torch_name_the_layer() -> None:
    made = Handmade()
    a, b = made.input("a", F32, -1), made.input("b", F32, -1)
    layer = made.network.add_elementwise(a, b, trt.ElementWiseOperation.SUM)
    layer.name = "blocks.0.add"
    module = made.lift(layer.get_output(0))
    with pytest.raises(LayerError, match=r"layer 'blocks.0.add' \(ELEMENTWISE\)") as caught:
        module(torch.ones(2), torch.ones(3))
    assert (caught.value.layer, caught.value.kind) == ("blocks.0.add", "ELEMENTWISE")
    assert isinstance(caught.value, TrtplugError)


OUT_OF_RANGE = {
    "gather": lambda made, x, i: made.network.add_gather(x, i, 0),
    "gather elements": lambda made, x, i: made.network.add_gather_v2(x, i, trt.GatherMode.ELEMENT),
    "scatter elements": lambda made, x, i: made.network.add_scatter(x, i, i_as_float(made, i), trt.ScatterMode.ELEMENT),
}


def i_as_float(made: Handmade, index: Any) -> Any:
    return made.network.add_cast(index, trt.float32).get_output(0)


@pytest.mark.parametrize("index", [3, -4])
@pytest.mark.parametrize("case", OUT_OF_RANGE)
def test_index_out_of_range(case: str, index: int) -> None:
    made = Handmade()
    layer = OUT_OF_RANGE[case](made, made.input("x", F32, 3), made.input("i", I32, 1))
    module = made.lift(layer.get_output(0))
    for fine in (0, -3):
        module(torch.arange(3.0), torch.tensor([fine], dtype=I32))
    with pytest.raises(LayerError, match=f"index {index} is outside an axis of size 3"):
        module(torch.arange(3.0), torch.tensor([index], dtype=I32))


def test_slice_out_of_range() -> None:
    made = Handmade()
    layer = made.network.add_slice(made.input("x", F32, -1), (1,), (3,), (1,))
    module = made.lift(layer.get_output(0))
    assert module(torch.arange(4.0))[0].tolist() == [1, 2, 3]
    with pytest.raises(LayerError, match=r"SLICE.*leaves axis 0 of \[3\]"):
        module(torch.arange(3.0))


def test_topk_has_a_limit() -> None:
    made = Handmade()
    layer = made.network.add_topk(made.input("x", F32, 1, 5000), trt.TopKOperation.MAX, 1, 2)
    layer.set_input(1, made.input("k", I32))
    module = made.lift(layer.get_output(0))
    with pytest.raises(LayerError, match="top 3841 of 5000"):
        module(torch.zeros(1, 5000), torch.tensor(3841, dtype=I32))


def test_unknown_kind_is_refused() -> None:
    if not hasattr(trt.INetworkDefinition, "add_dynamic_quantize"):
        pytest.skip("this TensorRT has no dynamic quantization")
    made = Handmade()
    layer = made.network.add_dynamic_quantize(made.input("x", F32, 2, 32), 1, 16, trt.fp4, trt.fp8)
    layer.set_input(1, made.constant(torch.tensor(1.0)))
    with pytest.raises(UnsupportedLayer, match="DYNAMIC_QUANTIZE") as caught:
        made.lift(layer.get_output(0))
    assert caught.value.kind == "DYNAMIC_QUANTIZE"


def test_network_that_tensorrt_rejects_is_refused() -> None:
    made = Handmade()
    pair = made.input("a", F32, 2), made.input("b", F16, 2)
    layer = made.network.add_elementwise(*pair, trt.ElementWiseOperation.SUM)
    with pytest.raises(UnsupportedLayer, match="TensorRT cannot infer the shape"):
        made.lift(layer.get_output(0))


def test_bfloat16_weights_come_from_the_table() -> None:
    made = Handmade()
    weight = torch.tensor([1.0, 2.0, 3.0], dtype=BF16)
    layer = made.network.add_elementwise(made.input("x", BF16, 3), made.constant(weight), trt.ElementWiseOperation.PROD)
    made.network.mark_output(layer.get_output(0))
    module = lift(made.network, made.table)
    x = torch.tensor([1.5, 1.0078125, 3.0], dtype=BF16)
    assert torch.equal(module(x)[0], (x.float() * weight.float()).bfloat16())
    with pytest.raises(MissingWeights, match=r"does not hand BF16 weights back.*constant_0"):
        lift(made.network, {})
    with pytest.raises(UnsupportedLayer, match=r"the weight table holds torch.float32"):
        lift(made.network, {"constant_0": weight.float()})


def test_weights_of_a_convolution_come_from_the_table() -> None:
    made = Handmade()
    kernel = torch.randn(2, 1, 1, 1).bfloat16()
    layer = made.network.add_convolution_nd(made.input("x", BF16, 1, 1, 2, 2), 2, (1, 1), made.weights(kernel))
    layer.name = "conv"
    with pytest.raises(MissingWeights, match=r"'conv\.kernel'"):
        made.lift(layer.get_output(0))
    (y,) = lift(made.network, {"conv.kernel": kernel})(torch.ones(1, 1, 2, 2, dtype=BF16))
    assert torch.equal(y[0, :, 0, 0], kernel.flatten())


def test_inputs_whose_names_clash() -> None:
    made = Handmade()
    tensors = [made.input(name, F32, 2) for name in ("a.b", "a_b", "class", "self")]
    total = made.network.add_concatenation(tensors).get_output(0)
    values = [torch.full((2,), float(i)) for i in range(4)]
    assert made.run(total, *values).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_output_may_be_an_input_or_a_constant() -> None:
    made = Handmade()
    x = made.input("x", F32, 2)
    constant = made.constant([1.0, 2.0])
    same, kept = made.lift(made.network.add_identity(x).get_output(0), constant)(torch.tensor([3.0, 4.0]))
    assert same.tolist() == [3.0, 4.0]
    assert kept.tolist() == [1.0, 2.0]


def test_layers_in_any_order_of_insertion() -> None:
    made = Handmade()
    x = made.input("x", F32, 2)
    late = made.network.add_unary(x, trt.UnaryOperation.EXP)
    early = made.network.add_unary(x, trt.UnaryOperation.NEG)
    late.set_input(0, early.get_output(0))  # the first layer now depends on the second
    torch.testing.assert_close(made.run(late.get_output(0), torch.tensor([0.0, 1.0])), torch.tensor([0.0, -1.0]).exp())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu() -> None:
    made = Handmade()
    outputs = classifier(made)
    size = made.network.add_shape(outputs[0]).get_output(0)
    fill = made.network.add_fill((1, 1), trt.FillOperation.LINSPACE, trt.float32)
    fill.set_input(0, size)
    fill.set_input(1, made.constant(torch.tensor(1.0)))
    fill.set_input(2, made.constant([1.0, 0.5]))
    total = made.network.add_elementwise(outputs[0], fill.get_output(0), trt.ElementWiseOperation.SUM)
    module = made.lift(*outputs, total.get_output(0))
    x = torch.randn(3, 3, 8, 8)
    here = module(x)
    there = module.to("cuda")(x.cuda())
    for ours, theirs in zip(here, there, strict=True):
        assert theirs.is_cuda
        torch.testing.assert_close(theirs.cpu(), ours, rtol=1e-4, atol=1e-4)
