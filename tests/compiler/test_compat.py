"""Converters written for Torch-TensorRT: they convert, their validators refuse, examples prove them."""

from __future__ import annotations

import types

import pytest
import torch
from torch import nn

import trtplug
from trtplug.compat import ConverterPriority, dynamo_tensorrt_converter, trt
from trtplug.testing import Status, plugin_cases
from trtplug_registry import DeclarationError, Example, PluginManager, Registry

aten = torch.ops.aten


def small(node, settings):
    """A validator as Torch-TensorRT has them."""
    assert settings.use_explicit_typing
    return node.meta["val"].dim() <= 2


# as in a plugin of Torch-TensorRT: positions, layer names of its own, keywords of the TensorRT API
@dynamo_tensorrt_converter(
    aten.erf.default, capability_validator=small, priority=ConverterPriority.HIGH, supports_dynamic_shapes=True
)
def erf(ctx, target, args, kwargs, name):
    layer = ctx.net.add_unary(args[0], trt.UnaryOperation.ERF)
    layer.name = "the same name for all"
    return layer.get_output(0)


@dynamo_tensorrt_converter(aten.sub)
def sub(ctx, target, args, kwargs, name):
    assert target is aten.sub.Tensor
    assert kwargs == {"alpha": 1} or not kwargs
    operation = trt.ElementWiseOperation.SUB
    return ctx.net.add_elementwise(input1=args[0], input2=args[1], op=operation).get_output(0)


def installed(*converters, examples=()):
    manager = PluginManager(strict=True)
    manager.load_entry_points()
    hooks = {"trtplug_converters": lambda: list(converters), "trtplug_examples": lambda: list(examples)}
    manager.register(types.SimpleNamespace(trtplug_contract=1, **hooks), "ported")
    return Registry(manager.plugins)


class Model(nn.Module):
    def forward(self, x, y):
        return torch.erf(x) - torch.erf(y), torch.erf(x[None])


def test_ported_converters_convert():
    batch = trtplug.Input(min_shape=(1, 3), opt_shape=(2, 3), max_shape=(8, 3))
    registry = installed(erf)
    compiled = trtplug.compile(Model(), inputs=[batch, batch], registry=registry, min_block_size=1)
    by_op = {}
    for node in compiled.report.nodes:
        by_op.setdefault(node.op, []).append(node.converter)
    assert by_op["aten::erf"] == ["ported:aten::erf", "ported:aten::erf", "trtplug-converters:aten::erf"]
    for size in (1, 8):
        x, y = torch.randn(size, 3), torch.randn(size, 3)
        torch.testing.assert_close(compiled(x, y), Model()(x, y))


def test_a_packet_is_one_converter_for_each_overload():
    assert {c.target_name for c in sub} >= {"aten::sub.Tensor", "aten::sub.Scalar"}
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    registry = installed(sub)
    compiled = trtplug.compile(Model(), (x, y), registry=registry, min_block_size=1)
    assert "ported:aten::sub.Tensor" in {node.converter for node in compiled.report.nodes}
    torch.testing.assert_close(compiled(x, y), Model()(x, y))


def test_the_validator_is_a_reason():
    registry = installed(erf)
    exported = torch.export.export(Model(), (torch.randn(2, 3), torch.randn(2, 3)))
    *_, last = (node for node in exported.graph.nodes if node.target is aten.erf.default)
    reasons = {c.converter.id: c.reason for c in registry.explain(last).candidates}
    assert "small() refuses the node" in str(reasons["ported:aten::erf"])


def test_nothing_is_proven_without_examples():
    def status(*examples):
        cases = plugin_cases("ported", installed(erf, examples=examples))
        return {case.law: case.judge().status for case in cases if case.kind == "converter"}

    assert status() == {"equals-eager": Status.UNPROVEN, "order": Status.HOLDS}
    shown = status(Example("aten::erf", torch.erf, lambda: (torch.randn(3),)))
    assert shown == {"example": Status.HOLDS, "order": Status.HOLDS}


@pytest.mark.parametrize("what", ["mark_output", "add_input", "num_layers"])
def test_the_network_is_a_checked_proxy(what):
    @dynamo_tensorrt_converter(aten.erf.default, priority=9)
    def nosy(ctx, target, args, kwargs, name):
        return getattr(ctx.net, what)

    x = torch.randn(2, 3)
    with pytest.warns(trtplug.FallbackWarning, match=f"ctx.net.{what} is not offered by trtplug"):
        compiled = trtplug.compile(Model(), (x, x), registry=installed(nosy), min_block_size=1)
    torch.testing.assert_close(compiled(x, x), Model()(x, x))


def test_what_cannot_be_ported_says_so():
    with pytest.raises(DeclarationError, match="takes ctx, x, not ctx, target, args, kwargs, name"):
        dynamo_tensorrt_converter(aten.erf.default)(lambda ctx, x: x)
    with pytest.raises(DeclarationError, match=r"must be an op of torch\.ops"):
        dynamo_tensorrt_converter("aten::erf")
    with pytest.raises(DeclarationError, match="sizes depend on data"):
        dynamo_tensorrt_converter(aten.nonzero.default, requires_output_allocator=True)
    assert dynamo_tensorrt_converter(aten.erf.default, enabled=False)(five) == ()


def five(ctx, target, args, kwargs, name): ...
