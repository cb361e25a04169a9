"""Processes that take jobs. One that dies costs the job that it had, which is then known to have killed it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from typing import Any


@dataclasses.dataclass(frozen=True)
class Job:
    """A call of a function by name, in some process.

    Attributes:
        function: ``module:name``; takes the arguments, returns something that can be pickled.
        arguments: of the call.
        seconds: after which its process is ended.
    """

    function: str
    arguments: tuple[Any, ...]
    seconds: float = 60.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a job: its result, or an error in words; `died` is how its process ended, if it did."""

    job: Job
    result: Any = None
    error: str = ""
    died: str = ""
    seconds: float = 0.0


def run_jobs(
    jobs: Iterable[Job], processes: int, *, deadline: float | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Outcome]:
    """Runs jobs in several processes; yields outcomes as they come, in no order.

    Args:
        jobs: taken in order.
        processes: at most so many at a time.
        deadline: a time of `time.monotonic` at which nothing is begun or waited for any more.
        environment: variables that the processes get besides their parent's.
    """
    waiting = deque(jobs)
    workers: list[_Worker] = []
    try:
        while waiting or any(worker.job for worker in workers):
            now = time.monotonic()
            if deadline is not None and now > deadline:
                return
            workers = [worker for worker in workers if worker.process.is_alive() or worker.job]
            while waiting and len(workers) < processes:
                workers.append(_Worker(environment or {}))
            for worker in workers:
                if waiting and worker.job is None:
                    worker.give(waiting.popleft())
            ready = set(wait([w.connection for w in workers if w.job], timeout=0.2))
            for worker in workers:
                if worker.job is not None and (worker.connection in ready or worker.late()):
                    yield worker.take()
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    def __init__(self, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, dict(environment)), daemon=True)
        self.process.start()
        theirs.close()
        self.job: Job | None = None
        self.since = 0.0
        self.fresh = True

    def give(self, job: Job) -> None:
        self.job, self.since = job, time.monotonic()
        with contextlib.suppress(OSError):  # it is dead, as `take` will find
            self.connection.send((job.function, job.arguments))

    def late(self) -> bool:
        assert self.job is not None
        spare = 60.0 if self.fresh else 0.0  # for its imports
        return time.monotonic() - self.since > self.job.seconds + spare

    def take(self) -> Outcome:
        job, self.job = self.job, None
        assert job is not None
        seconds, late = time.monotonic() - self.since, self.late_by(job)
        self.fresh = False
        try:
            if self.connection.poll():
                result, error, goes = self.connection.recv()
                if goes:
                    self.end()
                return Outcome(job, result, error, seconds=seconds)
        except (EOFError, OSError):
            pass
        self.process.join(1)
        code = self.process.exitcode
        died = f"no answer in {job.seconds:.0f} s" if code is None and late else _name_of(code)
        self.end()
        return Outcome(job, died=died, seconds=seconds)

    def late_by(self, job: Job) -> bool:
        return time.monotonic() - self.since > job.seconds

    def end(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join(5)
        self.connection.close()


def _name_of(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


def _serve(connection: Connection, environment: Mapping[str, str]) -> None:
    """A worker: answers jobs until its parent is gone. After an error of CUDA's it goes: the process is lost for it."""
    os.environ.update(environment)
    sys.stdout = sys.stderr
    while True:
        try:
            function, arguments = connection.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
        result, error = None, ""
        try:
            module, _, name = function.partition(":")
            result = getattr(importlib.import_module(module), name)(*arguments)
        except BaseException:
            error = traceback.format_exc(limit=-6)
        goes = not _cuda_works()
        connection.send((result, error or ("CUDA is lost" if goes else ""), goes))
        if goes:
            return


def _cuda_works() -> bool:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
    except Exception:
        return False
    return True
