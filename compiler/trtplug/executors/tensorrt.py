"""The TensorRT executor's plugin: runs engines on a GPU, on the caller's tensors and the current stream."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from trtplug._tensorrt import TensorRTUnavailable, library
from trtplug.errors import ExecutorError
from trtplug.executors.contexts import Contexts
from trtplug.executors.graphs import GraphedSession
from trtplug.executors.kernels import KernelStore
from trtplug.executors.profiled import ProfiledSession
from trtplug.executors.profiling import layer_times
from trtplug.executors.session import Failure, Session, same_device
from trtplug_registry import CONTRACT, Engine, Executor, RunOptions, hookimpl

trtplug_contract = CONTRACT


@hookimpl
def trtplug_executors() -> Sequence[Executor]:
    return [Executor("tensorrt", _unavailable, EngineRun, priority=10, device="cuda", configured=EngineRun)]


@functools.cache
def _unavailable() -> str | None:
    """Why engines cannot run here. The proof that they can is a tiny engine that loads."""
    if not torch.cuda.is_available():
        return "Torch sees no CUDA GPU"
    try:
        trt = library()
    except TensorRTUnavailable as error:
        return str(error)
    from trtplug.network import NetworkBuilder  # where there is no GPU, nobody needs it
    from trtplug.network.logger import new_runtime

    network = NetworkBuilder()
    source = network.add_input("x", torch.float32, (1,))
    network.mark_output(network.add("identity", source).get_output(0), "y")
    plan = network.builder.build_serialized_network(network.definition, network.builder.create_builder_config())
    if plan is None or new_runtime(network.logger).deserialize_cuda_engine(plan) is None:
        name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
        words = "; ".join(network.logger.take())
        return f"TensorRT {trt.__version__} does not run on {name} (compute capability {major}.{minor}): {words}"
    return None


AnySession: TypeAlias = Session | ProfiledSession | GraphedSession


class EngineRun:
    """An engine on the GPU: zero-copy in and out, one execution context per thread, device and optimization profile.

    Takes CUDA tensors of one device, then sizes as ints; returns new tensors there. Work is enqueued on the current
    stream of that device. The engine is loaded, and its kernels compiled, on the device that is current when it is
    made, and on another when tensors on that one first come. May be called from several threads; a call that fails
    leaves it usable.

    Args:
        engine: what is run.
        options: whether calls are replayed as CUDA graphs, and where compiled kernels are kept.

    Raises:
        SettingsError: the folder for kernels cannot be used.
        ExecutorError: the engine cannot be loaded, or does not take these inputs (number, dtype, device, shape), or has
            no memory for its scratch space, or fails. TensorRT's words are in the message.
    """

    def __init__(self, engine: Engine, options: RunOptions = RunOptions()) -> None:  # noqa: B008  it is frozen
        from trtplug.network.logger import new_logger

        assert engine.plan is not None
        self.engine, self.options = engine, options
        self._logger = new_logger()
        self._loaded: dict[int, Contexts] = {}
        self._lock = threading.Lock()
        self._local = threading.local()
        session = self._session(())  # kernels are compiled now, not in the first call; and what cannot run is known now
        plain = session.plain if isinstance(session, GraphedSession) else session
        if isinstance(plain, ProfiledSession):
            plain.open_all()

    def __call__(self, *inputs: Any) -> tuple[torch.Tensor, ...]:
        try:
            session = self._local.session
        except AttributeError:
            session = self._session(inputs)
        try:
            results = session(inputs)
        except ExecutorError:
            if session.broken:
                self._local.__dict__.clear()  # the next call gets another context
            raise
        return results if results is not None else self._elsewhere(inputs)

    def __deepcopy__(self, memo: dict[int, Any]) -> EngineRun:
        return self  # nothing of it that a call sees ever changes

    def profile(self, inputs: Sequence[Any], calls: int) -> list[tuple[str, float]]:
        """Milliseconds by TensorRT layer for a call with these inputs, in order of execution. See `layer_times`."""
        index = same_device(self.engine, inputs)
        made = self._new_session(torch.cuda.current_device() if index is None else index, eager=True)
        session = made.session_for(inputs) if isinstance(made, ProfiledSession) else made
        return layer_times(session.context, lambda: session(inputs), calls, self.engine.name)

    def inspect(self) -> Any:
        """What TensorRT says about the loaded engine, as what JSON can say. See `Contexts.inspect`."""
        return self._load(next(iter(self._loaded), torch.cuda.current_device())).inspect()

    def _elsewhere(self, inputs: Sequence[Any]) -> tuple[torch.Tensor, ...]:
        """A call with tensors of another device than the last one's."""
        results = self._session(inputs)(inputs)
        assert results is not None
        return results

    def _session(self, inputs: Sequence[Any]) -> AnySession:
        """This thread's session on the device of the inputs, which becomes the one that is tried first."""
        local = self._local
        index = same_device(self.engine, inputs)
        if index is None:
            index = torch.cuda.current_device()
        sessions: dict[int, AnySession] = local.__dict__.setdefault("sessions", {})
        if index not in sessions:
            sessions[index] = self._open(index)
        local.session = session = sessions[index]
        return session

    def _open(self, index: int) -> AnySession:
        plain = self._new_session(index)
        if not self.options.cuda_graphs:
            return plain
        another = functools.partial(self._new_session, index, eager=True)
        return GraphedSession(plain, another, self._load(index).keep, self.engine.name, torch.device("cuda", index))

    def _new_session(self, index: int, *, eager: bool = False) -> Session | ProfiledSession:
        """On a context of its own; where the engine has several optimization profiles, on one for each."""
        if not self.engine.profiles:
            return self._on_context(index, None, eager=eager)
        return ProfiledSession(self.engine, functools.partial(self._on_context, index, eager=eager))

    def _on_context(self, index: int, profile: int | None, *, eager: bool) -> Session:
        contexts = self._load(index)
        context = contexts.make(eager=eager)
        failure = Failure(self.engine.name, self._logger)
        if context is None:
            free, _ = torch.cuda.mem_get_info(index)
            raise failure(f"has no execution context on cuda:{index}, where {free:,} bytes are free")
        if profile is not None:
            stream = torch.cuda.current_stream(index)
            if not context.set_optimization_profile_async(profile, stream.cuda_stream):
                raise failure(f"has no optimization profile {profile}")
            stream.synchronize()  # the context may serve another stream next
        self._logger.take()
        contexts.keep()
        return Session(self.engine, context, contexts, torch.device("cuda", index), failure)

    def _load(self, index: int) -> Contexts:
        """The engine on a device. TensorRT loads on the device that is current."""
        with self._lock:
            if index not in self._loaded:
                from trtplug.network.logger import new_runtime

                runtime = new_runtime(self._logger)
                with torch.cuda.device(index):
                    loaded = runtime.deserialize_cuda_engine(self.engine.plan)
                if loaded is None:
                    raise Failure(self.engine.name, self._logger)(f"cannot be loaded on cuda:{index}")
                self._set_budget(loaded)
                plan, options = self.engine.plan, self.options
                store = None if options.cache_dir is None else KernelStore(plan, index, options)  # type: ignore[arg-type]
                self._loaded[index] = Contexts(loaded, runtime, index, self._logger, store)
            return self._loaded[index]

    def _set_budget(self, loaded: Any) -> None:
        """How much of an engine's weights stays on the GPU: that is decided before it has a context."""
        streamable, budget = getattr(loaded, "streamable_weights_size", 0), self.options.weight_budget_bytes
        if budget is None:
            budget = streamable
        elif not streamable:
            what = f"{self.engine.name} was not built to have its weights streamed, or has none"
            raise ExecutorError(f"{what}: compile with weight_streaming=True, or leave out weight_budget_bytes")
        if not streamable:
            return
        loaded.weight_streaming_budget_v2 = min(budget, streamable)
        if loaded.weight_streaming_budget_v2 != min(budget, streamable):
            raise Failure(self.engine.name, self._logger)(f"takes no budget of {budget:,} bytes for its weights")
