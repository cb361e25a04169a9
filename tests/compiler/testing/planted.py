"""Converters of a toy plugin, each with one bug planted in it, and the right ones beside them."""

from __future__ import annotations

import torch

from trtplug_registry import (
    FLOATS,
    NUMBERS,
    Axis,
    Converter,
    Domain,
    ListOf,
    Only,
    Optional,
    Relation,
    Size,
    Static,
    Tensor,
    broadcastable,
    converter,
    distinct_axes,
    same_dtype,
)

aten = torch.ops.aten

PAIR = Domain(
    broadcastable("self", "other"),
    same_dtype("self", "other"),
    self=Tensor(NUMBERS),
    other=Tensor(NUMBERS),
    alpha=Static(-8, 8),
)


def whole_alpha(domain: Domain) -> Domain:
    """With an integral alpha: eager takes no other one of integers."""

    def arrange(call, choose):  # type: ignore[no-untyped-def]  # a toy
        call["alpha"] = int(call["alpha"])

    return Domain(*domain.relations, Relation("alpha whole", ("alpha",), None, arrange), **domain.arguments)


@converter(aten.add.Tensor, whole_alpha(PAIR))
def right_add(ctx, self, other, *, alpha=1):
    return ctx.elementwise("SUM", self, ctx.elementwise("PROD", other, alpha))


@converter(aten.add.Tensor, whole_alpha(PAIR))
def alpha_dropped(ctx, self, other, *, alpha=1):
    return ctx.elementwise("SUM", self, other)


@converter(aten.add.Tensor, whole_alpha(PAIR))
def raises_on_alpha(ctx, self, other, *, alpha=1):
    if alpha < 0:
        raise KeyError("negative")
    return right_add.function(ctx, self, other, alpha=alpha)


REDUCED = Domain(
    distinct_axes("dim", "self"),
    self=Tensor(FLOATS),
    dim=Optional(ListOf(Axis("self"))),
    keepdim=Only(False, True),
)


@converter(aten.sum.dim_IntList, REDUCED)
def right_sum(ctx, self, dim, keepdim=False, *, dtype=None):
    if not ctx.rank(self):
        return self
    return ctx.reduce("SUM", self, dim or range(ctx.rank(self)), keepdim)


@converter(aten.sum.dim_IntList, REDUCED)
def no_axes_means_none(ctx, self, dim, keepdim=False, *, dtype=None):
    if not ctx.rank(self):
        return self
    return ctx.reduce("SUM", self, dim if dim is not None else range(ctx.rank(self)), keepdim)


@converter(aten.sum.dim_IntList, REDUCED)
def negative_axis_misread(ctx, self, dim, keepdim=False, *, dtype=None):
    if not ctx.rank(self):
        return self
    axes = [axis if axis >= 0 else (axis + 1) % ctx.rank(self) for axis in dim or range(ctx.rank(self))]
    return ctx.reduce("SUM", self, list(dict.fromkeys(axes)), keepdim)


@converter(aten.sum.dim_IntList, Domain(distinct_axes("dim", "self"), **{**REDUCED.arguments, "self": Tensor(NUMBERS)}))
def dtype_lie(ctx, self, dim, keepdim=False, *, dtype=None):
    """Eager sums int32 into int64."""
    return right_sum.function(ctx, self, dim, keepdim)


@converter(aten.relu.default, Domain(self=Tensor((torch.float32,), because="no reason at all")))
def needlessly_narrow(ctx, self):
    return ctx.activation("RELU", self)


@converter(aten.relu.default, Domain(self=Tensor(FLOATS, zero_size=False)))
def needlessly_not_empty(ctx, self):
    return ctx.activation("RELU", self)


@converter(aten.exp.default, Domain(self=Tensor(FLOATS)), dynamic_shapes=False)
def needlessly_static(ctx, self):
    return ctx.unary("EXP", self)


@converter(aten.exp.default, Domain(self=Tensor(FLOATS)))
def right_exp(ctx, self):
    return ctx.unary("EXP", self)


@converter(aten.exp.default, Domain(self=Tensor(NUMBERS)))
def missing_restriction(ctx, self):
    """TensorRT has no exponential of integers, nor does eager return integers."""
    return ctx.unary("EXP", self)


@converter(aten.view.default, Domain(self=Tensor(FLOATS), size=ListOf(Size())))
def undescribed(ctx, self, size):
    """Says nothing of how size and self belong together: eager refuses most of what is drawn."""
    return ctx.reshape(self, size)


def _as_many(call, choose):  # type: ignore[no-untyped-def]  # a toy
    call["size"] = [call["self"].numel] if choose.boolean() else list(call["self"].shape)


FLAT = Domain(Relation("as many", ("size", "self"), None, _as_many), self=Tensor(FLOATS), size=ListOf(Size()))


@converter(aten.view.default, FLAT)
def right_view(ctx, self, size):
    return ctx.reshape(self, size)


UNSQUEEZED = Domain(self=Tensor(FLOATS, rank=(1, 7)), dim=Axis("self", insert=True))


@converter(aten.unsqueeze.default, UNSQUEEZED)
def example_sizes_baked_in(ctx, self, dim):
    """Takes the sizes that the graph was traced with for the sizes."""
    sizes = [size if isinstance(size, int) else size.node.hint for size in ctx.node.meta["val"].shape]
    return ctx.reshape(self, sizes)


@converter(aten.unsqueeze.default, UNSQUEEZED)
def leaves_a_guard(ctx, self, dim):
    """Asks for the value of a symbolic size."""
    return ctx.reshape(self, [int(size) for size in ctx.node.meta["val"].shape])


@converter(aten.sigmoid.default, Domain(Relation("raises", ("self",), lambda call: 1 // 0 > 0), self=Tensor(FLOATS)))
def asking_raises(ctx, self):
    return ctx.activation("SIGMOID", self)


@converter(aten.relu.default, Domain(self=Tensor(FLOATS)))
def does_not_build(ctx, self):
    """Goes through a deconvolution by one: TensorRT only says when it builds that it has none of bfloat16."""
    image = ctx.reshape(self, [1, 1, -1, 1]) if 0 not in ctx.sizes(self) else self
    if image is not self:
        kernel = ctx.constant(torch.ones(1, 1, 1, 1, dtype=ctx.dtype(self)))
        layer = ctx.add("deconvolution_nd", image, 1, (1, 1), ctx.trt.Weights(), inputs={1: kernel})
        image = ctx.reshape(layer.get_output(0), ctx.sizes(self))
    return ctx.activation("RELU", image)


PLANTED: tuple[Converter, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Converter))
