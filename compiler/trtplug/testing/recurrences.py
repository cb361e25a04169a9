"""Calls of recurrent networks that eager takes, and of what makes grids and weights for networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtplug.testing.arrangements import Arrange, arranged, shaped
from trtplug_registry import FLOATS, Choose, Domain, ListOf, Only, Optional, Static, Tensor, same_dtype

_MILD = Tensor(FLOATS[:1], rank=(2, 2), values=(-2, 2))
_RANK_3 = Tensor(FLOATS[:1], rank=(3, 3), dynamic=False, values=(-2, 2))
"""Of sequences, whose sizes eager takes on trust: where they do not fit, it may end the process."""

_PARAMETER = Tensor(FLOATS[:1], rank=(1, 2), dynamic=False, values=(-2, 2))
_YES_NO = Only(False, True)


def _cell(gates: int) -> Arrange:
    """One step: a batch of inputs and states, and matrices of so many gates."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        batch, inner, hidden = (choose.integer(1, 3) for _ in range(3))
        call["input"] = shaped(call["input"], batch, inner)
        states = call["hx"] if isinstance(call["hx"], list) else [call["hx"]]
        states = [shaped(state, batch, hidden) for state in states]
        call["hx"] = states if isinstance(call["hx"], list) else states[0]
        call["w_ih"] = shaped(call["w_ih"], gates * hidden, inner)
        call["w_hh"] = shaped(call["w_hh"], gates * hidden, hidden)
        for name in ("b_ih", "b_hh"):  # both or none
            call[name] = None if call["b_ih"] is None else shaped(call[name] or call["b_ih"], gates * hidden)

    return arrange


def _sequence(gates: int) -> Arrange:
    """A sequence, the states of each layer and direction, and their parameters."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        steps, batch, inner, hidden = (choose.integer(1, 3) for _ in range(4))
        directions = 1 + bool(call["bidirectional"])
        lead = (batch, steps) if call["batch_first"] else (steps, batch)
        one = call["input"]
        call["input"] = shaped(one, *lead, inner)
        state = shaped(one, call["num_layers"] * directions, batch, hidden)
        call["hx"] = [state] * len(call["hx"]) if isinstance(call["hx"], list) else state
        call["params"] = [
            shaped(one, *shape)
            for layer in range(call["num_layers"])
            for _ in range(directions)
            for shape in _shapes(gates, hidden, hidden * directions if layer else inner, call["has_biases"])
        ]

    return arrange


def _shapes(gates: int, hidden: int, inner: int, biased: bool) -> list[tuple[int, ...]]:
    """Of the parameters of one layer in one direction."""
    return [(gates * hidden, inner), (gates * hidden, hidden), *[(gates * hidden,)] * (2 * biased)]


def affine(call: dict[str, Any], choose: Choose) -> None:
    axes, batch = choose.integer(2, 3), choose.integer(1, 2)
    call["theta"] = shaped(call["theta"], batch, axes, axes + 1)
    call["size"] = [batch, 1, *(choose.integer(1, 3) for _ in range(axes))]


def weight_normed(call: dict[str, Any], choose: Choose) -> None:
    """A norm for each slice along the first or the last axis, which is what eager's kernel takes."""
    shape = call["v"].shape
    call["dim"] = choose.one_of((0, len(shape) - 1))
    call["g"] = shaped(call["g"], *(size if axis == call["dim"] else 1 for axis, size in enumerate(shape)))


def _cells(gates: int, states: bool) -> Domain:
    return Domain(
        same_dtype("input", "hx", "w_ih", "w_hh", "b_ih", "b_hh"),
        arranged("a step", _cell(gates), "input", "hx", "w_ih", "w_hh", "b_ih", "b_hh"),
        input=_MILD,
        hx=ListOf(_MILD, shortest=2, longest=2) if states else _MILD,
        w_ih=_MILD,
        w_hh=_MILD,
        b_ih=Optional(_MILD),
        b_hh=Optional(_MILD),
    )


def _sequences(gates: int, states: bool) -> Domain:
    return Domain(
        arranged("a sequence", _sequence(gates), "input", "hx", "params"),
        input=_RANK_3,
        hx=ListOf(_RANK_3, shortest=2, longest=2) if states else _RANK_3,
        params=ListOf(_PARAMETER),
        has_biases=_YES_NO,
        num_layers=Static(1, 2),
        dropout=Only(0.0),
        train=Only(False),
        bidirectional=_YES_NO,
        batch_first=_YES_NO,
    )


TABLE: Mapping[str, Domain] = {
    "aten::gru_cell": _cells(3, False),
    "aten::lstm_cell": _cells(4, True),
    "aten::gru.input": _sequences(3, False),
    "aten::lstm.input": _sequences(4, True),
    "aten::rnn_relu.input": _sequences(1, False),
    "aten::rnn_tanh.input": _sequences(1, False),
}
