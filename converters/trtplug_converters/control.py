"""Conditionals and loops, whose bodies are converted whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence

from trtplug_registry import (
    BOOL,
    Body,
    Converter,
    ConverterContext,
    Domain,
    Either,
    ListOf,
    NetworkBody,
    NetworkTensor,
    Operand,
    Relation,
    Size,
    Tensor,
    converter,
    tensors_in,
)

OPERANDS = ListOf(Either(Tensor(), Size()))
STATES = ListOf(Tensor(), because="TensorRT's recurrences are tensors")

NOT_NESTED = (
    "TensorRT-RTX builds some conditionals and loops within conditionals and scans, and fails at others"
    " (MyelinCheckException, graphScope.cpp)"
)
LEAF = Body(0, because=NOT_NESTED)
SHALLOW = Body(1, because=NOT_NESTED)


def _one_element(name: str) -> Relation:
    return Relation(
        f"{name} of one element",
        (name,),
        lambda call: all(size == 1 for facts in tensors_in(call[name]) for size in facts.shape),
        because="TensorRT's condition is one bool",
    )


def _scalar(ctx: ConverterContext, condition: NetworkTensor) -> NetworkTensor:
    return ctx.reshape(condition, []) if ctx.rank(condition) else condition


@converter(
    "higher_order::cond",
    Domain(_one_element("pred"), pred=Tensor(BOOL, rank=(0, 8)), true_fn=LEAF, false_fn=LEAF, operands=OPERANDS),
)
def cond(
    ctx: ConverterContext,
    pred: NetworkTensor,
    true_fn: NetworkBody,
    false_fn: NetworkBody,
    operands: Sequence[Operand],
) -> tuple[NetworkTensor, ...]:
    """cond(Tensor pred, Body true_fn, Body false_fn, Tensor[] operands) -> Tensor[]"""
    return ctx.conditional(
        _scalar(ctx, pred), lambda: ctx.inline(true_fn, operands), lambda: ctx.inline(false_fn, operands)
    )


@converter(
    "higher_order::while_loop",
    Domain(cond_fn=LEAF, body_fn=SHALLOW, carried_inputs=STATES, additional_inputs=OPERANDS),
)
def while_loop(
    ctx: ConverterContext,
    cond_fn: NetworkBody,
    body_fn: NetworkBody,
    carried_inputs: Sequence[NetworkTensor],
    additional_inputs: Sequence[Operand],
) -> tuple[NetworkTensor, ...]:
    """while_loop(Body cond_fn, Body body_fn, Tensor[] carried_inputs, Tensor[] additional_inputs) -> Tensor[]"""

    def goes_on(states: Sequence[NetworkTensor]) -> NetworkTensor:
        (flag,) = ctx.inline(cond_fn, [*states, *additional_inputs])
        return _scalar(ctx, flag)

    def step(states: Sequence[NetworkTensor], _: object) -> tuple[Sequence[NetworkTensor], tuple[()]]:
        return ctx.inline(body_fn, [*states, *additional_inputs]), ()

    return ctx.loop(step, carried_inputs, condition=goes_on)[0]


@converter(
    "higher_order::scan",
    Domain(
        combine_fn=LEAF,
        init=STATES,
        xs=ListOf(Tensor(rank=(1, 8), zero_size=False), shortest=1),
        additional_inputs=OPERANDS,
    ),
)
def scan(
    ctx: ConverterContext,
    combine_fn: NetworkBody,
    init: Sequence[NetworkTensor],
    xs: Sequence[NetworkTensor],
    additional_inputs: Sequence[Operand],
) -> tuple[NetworkTensor, ...]:
    """scan(Body combine_fn, Tensor[] init, Tensor[] xs, Tensor[] additional_inputs) -> Tensor[]"""

    def step(
        states: Sequence[NetworkTensor], elements: Sequence[NetworkTensor]
    ) -> tuple[Sequence[NetworkTensor], Sequence[NetworkTensor]]:
        results = ctx.inline(combine_fn, [*states, *elements, *additional_inputs])
        return results[: len(init)], results[len(init) :]

    states, collected = ctx.loop(step, init, count=ctx.sizes(xs[0])[0], sequences=xs)
    return (*states, *collected)


CONVERTERS: tuple[Converter, ...] = (cond, while_loop, scan)
