"""Specs and domains: what they accept, how they refuse, what they contradict."""

from __future__ import annotations

import math

import pytest
import torch

from trtplug_registry import (
    FLOATS,
    NUMBERS,
    Anything,
    Axis,
    DeclarationError,
    Domain,
    Either,
    ListOf,
    Only,
    Optional,
    ReasonCode,
    Relation,
    Size,
    Static,
    Tensor,
    TensorFacts,
    same_dtype,
)

F32 = TensorFacts((2, 3), torch.float32)


def tensor(*shape: int, dtype: torch.dtype = torch.float32, constant: bool = False) -> TensorFacts:
    return TensorFacts(shape, dtype, constant)


@pytest.mark.parametrize(
    ("spec", "value", "code"),
    [
        (Tensor(), F32, None),
        (Tensor(FLOATS), tensor(2, dtype=torch.int32), ReasonCode.DTYPE),
        (Tensor(), tensor(2, dtype=torch.float64), ReasonCode.DTYPE),
        (Tensor(rank=(2, 2)), tensor(2), ReasonCode.RANK),
        (Tensor(rank=(0, 1)), F32, ReasonCode.RANK),
        (Tensor(), tensor(*[1] * 9), ReasonCode.RANK),
        (Tensor(zero_size=False), tensor(2, 0), ReasonCode.ZERO_SIZE),
        (Tensor(constant=True), F32, ReasonCode.ARGUMENT),
        (Tensor(constant=True), tensor(2, constant=True), None),
        (Tensor(), 3, ReasonCode.ARGUMENT),
        (Static(0, 5), 5, None),
        (Static(0, 5), 6, ReasonCode.ARGUMENT),
        (Static(), math.nan, ReasonCode.ARGUMENT),
        (Static(nan=True), math.nan, None),
        (Static(), None, ReasonCode.ARGUMENT),
        (Size(0), -1, ReasonCode.ARGUMENT),
        (Only(1, None), None, None),
        (Only(1), True, ReasonCode.ARGUMENT),
        (Only(1), 1.0, ReasonCode.ARGUMENT),
        (Axis("self"), -2, None),
        (Axis("self"), 2, ReasonCode.ARGUMENT),
        (Axis("self", insert=True), 2, None),
        (ListOf(Size(), 1, 2), [1, 2], None),
        (ListOf(Size(), 1, 2), [], ReasonCode.ARGUMENT),
        (ListOf(Tensor(FLOATS)), [F32, tensor(1, dtype=torch.bool)], ReasonCode.DTYPE),
        (Optional(Size()), None, None),
        (Optional(Size()), "x", ReasonCode.ARGUMENT),
        (Anything(), object(), None),
    ],
)
def test_verdict(spec, value, code):
    reason = spec.refusal("it", value, {"self": F32})
    assert (reason.code if reason else None) == code


def test_a_refusal_names_argument_requirement_observation_and_why():
    spec = Tensor(FLOATS, because={"dtypes": "TensorRT's softmax takes floats only"})
    reason = spec.refusal("self", tensor(2, dtype=torch.int64), {})
    assert str(reason) == (
        "dtype: self: int64[2], but needs float32 | float16 | bfloat16 (TensorRT's softmax takes floats only)"
    )


def test_an_axis_of_a_tensor_without_dimensions_is_0_or_minus_1():
    call = {"self": tensor()}
    assert Axis("self").refusal("dim", 0, call) is None
    assert Axis("self").refusal("dim", -1, call) is None
    assert Axis("self").refusal("dim", 1, call) is not None


@pytest.mark.parametrize(
    ("one", "two", "disjoint"),
    [
        (Tensor(FLOATS), Tensor((torch.int32,)), True),
        (Tensor(FLOATS), Tensor(NUMBERS), False),
        (Tensor(rank=(0, 2)), Tensor(rank=(3, 8)), True),
        (Static(0, 1), Static(2, 3), True),
        (Static(0, 1), Static(1, 3), False),
        (Only(True), Only(False), True),
        (Only(1, 2), Static(2, 3), False),
        (Only(1, 2), Static(3, 4), True),
        (Only(None), Tensor(), True),
        (Optional(Tensor()), Only(None), False),
        (Anything(), Only(1), False),
        (Tensor(FLOATS), Anything(), False),
        (Tensor(FLOATS), Either(Tensor(NUMBERS), Static()), False),
        (Tensor(FLOATS), Optional(Tensor((torch.int32,))), True),
    ],
)
def test_disjoint(one, two, disjoint):
    assert one.disjoint(two) is disjoint


def test_every_restriction_is_turned_around_one_at_a_time():
    domain = Domain(same_dtype("self", "other"), self=Tensor(NUMBERS, rank=(1, 8)), other=Tensor(NUMBERS))
    labels = [str(restriction) for restriction in domain.restrictions()]
    assert labels == [
        "dtype self: bool",
        "rank self: rank < 1",
        "dtype other: bool",
        "relation self, other: not: self, other of one dtype",
    ]
    for restriction in domain.restrictions():
        assert restriction.negated is not domain


@pytest.mark.parametrize(
    "make",
    [
        lambda: Domain(self=torch.float32),
        lambda: Domain("not a relation", self=Tensor()),
        lambda: Domain(same_dtype("self", "other"), self=Tensor()),
        lambda: Domain(dim=Axis("self")),
        lambda: Domain(self=Tensor(())),
        lambda: Domain(self=Tensor(rank=(3, 2))),
        lambda: Domain(alpha=Static(2, 1)),
        lambda: Domain(alpha=Only()),
    ],
)
def test_contradictions_are_declaration_errors(make):
    with pytest.raises(DeclarationError):
        make()


def test_a_relation_speaks_of_what_it_saw():
    relation = Relation("an even rank", ("self",), lambda call: call["self"].rank % 2 == 0, because="it pairs axes")
    domain = Domain(relation, self=Tensor())
    reason = domain.refusal({"self": tensor(2)})
    assert str(reason) == "relation: self: self = float32[2], but needs an even rank (it pairs axes)"


def test_a_rank_that_is_no_pair_is_an_error():
    with pytest.raises(DeclarationError, match=r"the rank of self is \(lowest, highest\), not 1"):
        Domain(self=Tensor(rank=1))
