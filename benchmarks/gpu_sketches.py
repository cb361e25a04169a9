"""What `gpu.py` runs in its processes: networks of a few layers, for questions that only a GPU answers."""

from __future__ import annotations

from typing import Any

import torch
from gpu_jobs import relative_error

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

        engine = CompiledEngine("attention", network.inputs, network.outputs, network.build(), None, 0)  # type: ignore[arg-type]  # not asked for
        (result,) = EngineRun(engine)(*[value.cuda() for value in s.values])
        torch.cuda.synchronize()
        return {**row, "error": relative_error(result.cpu().double(), reference.double())}
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
