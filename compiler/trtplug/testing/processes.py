"""Work in processes of its own: what is tried may take its process down, or never come to an end."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import math
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Generic, TypeVar

Batch = TypeVar("Batch")
Record = dict[str, Any]
"""What is said of one thing that is tried, as JSON has it; ``id`` says of which."""
Work = Callable[[Batch, Collection[str], Callable[[Record], None]], Iterator[Record]]
"""Tries what is in a batch but for the ids that are done; says before each of what it is about to try, and yields what
came of it."""

NO_ANSWER = "no answer after"
"""How it is said that something was given up: it may have been a busy machine."""


@dataclasses.dataclass
class _Worker(Generic[Batch]):
    """A process that tries what is in a batch."""

    pid: int
    batch: Batch
    rest: bytes = b""
    trying: Record | None = None
    since: float = dataclasses.field(default_factory=time.monotonic)
    ended: bool = False
    killed: str = ""


def in_processes(
    work: Work[Batch],
    batches: Sequence[Batch],
    *,
    jobs: int = 1,
    done: Collection[str] = (),
    seconds: float | None = None,
    patience: float = math.inf,
) -> Iterator[tuple[Record, str]]:
    """What came of each, as it comes, with "" or how its process ended, which another then takes up where it was.

    Args:
        work: what a process does.
        batches: what each process is given.
        jobs: processes at a time.
        done: ids of what is not tried again.
        seconds: after which all stops, done or not; None for never.
        patience: seconds for each thing that is tried, after which its process is ended.

    Raises:
        RuntimeError: a process ended that was not trying anything.
    """
    waiting, over = list(batches), set(done)
    end = math.inf if seconds is None else time.monotonic() + seconds
    running: dict[int, _Worker[Batch]] = {}
    try:
        while (waiting or running) and time.monotonic() < end:
            while waiting and len(running) < jobs:
                batch = waiting.pop(0)
                pid, pipe = _fork(work, batch, frozenset(over))
                running[pipe] = _Worker(pid, batch)
            for pipe in select.select(list(running), [], [], 1.0)[0]:
                worker = running[pipe]
                found, closed = _read(pipe, worker)
                if closed:
                    del running[pipe]
                    found += _reap(pipe, worker)
                    if not worker.ended:
                        waiting.insert(0, worker.batch)
                over.update(record["id"] for record, _ in found)
                yield from found
            for worker in running.values():
                if worker.trying is not None and time.monotonic() - worker.since > patience and not worker.killed:
                    worker.killed = f"{NO_ANSWER} {patience:g} s"
                    os.kill(worker.pid, signal.SIGKILL)
    finally:
        for pipe, worker in running.items():
            os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)
            os.close(pipe)


def _read(pipe: int, worker: _Worker[Any]) -> tuple[list[tuple[Record, str]], bool]:
    """What a process has said since, and whether that was all."""
    data = os.read(pipe, 1 << 16)
    *lines, worker.rest = (worker.rest + data).split(b"\n")
    found = []
    for line in lines:
        kind, value = json.loads(line)
        if kind == "error":
            raise RuntimeError(f"{worker.batch}: {value}")
        worker.ended = kind == "end"
        worker.trying, worker.since = (value if kind == "trying" else None), time.monotonic()
        found += [(value, "")] if kind == "outcome" else []
    return found, not data


def _reap(pipe: int, worker: _Worker[Any]) -> list[tuple[Record, str]]:
    """A process that has ended; what it died of."""
    os.close(pipe)
    status = os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])
    if worker.ended:
        return []
    if worker.trying is None:
        raise RuntimeError(f"{worker.batch}: the process ended with {status} before anything was tried")
    return [(worker.trying, worker.killed or f"the process ended with {status}")]


def _fork(work: Work[Batch], batch: Batch, done: Collection[str]) -> tuple[int, int]:
    """A process that says what it does, a line of JSON each; its id, and the pipe to read from."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write_end)
        return pid, read_end
    os.close(read_end)
    gc.freeze()
    with contextlib.suppress(BaseException), os.fdopen(write_end, "w") as out:

        def say(kind: str, value: Any) -> None:
            print(json.dumps([kind, value]), file=out, flush=True)

        try:
            for record in work(batch, done, lambda record: say("trying", record)):
                say("outcome", record)
            say("end", None)
        except BaseException as error:
            say("error", f"{type(error).__name__}: {error}")
    os._exit(0)
