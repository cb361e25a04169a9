"""Networks written by hand: no converter has touched them."""

from __future__ import annotations

from typing import Any

import torch

from trtplug._tensorrt import library, torch_dtype, trt_dtype
from trtplug.reference import LiftedModule, lift
from trtplug.tf32 import PROCESS

trt = library()


class Quiet(trt.ILogger):
    """A logger that keeps what it hears."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.records: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        self.records.append(message)


class Handmade:
    """A network definition under construction, with short ways to write inputs, constants and outputs."""

    def __init__(self) -> None:
        self.logger = Quiet()
        with PROCESS.making_a_builder():  # the first one of a process decides on TF32 for all others
            self.builder = trt.Builder(self.logger)
        self.network = self.builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        self.held: list[Any] = []
        self.table: dict[str, torch.Tensor] = {}

    def input(self, name: str, dtype: torch.dtype, *shape: int) -> Any:
        return self.network.add_input(name, trt_dtype(dtype), shape)

    def constant(self, value: Any, dtype: torch.dtype | None = None) -> Any:
        """A constant that the network hands back as numpy, or, for bfloat16 and fp8, through the table only."""
        tensor = torch.as_tensor(value, dtype=dtype)
        return self.constant_layer(tensor).get_output(0)

    def constant_layer(self, tensor: torch.Tensor) -> Any:
        self.held.append(tensor)
        layer = self.network.add_constant(tuple(tensor.shape), self.weights(tensor))
        if tensor.dtype in (torch.bfloat16, torch.float8_e4m3fn):
            layer.name = f"constant_{len(self.table)}"
            self.table[layer.name] = tensor
        return layer

    def weights(self, tensor: torch.Tensor) -> Any:
        self.held.append(tensor)
        if tensor.dtype in (torch.bfloat16, torch.float8_e4m3fn):
            return trt.Weights(trt_dtype(tensor.dtype), tensor.data_ptr(), tensor.numel())
        self.held.append(tensor.contiguous().numpy())
        return trt.Weights(self.held[-1])

    def lift(self, *outputs: Any, check: bool = True) -> LiftedModule:
        for tensor in outputs:
            self.network.mark_output(tensor)
        return lift(self.network, self.table, check=check)

    def run(self, output: Any, *inputs: torch.Tensor) -> torch.Tensor:
        """The value of one output."""
        (result,) = self.lift(output)(*inputs)
        assert isinstance(result, torch.Tensor)
        return result

    def engine(self, inputs: dict[str, torch.Tensor]) -> Any:
        """An engine for these very inputs, built and loaded: for a GPU that TensorRT supports."""
        config, profile = self.builder.create_builder_config(), self.builder.create_optimization_profile()
        config.clear_flag(trt.BuilderFlag.TF32)
        for index in range(self.network.num_inputs):
            tensor = self.network.get_input(index)
            value = inputs[tensor.name]
            if tensor.is_shape_tensor:
                profile.set_shape_input(tensor.name, *[value.reshape(-1).tolist()] * 3)
            elif -1 in tensor.shape:
                profile.set_shape(tensor.name, *[tuple(value.shape)] * 3)
        config.add_optimization_profile(profile)
        plan = self.builder.build_serialized_network(self.network, config)
        assert plan is not None, self.logger.records[-3:]
        self.held.append(trt.Runtime(self.logger))
        engine = self.held[-1].deserialize_cuda_engine(plan)
        assert engine is not None, self.logger.records[-3:]
        return engine

    def run_on_engine(self, output: Any, *inputs: torch.Tensor) -> torch.Tensor:
        """The value of one output, computed by TensorRT itself on a GPU."""
        self.network.mark_output(output)
        names = [self.network.get_input(index).name for index in range(self.network.num_inputs)]
        engine = self.engine(dict(zip(names, inputs, strict=True)))
        context = engine.create_execution_context()
        held = []
        for name, value in zip(names, inputs):
            here = value if engine.is_shape_inference_io(name) else value.cuda()
            held.append(here.contiguous() if here.numel() else here.new_zeros(1))
            if not engine.is_shape_inference_io(name):
                context.set_input_shape(name, tuple(value.shape))
            context.set_tensor_address(name, held[-1].data_ptr())
        shape = tuple(context.get_tensor_shape(output.name))
        result = torch.empty(shape, dtype=torch_dtype(output.dtype), device="cuda")
        spare = torch.empty(max(result.numel(), 1), dtype=result.dtype, device="cuda")
        context.set_tensor_address(output.name, spare.data_ptr())
        stream = torch.cuda.Stream()
        assert context.execute_async_v3(stream.cuda_stream), self.logger.records[-3:]
        stream.synchronize()
        return spare[: result.numel()].reshape(shape).cpu()

    def computed_shape(self, value: Any) -> list[int] | None:
        """What TensorRT's own shape arithmetic makes of a 1-D integer tensor; None where it declines.

        Each element becomes the size of a fill layer's output. Offset and clipped: a size must not be negative.
        """
        return [self._computed(value, place) for place in range(value.shape[0])]  # type: ignore[misc]

    def _computed(self, value: Any, place: int) -> int | None:
        op, n = trt.ElementWiseOperation, self.network
        dtype = torch.int64 if value.dtype == trt.int64 else torch.int32
        one = n.add_slice(value, (place,), (1,), (1,)).get_output(0)
        low = n.add_elementwise(one, self.constant([-CLIP], dtype), op.MAX).get_output(0)
        both = n.add_elementwise(low, self.constant([CLIP], dtype), op.MIN).get_output(0)
        size = n.add_elementwise(both, self.constant([CLIP], dtype), op.SUM).get_output(0)
        fill = n.add_fill((1,), trt.FillOperation.LINSPACE, trt.float32)
        fill.set_input(0, size)
        try:
            found = int(fill.get_output(0).shape[0])
        except (RuntimeError, ValueError):
            return None
        return None if found < 0 else found - CLIP


CLIP = 2**30 - 1
