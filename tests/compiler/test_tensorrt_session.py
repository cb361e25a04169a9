"""What a call of an engine does on the host, over a context that is written down instead of run."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from trtplug.errors import ExecutorError
from trtplug.executors import session as sessions
from trtplug.executors.session import Failure, Session
from trtplug_registry import TensorFacts


@dataclasses.dataclass
class Engine:
    """One float32 matrix with dynamic rows and one size; the result has as many rows as the size says."""

    name: str = "engine_0"
    inputs: tuple[Any, ...] = (("x", TensorFacts((-1, 4), torch.float32)), ("n", TensorFacts((), torch.int64)))
    outputs: tuple[Any, ...] = (("y", TensorFacts((-1, 4), torch.float16)),)
    profiles: tuple[Any, ...] = ()
    plan: bytes = b""
    reference: Any = None


class Context:
    """Takes 1 to 8 rows, and writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.shape: tuple[int, ...] = ()
        self.works = True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.told.append(f"shape {name} {shape}")
        self.shape = shape
        return 1 <= shape[0] <= 8

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.told.append(f"address {name}")
        return address != 0

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        self.told.append(f"ask {name}")
        return self.shape

    def execute_async_v3(self, stream: int) -> bool:
        self.told.append("run")
        return self.works

    def take(self) -> list[str]:
        told, self.told = self.told, []
        return told


class Quiet:
    """A logger that has heard nothing."""

    def take(self) -> tuple[str, ...]:
        return ()


@pytest.fixture
def context() -> Context:
    return Context()


@pytest.fixture
def session(context: Context, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setattr(Session, "_enqueue", lambda self: self._context.execute_async_v3(0))

    failure = Failure("engine_0", Quiet())
    return Session(Engine(), context, None, torch.device("cpu"), failure)


def rows(count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.ones(count, 4, dtype=dtype)


def test_only_what_changes_is_told(session: Session, context: Context) -> None:
    x, other = rows(3), rows(3)
    (result,) = session((x, 3)) or ()
    assert (result.shape, result.dtype) == ((3, 4), torch.float16)
    assert context.take() == ["address x", "shape x (3, 4)", "address n", "ask y", "address y", "run"]
    held = session((x, 3))  # its result is still held, so the next one lies elsewhere
    assert context.take() == ["address y", "run"]
    session((other, 3))
    assert [word for word in context.take() if word != "address y"] == ["address x", "run"]
    session((other, 4))
    assert [word for word in context.take() if word != "address y"] == ["address n", "ask y", "run"]
    del held


def test_output_shapes_are_remembered(session: Session, context: Context) -> None:
    for count in (3, 4, 3):
        (result,) = session((rows(count), 3)) or ()
        assert tuple(result.shape) == (count, 4)
    assert context.take().count("ask y") == 2


def test_the_memory_of_shapes_is_bounded(session: Session, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST_SHAPES", 2)
    for size in range(10):
        session((rows(3), size))
    assert len(session._known) <= 2


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((rows(3),), "takes 2 inputs, not 1"),
        ((rows(3, torch.float64), 3), "input 'x' is torch.float64, the engine takes torch.float32"),
        ((rows(9), 3), r"does not take \[9, 4\] for input 'x', which is float32\[-1, 4\]"),
    ],
)
def test_a_refused_call_leaves_it_usable(session: Session, inputs: Any, words: str) -> None:
    session((rows(3), 3))
    with pytest.raises(ExecutorError, match=words):
        session(inputs)
    (result,) = session((rows(5), 3)) or ()
    assert tuple(result.shape) == (5, 4)
    assert not session.broken


def test_a_shape_that_was_refused_is_told_again(session: Session, context: Context) -> None:
    session((rows(3), 3))
    with pytest.raises(ExecutorError):
        session((rows(9), 3))
    context.take()
    session((rows(3), 3))
    assert "shape x (3, 4)" in context.take()


def test_failed_work_breaks_it(session: Session, context: Context) -> None:
    context.works = False
    with pytest.raises(ExecutorError, match=r"failed; called with \[3, 4\], 3"):
        session((rows(3), 3))
    assert session.broken


@pytest.mark.parametrize(
    "view", [lambda x: x.T.contiguous().T, lambda x: torch.cat([x, x], 1)[:, :4]], ids=["permuted", "sliced"]
)
def test_inputs_that_are_not_contiguous(
    session: Session, context: Context, view: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    x = view(rows(3))
    assert not x.is_contiguous()
    (result,) = session((x, 3)) or ()
    assert tuple(result.shape) == (3, 4)


def test_empty_tensors_have_an_address(session: Session, context: Context) -> None:
    context.set_input_shape = lambda name, shape: bool(setattr(context, "shape", shape)) or True  # type: ignore[method-assign]
    (result,) = session((rows(0), 0)) or ()
    assert tuple(result.shape) == (0, 4)


class Finding(Context):
    """The places of the elements that are not 0, as many as there turn out to be."""

    def __init__(self) -> None:
        super().__init__()
        self.found = 0
        self.memory: Any = None

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 2)

    def set_output_allocator(self, name: str, memory: Any) -> bool:
        self.told.append(f"allocator {name}")
        self.memory = memory
        return True

    def execute_async_v3(self, stream: int) -> bool:
        address = self.memory.reallocate_output_async("y", 0, self.found * 4, 256, stream)
        made = ctypes.c_int16 * (self.found * 2)
        made.from_address(address)[:] = [self.found] * self.found * 2
        self.memory.notify_shape("y", (self.found, 2))
        return True


@pytest.mark.parametrize("context", [Finding()])
def test_results_whose_shapes_depend_on_values(session: Session, context: Finding, monkeypatch: Any) -> None:
    outputs = tuple((place, name, torch.int16) for place, name, _ in session._outputs)
    monkeypatch.setattr(session, "_outputs", outputs)
    results = []
    for context.found in (3, 0, 5):
        results += session((rows(3), 3)) or ()
    assert [tuple(result.shape) for result in results] == [(3, 2), (0, 2), (5, 2)]
    for result in results:  # none lies in another one's memory
        assert bool((result == len(result)).all())
    assert context.take().count("allocator y") == 1
