"""Recurrent networks, step by step: LSTM, GRU and plain ones, of several layers, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trtplug_lowering_passes.decompositions.shared import Table

aten = torch.ops.aten

LONGEST = 512
"""Each step is written out, so that longer sequences would make networks of many thousand layers."""

State = tuple[Tensor, ...]
Cell = Callable[..., State]
"""From a step's gates of the input, [batch, gates], the state and the state's weights, the next state."""

Bias = Tensor | None


def _linear(x: Tensor, weight: Tensor, bias: Bias) -> Tensor:
    return torch.nn.functional.linear(x, weight, bias)


def _lstm_step(gates: Tensor, state: State, weight: Tensor, bias: Bias, projection: Bias = None) -> State:
    hidden, cell = state
    enter, forget, new, leave = (gates + _linear(hidden, weight, bias)).chunk(4, -1)
    cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
    hidden = leave.sigmoid() * cell.tanh()
    return (hidden if projection is None else _linear(hidden, projection, None)), cell


def _gru_step(gates: Tensor, state: State, weight: Tensor, bias: Bias, projection: Bias = None) -> State:
    (hidden,) = state
    reset, update, new = gates.chunk(3, -1)
    own_reset, own_update, own_new = _linear(hidden, weight, bias).chunk(3, -1)
    new = (new + (reset + own_reset).sigmoid() * own_new).tanh()
    update = (update + own_update).sigmoid()
    return ((hidden - new) * update + new,)


def _plain_step(activation: Callable[[Tensor], Tensor]) -> Cell:
    def step(gates: Tensor, state: State, weight: Tensor, bias: Bias, projection: Bias = None) -> State:
        return (activation(gates + _linear(state[0], weight, bias)),)

    return step


# --- sequences --------------------------------------------------------------------------------------------------------


def _direction(x: Tensor, state: State, step: Cell, weights: Sequence[Tensor], biases: bool, back: bool) -> list[State]:
    """The state after each step over [time, batch, features], in the order of time."""
    gates = _linear(x, weights[0], weights[2] if biases else None)
    bias = weights[3] if biases else None
    projection = weights[-1] if len(weights) in (3, 5) else None
    states: list[State] = []
    for place in reversed(range(x.size(0))) if back else range(x.size(0)):
        state = step(gates[place], state, weights[1], bias, projection)
        states.append(state)
    return states


def _network(
    input: Tensor,
    starts: Sequence[Tensor],
    params: Sequence[Tensor],
    step: Cell,
    *,
    biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    both: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """The last layer's hidden states over time, and each kind of state at the end, [layers * directions, batch, ...].

    Args:
        starts: the kinds of state at the beginning, each [layers * directions, batch, ...].
        params: of each layer and direction the weights for the input and for the state, biases where there are any,
            and a projection where there is one.
    """
    if train and dropout:
        raise NotImplementedError("dropout in training is random")
    time = input.size(1 if batch_first and input.dim() == 3 else 0)
    if not isinstance(time, int) or not 0 < time <= LONGEST:
        raise NotImplementedError("each step is written out")
    x = input.transpose(0, 1) if batch_first else input
    runs = layers * (1 + both)
    each = len(params) // runs
    finals: list[State] = []
    for _ in range(layers):
        outputs = []
        for back in (False, True)[: 1 + both]:
            run = len(finals)
            state = tuple(start[run] for start in starts)
            states = _direction(x, state, step, params[run * each : (run + 1) * each], biases, back)
            finals.append(states[-1])
            hidden = [state[0] for state in states]
            outputs.append(torch.stack(hidden[::-1] if back else hidden))
        x = torch.cat(outputs, -1) if both else outputs[0]
    ends = (torch.stack([final[kind] for final in finals]) for kind in range(len(starts)))
    return (x.transpose(0, 1) if batch_first else x), *ends


def lstm(
    input: Tensor,
    hx: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """From [time, batch, features] (or batch first): the hidden states over time, the last ones, the last cells."""
    return _network(
        input,
        hx,
        params,
        _lstm_step,
        biases=has_biases,
        layers=num_layers,
        dropout=dropout,
        train=train,
        both=bidirectional,
        batch_first=batch_first,
    )


def _of_one_state(step: Cell) -> Callable[..., tuple[Tensor, ...]]:
    def run(
        input: Tensor,
        hx: Tensor,
        params: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Tensor, ...]:
        """From [time, batch, features] (or batch first): the hidden states over time, and the last ones."""
        return _network(
            input,
            (hx,),
            params,
            step,
            biases=has_biases,
            layers=num_layers,
            dropout=dropout,
            train=train,
            both=bidirectional,
            batch_first=batch_first,
        )

    return run


# --- single steps -----------------------------------------------------------------------------------------------------


def lstm_cell(
    input: Tensor, hx: Sequence[Tensor], w_ih: Tensor, w_hh: Tensor, b_ih: Bias = None, b_hh: Bias = None
) -> tuple[Tensor, ...]:
    return _lstm_step(_linear(input, w_ih, b_ih), (hx[0], hx[1]), w_hh, b_hh)


def gru_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias = None, b_hh: Bias = None) -> Tensor:
    return _gru_step(_linear(input, w_ih, b_ih), (hx,), w_hh, b_hh)[0]


TABLE: Table = {
    aten.lstm.input: lstm,
    aten.gru.input: _of_one_state(_gru_step),
    aten.rnn_tanh.input: _of_one_state(_plain_step(torch.tanh)),
    aten.rnn_relu.input: _of_one_state(_plain_step(torch.relu)),
    aten.lstm_cell.default: lstm_cell,
    aten.gru_cell.default: gru_cell,
}
