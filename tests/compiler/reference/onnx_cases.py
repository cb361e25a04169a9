"""Runs the ONNX node tests through NVIDIA's parser and the reference executor; one verdict per test, as JSON.

A program of its own (``python onnx_cases.py [NAME …]``), because a native crash in the parser must cost one test only:
the tests are collected once, forked workers take turns at them, and a worker that dies is replaced by one that goes on
after the test it died of.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

WORKERS = 2

# Inputs that ONNX allows to be computed but TensorRT wants fixed; the first input stays an input always.
FIXED_INPUTS = frozenset(
    {"BatchNormalization", "Clip", "Conv", "ConvTranspose", "DequantizeLinear", "GroupNormalization"}
    | {"InstanceNormalization", "LayerNormalization", "Pad", "QuantizeLinear", "Resize"}
)
LIVE_INDICES = frozenset({"Gather", "GatherElements", "GatherND", "ScatterElements", "Where"})
UNKNOWN_DTYPES = frozenset({"int16", "uint16", "uint32", "uint64"})


def feeding_plans(model: Any, arrays: list[Any]) -> Iterator[set[int]]:
    """Which inputs to leave inputs, as sets of their places: the first plan that the parser accepts is used."""
    everything = set(range(len(arrays)))
    op = model.graph.node[0].op_type if len(model.graph.node) == 1 else ""
    if op not in ("QuantizeLinear", "DequantizeLinear"):  # parsed, but TensorRT needs constant coefficients
        yield everything
    integers = {i for i, a in enumerate(arrays) if a.dtype.kind == "i" and a.ndim <= 1 and len(arrays) > 1}
    fixed = {i for i, a in enumerate(arrays) if a.ndim == 0 or a.size == 0}
    fixed |= integers if op not in LIVE_INDICES else set()
    fixed |= everything - {0} if op in FIXED_INPUTS else set()
    if fixed and everything - fixed:
        yield everything - fixed
    if len(arrays) > 1:
        yield {0}


class Silent:
    """Makes a logger that TensorRT may call and nobody hears."""

    def __new__(cls) -> Any:
        from trtplug._tensorrt import library

        trt = library()

        class Logger(trt.ILogger):  # type: ignore[name-defined, misc]
            def log(self, severity: Any, message: str) -> None:
                pass

        return Logger()


class RejectedError(Exception):
    """The parser refuses a model, or TensorRT the network it made of it."""


def parse(model: Any, arrays: list[Any], live: set[int], logger: Any) -> tuple[Any, Any, Any]:
    """The network for a model, some inputs of which become constants, and two objects to hold while it is used."""
    import onnx
    from onnx import numpy_helper

    from trtplug._tensorrt import library
    from trtplug.tf32 import PROCESS

    trt = library()
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for place, (value, array) in enumerate(zip(list(fixed.graph.input), arrays)):
        if place not in live:
            fixed.graph.initializer.append(numpy_helper.from_array(array, value.name))
            fixed.graph.input.remove(value)
    with PROCESS.making_a_builder():
        builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(fixed.SerializeToString()):
        raise RejectedError(parser.get_error(0).desc() if parser.num_errors else "no reason given")
    try:
        for index in range(network.num_outputs):
            list(network.get_output(index).shape)
    except (RuntimeError, ValueError) as error:
        raise RejectedError(f"shapes: {error}") from error
    return network, builder, parser


def usable(case: Any) -> tuple[list[Any], list[Any]] | str:
    """A test's inputs and expected outputs as arrays; why not, where TensorRT has no such values."""
    import numpy as np

    if not case.data_sets:
        return "no data"
    inputs, outputs = ([*values] for values in case.data_sets[0])
    if not all(isinstance(a, (np.ndarray, np.generic)) for a in inputs + outputs):
        return "an input or output is no tensor"
    arrays, expected = [np.asarray(a) for a in inputs], [np.asarray(a) for a in outputs]
    if any(a.dtype.kind not in "fiub" or str(a.dtype) in UNKNOWN_DTYPES for a in arrays + expected):
        return "a dtype that TensorRT does not know"
    if not arrays or len(case.model.graph.input) != len(arrays):
        return "no input"
    return arrays, expected


def run(case: Any, logger: Any, kinds: list[str]) -> tuple[str, str]:
    """A test's verdict (agrees, differs, unsupported, fails, rejected, skipped) and the details.

    The kinds of the network's layers are added to the list.
    """
    data = usable(case)
    if isinstance(data, str):
        return "skipped", data
    arrays, expected = data
    refusals = []
    for live in feeding_plans(case.model, arrays):
        try:
            network, *_held = parse(case.model, arrays, live, logger)
        except RejectedError as error:
            refusals.append(str(error))
            continue
        kinds += sorted({network.get_layer(index).type.name for index in range(network.num_layers)})
        names = [value.name for value in case.model.graph.input]
        return evaluated(network, {names[i]: arrays[i] for i in sorted(live)}, expected)
    return "rejected", refusals[0][:200]


def evaluated(network: Any, arrays: dict[str, Any], expected: list[Any]) -> tuple[str, str]:
    """The verdict on a network that was accepted."""
    import numpy as np
    import torch

    from trtplug.reference import LayerError, UnsupportedLayer, lift

    if network.num_layers == 0:
        return "skipped", "no layer is left"
    try:
        results = lift(network, {})(*fed(network, {n: torch.from_numpy(np.array(a)) for n, a in arrays.items()}))
    except UnsupportedLayer as error:
        return "unsupported", str(error)
    except LayerError as error:
        return "fails", str(error)
    return compared(results, expected)


def fed(network: Any, feeds: dict[str, Any]) -> Iterator[Any]:
    """The network's inputs in its order and dtypes; the parser may rename one that a loop passes through."""
    from trtplug._tensorrt import torch_dtype

    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    spare = [name for name in feeds if name not in {tensor.name for tensor in tensors}]
    for tensor in tensors:
        value = feeds[tensor.name if tensor.name in feeds else spare.pop(0)]
        yield value.to(torch_dtype(tensor.dtype))


def compared(results: Any, expected: list[Any]) -> tuple[str, str]:
    """Whether the results equal ONNX's up to rounding, which grows with the terms summed.

    Halves: 1e-2, since ONNX rounds at other places than TensorRT.
    """
    import numpy as np

    if len(results) != len(expected):
        return "differs", f"{len(results)} outputs, ONNX has {len(expected)}"
    for place, (have, want) in enumerate(zip(results, expected)):
        a, b = have.double().numpy(), want.astype("f8")
        if a.shape != b.shape:
            return "differs", f"output {place}: shape {a.shape}, ONNX has {b.shape}"
        largest = np.abs(b[np.isfinite(b)]).max(initial=1.0) if b.dtype.kind == "f" else 1.0
        atol = largest * (1e-2 if want.dtype == np.float16 else 1e-4)
        if not np.allclose(a, b, rtol=1e-3, atol=atol, equal_nan=True):
            with np.errstate(invalid="ignore"):
                return "differs", f"output {place}: by up to {np.nanmax(np.abs(a - b)):.4g}"
    return "agrees", ""


def work(cases: list[Any], out: int) -> None:
    """Run tests one after the other, writing a line before and after each."""
    import torch

    torch.set_num_threads(1)
    logger = Silent()
    for case in cases:
        os.write(out, f"{case.name}\n".encode())
        kinds: list[str] = []
        started = time.perf_counter()
        try:
            verdict, detail = run(case, logger, kinds)
        except Exception as error:
            verdict, detail = "broken", f"{type(error).__name__}: {error}"
        record = {"name": case.name, "verdict": verdict, "detail": detail[:300], "kinds": kinds}
        record["seconds"] = round(time.perf_counter() - started, 3)
        os.write(out, (json.dumps(record) + "\n").encode())


def fork(cases: list[Any]) -> tuple[int, Any]:
    """A worker process and the file that its lines come from."""
    reading, writing = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.close(reading)
        code = 1
        try:
            work(cases, writing)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    return worker, os.fdopen(reading)


def verdicts(cases: list[Any]) -> Iterator[dict[str, Any]]:
    """Every test's record, in the order in which the workers are read."""
    shares = [cases[i::WORKERS] for i in range(WORKERS)]
    workers = [fork(share) for share in shares]
    while workers:
        (worker, lines), share = workers.pop(0), shares.pop(0)
        done, current = 0, ""
        for line in lines:
            if line.startswith("{"):
                done += 1
                yield json.loads(line)
            else:
                current = line.strip()
        _, status = os.waitpid(worker, 0)
        if status != 0:
            yield {"name": current, "verdict": "crashed", "detail": f"status {status}", "kinds": []}
            shares.append(share[done + 1 :])
            workers.append(fork(shares[-1]))


def main(names: list[str]) -> None:
    import onnx  # noqa: F401
    import torch  # noqa: F401
    from onnx.backend.test.case.node import collect_testcases

    import trtplug.reference  # noqa: F401
    from trtplug._tensorrt import library

    library()  # before the fork: every worker has it
    cases = [case for case in collect_testcases(None) if "training" not in case.name]
    if names:
        cases = [case for case in cases if case.name in set(names)]
    for record in verdicts(cases):
        print(json.dumps(record))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1:])
