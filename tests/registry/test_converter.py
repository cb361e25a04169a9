"""A converter's parameters are the schema's; a domain leaves nothing open."""

from __future__ import annotations

import functools
import inspect

import pytest
import torch

from trtplug_registry import FLOATS, Anything, DeclarationError, Domain, Static, Tensor, converter, converter_table
from trtplug_registry.conversion import _parameters

aten = torch.ops.aten
BINARY = Domain(self=Tensor(), other=Tensor(), alpha=Static())


def test_parameters_are_the_schemas():
    @converter(aten.add.Tensor, BINARY)
    def add(ctx, self, other, *, alpha=1): ...

    assert add.overloads() == (aten.add.Tensor,)
    assert add.name == "add"
    assert add.id == "aten::add.Tensor"


def wrong_name(ctx, self, others, *, alpha=1): ...
def wrong_default(ctx, self, other, *, alpha=2): ...
def wrong_type_of_default(ctx, self, other, *, alpha=True): ...
def not_keyword_only(ctx, self, other, alpha=1): ...
def too_few(ctx, self, other): ...


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (wrong_name, "the schema's are"),
        (wrong_default, "the default of 'alpha' is 2, the schema's is 1"),
        (wrong_type_of_default, "the default of 'alpha' is True, the schema's is 1"),
        (not_keyword_only, "'alpha' is keyword-only in the schema"),
        (too_few, "the schema's are"),
    ],
)
def test_a_mismatch_with_the_schema_is_an_error_when_the_converter_is_made(function, words):
    with pytest.raises(DeclarationError, match=words):
        converter(aten.add.Tensor, BINARY)(function)


def test_the_domain_must_speak_of_every_argument_without_default():
    with pytest.raises(DeclarationError, match="says nothing of 'other'"):

        @converter(aten.add.Tensor, Domain(self=Tensor()))
        def add(ctx, self, other, *, alpha=1): ...


def test_the_domain_must_not_speak_of_arguments_that_are_not_there():
    with pytest.raises(DeclarationError, match="no argument beta"):

        @converter(aten.add.Tensor, Domain(self=Tensor(), other=Tensor(), beta=Static()))
        def add(ctx, self, other, *, alpha=1): ...


def test_a_packet_means_the_overloads_that_share_the_signature():
    @converter(aten.add, Domain(self=Tensor(), other=Anything(), alpha=Static()))
    def add(ctx, self, other, *, alpha=1): ...

    assert aten.add.Tensor in add.overloads()
    assert aten.add.out not in add.overloads()


def test_a_packet_none_of_whose_overloads_fit_says_why():
    with pytest.raises(DeclarationError, match="fits no overload"):

        @converter(aten.add, BINARY)
        def add(ctx, first, second): ...


def test_a_name_is_resolved_when_its_library_is_loaded():
    @converter("trtplug_test_late::double", Domain(x=Tensor()))
    def double(ctx, x): ...

    assert double.overloads() == ()

    @torch.library.custom_op("trtplug_test_late::double", mutates_args=())
    def op(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    assert double.overloads() == (torch.ops.trtplug_test_late.double.default,)


def test_a_table_makes_one_converter_per_row():
    @converter_table({aten.exp.default: "EXP", aten.log.default: "LOG"}, Domain(self=Tensor(FLOATS)))
    def unary(op, ctx, self):
        return op

    assert [(c.target, c.function(None, None)) for c in unary] == [(aten.exp.default, "EXP"), (aten.log.default, "LOG")]


def _of_every_kind():
    def plain(ctx, self, dim=0, *, out_dtype, keepdim=False):
        pass

    def positional(ctx, self, /, dim=0):
        pass

    def variadic(ctx, *args, **kwargs):
        pass

    @functools.wraps(plain)
    def wrapped(*args, **kwargs):
        pass

    class Callable:
        def __call__(self, ctx, x, *, dim=1):
            pass

    return [
        plain,
        positional,
        variadic,
        wrapped,
        Callable(),
        Callable().__call__,
        lambda ctx: None,
        functools.partial(plain, "row"),
        functools.partial(plain, "row", "ctx"),
        functools.partial(plain, out_dtype=None),
        functools.partial(functools.partial(plain, 1), 2),
    ]


@pytest.mark.parametrize(
    "function", _of_every_kind(), ids=lambda function: getattr(function, "__name__", type(function).__name__)
)
def test_parameters_are_read_as_inspect_reads_them(function):
    expected = inspect.signature(function).parameters.values()
    found = [(p.name, p.kind is inspect.Parameter.KEYWORD_ONLY, p.default) for p in expected]
    assert _parameters(function) == found
