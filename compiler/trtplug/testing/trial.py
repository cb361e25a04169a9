"""One law tried on one converter: drawing calls that eager takes, converting them, saying clearly what went wrong."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import sympy
import torch
from hypothesis import assume, given, reject, seed
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable, UnsatisfiedAssumption
from torch.fx import Node

from trtplug.convert import convert
from trtplug.engine import CompiledEngine
from trtplug.network import Network
from trtplug.ranges import Range
from trtplug.testing.arguments import Bounds
from trtplug.testing.compare import Mismatch, is_exact, mismatch, undetermined
from trtplug.testing.drawing import calls, plain_values, values
from trtplug.testing.drawn import DrawnCall
from trtplug.testing.errors import EnoughError, LawViolationError, NotApplicableError, UndescribedError
from trtplug.testing.graphs import CallGraph, Instance, allowed_results, call_graph
from trtplug.testing.profiles import Profile
from trtplug.testing.script import script
from trtplug.testing.symbolic import DynamicCall
from trtplug_registry import Converter, Domain, Reason, Registry, Tensor, unknown_name

Run = Callable[..., tuple[torch.Tensor, ...]]

EAGER_ERRORS = (RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, AssertionError)
SEED = 0x7A8C5DB21B520818220397D0D1DD061BF3230F51E86DB6716BBF40C269CAAC0E265EAF043F4F976E6DF6E7DF8C975FAD
"""Any number would do: one that is written down, so that the same is drawn whatever becomes of the code around it."""

MOST_REFUSED = 0.6
"""A domain of whose drawn calls eager refuses a larger share does not describe well-formed calls."""

REPRODUCE = "Reproduce with:\n\n"
"""What a violation's script comes after."""

FEW = 40
"""Where time is short, the share of fewer drawn calls says nothing."""


@dataclasses.dataclass
class Tally:
    """What became of the drawn calls."""

    drawn: int = 0
    in_vain: int = 0
    tried: int = 0
    without_kernel: int = 0
    outside: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    refused: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


@dataclasses.dataclass(frozen=True)
class WellFormed:
    """A call that eager takes, with values, and what eager makes of them."""

    call: DrawnCall
    tensors: Mapping[str, torch.Tensor]
    eager: Any


@dataclasses.dataclass
class Memory:
    """What laws 1 and 5 have drawn of one converter and dtype and found right: law 3 builds it, drawing being dearer.

    Attributes:
        calls: static ones; None where law 1 was not tried, or what it left was taken.
        dynamic: those with symbolic sizes, likewise of law 5.
        in_vain: restrictions, in words, for which law 4 has found no call that violates them; nor will another law.
        examples: how many were tried, by all the laws so far.
        built: whether law 3 has built the static ones.
        siblings: the memories of this converter's dtypes, this one among them.
    """

    calls: list[Instance] | None = None
    dynamic: list[DynamicCall] | None = None
    in_vain: set[str] = dataclasses.field(default_factory=set)
    examples: int = 0
    built: bool = False
    siblings: Mapping[torch.dtype | None, Memory] = dataclasses.field(default_factory=dict, repr=False)


class Memories(dict[torch.dtype | None, Memory]):
    """A converter's memories, one for each dtype that is asked for."""

    def __missing__(self, dtype: torch.dtype | None) -> Memory:
        return self.setdefault(dtype, Memory(siblings=self))


@dataclasses.dataclass
class Trial:
    """A converter, and how it is tried.

    Attributes:
        registry: that it belongs to.
        converter: under test.
        dtype: of its leading tensor; any where None.
        profile: how much is tried.
        executor: runs the networks: ``"reference"``, or the name of an executor that a plugin brings.
        law: in words, for messages.
        source: an expression for the registry, for the scripts in messages.
        memory: of the laws that were tried before of this converter and dtype.
    """

    registry: Registry
    converter: Converter
    dtype: torch.dtype | None
    profile: Profile
    executor: str = "reference"
    law: str = ""
    source: str = "trtplug.registry()"
    memory: Memory = dataclasses.field(default_factory=Memory)
    tally: Tally = dataclasses.field(default_factory=Tally)

    # --- drawing --------------------------------------------------------------------------------------------------

    def explore(self, check: Callable[[st.DataObject], None], examples: int) -> None:
        """Runs a check on drawn data, `examples` times, and then shrinks what fails. It may raise `EnoughError`.

        Raises:
            LawViolationError: the check fails.
            NotApplicableError: eager has no kernel for any drawn call.
            UndescribedError: eager refuses too many of the drawn calls.
        """

        end = time.monotonic() + self.profile.seconds
        failing: list[bool] = []

        def run(data: st.DataObject) -> None:
            self.memory.examples += 1
            try:
                check(data)
            except UnsatisfiedAssumption:
                self.tally.in_vain += 1
                if self.tally.in_vain > self.profile.in_vain and not self.tally.tried:
                    raise EnoughError from None
                raise
            except LawViolationError:
                failing.append(True)  # the time is for finding, not for making small
                raise
            over = time.monotonic() > end and bool(self.tally.tried)
            if over and not failing:  # after the draws: Hypothesis wants them the same every time
                raise EnoughError

        start = zlib.crc32(self.name.encode()) if self.profile.seeded else SEED
        with single_thread(), self.profile.drawing(), contextlib.suppress(EnoughError, Unsatisfiable):
            for first in range(0, examples, self.profile.run):
                drawing = self.profile.settings(min(self.profile.run, examples - first))(given(st.data())(run))
                (seed(start + first)(drawing) if self.profile.derandomize else drawing)()
        self.judge()

    def judge(self) -> None:
        """Raises what the tally of refused calls says of the domain."""
        tally = self.tally
        refused = sum(tally.refused.values())
        if not tally.tried and tally.outside and not refused and not tally.without_kernel:
            raise UndescribedError(
                f"{self.name}: no call drawn from its domain is in the domain; the last was refused with: "
                + next(iter(tally.outside))
            )
        short = math.isfinite(self.profile.seconds) and tally.drawn < FEW  # whose share says nothing
        if (refused > MOST_REFUSED * tally.drawn and not short) or (not tally.tried and refused):
            reasons = "\n".join(f"  {count} times: {why}" for why, count in tally.refused.most_common(3))
            raise UndescribedError(
                f"{self.name}: eager refuses {refused} of {tally.drawn} calls drawn from its domain, which therefore"
                f" does not describe well-formed calls; narrow a spec, or add a relation that arranges:\n{reasons}"
            )
        if not tally.tried and tally.without_kernel:
            raise NotApplicableError(f"{self.name}: eager has no kernel on the CPU")

    def well_formed(
        self,
        data: st.DataObject,
        *,
        domain: Domain | None = None,
        bounds: Bounds | None = None,
        when: Callable[[DrawnCall], bool] | None = None,
    ) -> WellFormed:
        """Draws a call that eager takes, with values; rejects and counts the others, rejects those not `when`."""
        self.tally.drawn += 1
        strategy = calls(self.converter, self.dtype, domain=domain, bounds=bounds)
        call = data.draw(strategy, label="call")
        reason = self.refusal(call, domain)
        if reason is not None:
            self.tally.outside[str(reason)] += 1  # a restriction that nothing arranges for
            reject()
        assume(when is None or when(call))
        tensors = data.draw(values(call), label="values")
        try:
            eager = run_eager(call, tensors)
        except EAGER_ERRORS:
            call = dataclasses.replace(call, layouts={})
            tensors = dict(plain_values(call))
            eager = self._second_chance(call, tensors)
        self.tally.tried += 1
        return WellFormed(call, tensors, eager)

    def refusal(self, call: DrawnCall, domain: Domain | None = None) -> Reason | None:
        """Why a domain (the converter's own where None) refuses a drawn call; a domain that raises breaks law 2."""
        try:
            return (domain or self.converter.domain).refusal(call.arguments)
        except Exception as error:  # a relation may raise anything
            if domain is not None:  # one that it was not written for
                reject()
            text = f"{self.law} does not hold for {self.name}: its domain raised {type(error).__name__}: {error}"
            raise LawViolationError(f"{text}, asked about {call}") from error

    def _second_chance(self, call: DrawnCall, tensors: Mapping[str, torch.Tensor]) -> Any:
        """Eager on plain contiguous values: it may have refused a value (a division by zero), or a view's strides."""
        try:
            return run_eager(call, tensors)
        except EAGER_ERRORS as error:
            if no_kernel(error):
                self.tally.without_kernel += 1
            else:
                self.tally.refused[f"{str(error).splitlines()[0] if str(error) else error!r} ({call})"] += 1
        return reject()

    def draw_constants(self, data: st.DataObject, call: DrawnCall) -> tuple[str, ...]:
        """The places that are constants: those that must be, and now and then another; rarely every one."""
        chosen = []
        specs = self.converter.domain.tensors()
        for place in call.tensors:
            spec = specs.get(place.partition("[")[0], Tensor())
            options = (False, False, False, True)
            if spec.constant or data.draw(st.sampled_from(options), label=f"{place}: constant"):
                chosen += [place] if self._takes_constant(call, place) else []
        if len(chosen) == len(call.tensors) and chosen and not all(spec.constant for spec in specs.values()):
            free = [place for place in chosen if not specs.get(place.partition("[")[0], Tensor()).constant]
            chosen.remove(free[0])
        return tuple(chosen)

    def _takes_constant(self, call: DrawnCall, place: str) -> bool:
        marked = call.replace_tensors(lambda at, facts: facts._replace(constant=facts.constant or at == place))
        return self.converter.domain.refusal(marked.arguments) is None

    def claims(self, node: Node) -> bool:
        """Whether the registry's own candidate for the node is this converter, as far as the domain goes."""
        explanation = self.registry.explain(node)
        return any(c.converter is self.converter and c.reason is None for c in explanation.candidates)

    def believes(self, graph: CallGraph, eager: Any) -> bool:
        """Whether the dtypes that the graph's metadata promises are to be held against the converter: always."""
        return True

    def graph(self, well: WellFormed, constants: Sequence[str]) -> CallGraph:
        """The call's graph; rejects a call whose metadata function refuses what eager takes: no graph can hold it."""
        try:
            return call_graph(well.call, well.tensors, constants, allowed_results(self.converter))
        except EAGER_ERRORS:
            self.tally.tried -= 1
            return reject()

    # --- converting and running -----------------------------------------------------------------------------------

    def convert(self, graph: CallGraph, ranges: Mapping[sympy.Symbol, Range] | None = None) -> Network:
        return convert(graph.module, lambda node: self.converter, ranges=ranges, name="call")

    def run_of(self, network: Network) -> Run:
        """What runs a network, by this trial's executor."""
        if self.executor == "reference":
            return network.lift()
        for executor in self.registry.executors:
            if executor.name == self.executor:
                engine = CompiledEngine(
                    network.name, network.inputs, network.outputs, network.build(), network.lift(), network.num_layers
                )
                return executor.prepare(engine)
        raise unknown_name("executor", self.executor, {"reference"} | {e.name for e in self.registry.executors})

    def difference(
        self, actual: Sequence[Any], expected: Sequence[Any], call: DrawnCall, tensors: Mapping[str, torch.Tensor]
    ) -> Mismatch | None:
        """How results differ from eager's, beyond the tolerance and what huge inputs leave open."""
        found = mismatch(actual, expected, self.converter.tolerance)
        if found is None or found.what != "values":
            return found
        if undetermined(found, actual, tensors, lambda moved: as_tuple(run_eager(call, moved))):
            return None
        return None if self._is_eager_of_contiguous(found, actual, call, tensors) else found

    def is_exact(
        self, found: Mismatch, actual: Sequence[Any], call: DrawnCall, tensors: Mapping[str, torch.Tensor]
    ) -> bool:
        """Whether it is eager's rounding that differs. A refusal may be for just that, so `difference` does not ask."""
        if found.what != "values":
            return False
        return is_exact(
            found, actual, tensors, lambda moved: as_tuple(run_eager(call, moved)), self.converter.tolerance
        )

    def _is_eager_of_contiguous(
        self, found: Mismatch, actual: Sequence[Any], call: DrawnCall, tensors: Mapping[str, torch.Tensor]
    ) -> bool:
        """Whether eager itself says so once its inputs are contiguous: some of its kernels misread others."""
        if all(tensor.is_contiguous() for tensor in tensors.values()):
            return False
        try:
            results = as_tuple(run_eager(call, {place: tensor.contiguous() for place, tensor in tensors.items()}))
        except EAGER_ERRORS:
            return False
        return mismatch(actual[found.result :][:1], results[found.result :][:1], self.converter.tolerance) is None

    # --- saying ---------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        dtype = f", {str(self.dtype).removeprefix('torch.')}" if self.dtype is not None else ""
        return f"{self.converter.id} ({self.converter.name}){dtype}"

    def fail(
        self,
        what: str,
        call: DrawnCall,
        tensors: Mapping[str, torch.Tensor],
        constants: Sequence[str] = (),
        dynamic: str = "",
    ) -> NoReturn:
        """Raises the violation, with a script that shows it."""
        code = self.script(call, tensors, constants, dynamic)
        raise LawViolationError(f"{self.law} does not hold for {self.name}:\n{call}\n{what}\n\n{REPRODUCE}{code}\n")

    def script(
        self, call: DrawnCall, tensors: Mapping[str, torch.Tensor], constants: Sequence[str], dynamic: str
    ) -> str:
        """Code that shows what the trial saw."""
        return script(call, tensors, constants, converter=self.converter.id, dynamic=dynamic, registry=self.source)


def run_eager(call: DrawnCall, tensors: Mapping[str, torch.Tensor]) -> Any:
    """What eager Torch makes of a call; its warnings are its own affair.

    Halves go past oneDNN, whose grouped convolutions in half types end the process on processors with AMX
    (torch 2.13: ``conv1d`` of float16[3, 1] by float16[3, 1, 1] in three groups).
    """
    args, kwargs = call.bind(tensors)
    halves = any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in tensors.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not halves:
            return call.op(*args, **kwargs)
        with torch.backends.mkldnn.flags(enabled=False):
            return call.op(*args, **kwargs)


def as_tuple(results: Any) -> tuple[Any, ...]:
    return tuple(results) if isinstance(results, list | tuple) else (results,)


def no_kernel(error: Exception) -> bool:
    """Whether eager refuses for want of a kernel, which says nothing of the call."""
    text = str(error)
    return any(words in text for words in ("not implemented for", "Could not run", "Unsupported input type"))


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Small ops are several times faster without a thread pool."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
