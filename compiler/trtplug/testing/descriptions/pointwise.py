"""Of ops that go element by element, and of losses."""

from __future__ import annotations

from collections.abc import Mapping

from trtplug.testing.arrangements import ANY, FLOAT, NOT_NAN, YES_NO, arranged, even, weighed
from trtplug_registry import FLOATS, INTS, Axis, Domain, Only, Static, Tensor, broadcastable, same_dtype

TABLE: Mapping[str, Domain] = {
    **{
        f"aten::{name}": Domain(broadcastable("self", "other"), self=Tensor(INTS, rank=(0, 4)), other=Tensor(INTS))
        for name in (
            *("__lshift__.Tensor", "__rshift__.Tensor", "bitwise_left_shift.Tensor", "bitwise_right_shift.Tensor"),
            *("bitwise_and.Tensor", "bitwise_or.Tensor", "bitwise_xor.Tensor"),
        )
    },
    **{
        f"aten::{name}": Domain(self=Tensor(INTS, rank=(0, 4)), other=Static(-70, 70))
        for name in (
            *("__lshift__.Scalar", "__rshift__.Scalar"),
            *("bitwise_left_shift.Tensor_Scalar", "bitwise_right_shift.Tensor_Scalar"),
        )
    },
    "aten::heaviside": Domain(
        same_dtype("self", "values"), broadcastable("self", "values"), self=ANY, values=Tensor(rank=(0, 4))
    ),
    "aten::isclose": Domain(
        same_dtype("self", "other"),
        broadcastable("self", "other"),
        self=ANY,
        other=ANY,
        rtol=Static(0, 1),
        atol=Static(0, 1),
        equal_nan=YES_NO,
    ),
    "aten::lerp.Scalar": Domain(
        same_dtype("self", "end"), broadcastable("self", "end"), self=FLOAT, end=FLOAT, weight=Static(-4, 4)
    ),
    "aten::lerp.Tensor": Domain(
        same_dtype("self", "end", "weight"),
        broadcastable("self", "end", "weight"),
        self=FLOAT,
        end=FLOAT,
        weight=FLOAT,
    ),
    **{  # the sign of a nan is the processor's: where it has casts of its own to bfloat16, theirs are negative
        "aten::signbit": Domain(self=Tensor(rank=(0, 5), values=NOT_NAN)),
        "aten::copysign.Tensor": Domain(
            broadcastable("self", "other"), self=ANY, other=Tensor(rank=(0, 5), values=NOT_NAN)
        ),
    },
    "aten::round.decimals": Domain(self=FLOAT, decimals=Static(-3, 3)),
    "aten::rrelu": Domain(self=FLOAT),
    "aten::_prelu_kernel": Domain(
        same_dtype("self", "weight"),
        arranged("a weight that expands", weighed, "self", "weight"),
        self=Tensor(FLOATS, rank=(1, 4)),
        weight=Tensor(FLOATS, rank=(1, 4)),
    ),
    "aten::floor_divide.Scalar": Domain(self=ANY, other=Static(-4, 4)),
    "aten::glu": Domain(arranged("halves", even, "self", "dim"), self=Tensor(FLOATS, rank=(1, 4)), dim=Axis("self")),
    "aten::frexp.Tensor": Domain(self=Tensor(FLOATS)),
    "aten::mvlgamma": Domain(self=Tensor(FLOATS[:1], rank=(0, 3), values=(2, 8)), p=Only(1, 2, 3)),
    "aten::polygamma": Domain(n=Only(0, 1), self=Tensor(FLOATS[:1], rank=(0, 3), values=(0.5, 8))),
    "aten::special_i0": Domain(self=Tensor(rank=(0, 5))),
}
