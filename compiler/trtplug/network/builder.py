"""The checked builder: the only route into a TensorRT network.

Every layer is named after the FX node it comes from, and its shape is read at once, because that is when TensorRT says
what is wrong with it. TensorRT's logged errors become `ConversionError`s that carry its own words.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from trtplug._tensorrt import library, torch_dtype, trt_dtype
from trtplug.errors import ConversionError
from trtplug.naming import op_name
from trtplug.network.logger import making, new_logger
from trtplug.network.regions import Region, Regions
from trtplug.tf32 import PROCESS

MAX_NAME = 1000  # TensorRT's limit is 4,096 characters


class NetworkBuilder:
    """A network under construction, one FX node at a time.

    Attributes:
        definition: the real ``INetworkDefinition``.
        weights: every constant's value (on the CPU), by layer name. TensorRT does not copy weights: they live here, and
            must outlive the engine build.
        nodes: the FX node that each layer comes from, by layer name.
    """

    def __init__(self) -> None:
        trt = library()
        self.trt = trt
        self.logger = new_logger()
        with PROCESS.making_a_builder(), making():
            self.builder = trt.Builder(self.logger)
        flag = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)  # the bit has moved between versions
        self.definition = self.builder.create_network(flag)
        self.weights: dict[str, torch.Tensor] = {}
        self.nodes: dict[str, Node] = {}
        self.node: Node | None = None
        self._prefix = "network"
        self._counts: dict[str, int] = {}
        self._constants: dict[Any, Any] = {}
        self._frozen: dict[Any, torch.Tensor] = {}
        self._pieces: dict[Any, Any] = {}  # parts of inputs, and what is put together from parts of one: that input
        self._joined: set[Any] = set()  # the latter
        self._own: set[Any] = set()
        self._regions = Regions()
        self._caller: Node | None = None
        self._seen_layers = 0
        self._finished = False

    def enter(self, node: Node) -> None:
        """Layers from here on come from this node."""
        self.node = node
        self._prefix = (f"{self._caller.name}.{node.name}" if self._caller is not None else node.name)[:MAX_NAME]
        self.logger.take()

    @contextlib.contextmanager
    def called(self) -> Iterator[None]:
        """The nodes entered within are of a graph that the current node calls, which answers for their layers."""
        node, prefix, caller = self.node, self._prefix, self._caller
        self._caller = caller or node
        try:
            yield
        finally:
            self.node, self._prefix, self._caller = node, prefix, caller

    def fail(self, what: str, cause: BaseException | None = None) -> ConversionError:
        """The error for the current node, with what TensorRT has logged. To be raised by the caller."""
        error = ConversionError(what, self.node, self.logger.take())
        error.__cause__ = cause
        return error

    def finish(self) -> None:
        """No layer is added from here on, whoever has kept the builder."""
        self._finished = True

    def owns(self, tensor: Any) -> bool:
        """Whether a tensor is of this network, and not of another one that somebody has kept."""
        if tensor not in self._own:  # a layer inside a loop or conditional is made by that, not by `add`
            for place in range(self._seen_layers, self.definition.num_layers):
                layer = self.definition.get_layer(place)
                self._own.update(layer.get_output(number) for number in range(layer.num_outputs))
            self._seen_layers = self.definition.num_layers
        return tensor in self._own

    # --- layers ---------------------------------------------------------------------------------------------------

    def add(
        self,
        kind: str,
        *args: Any,
        inputs: Mapping[int, Any] | None = None,
        keywords: Mapping[str, Any] | None = None,
        **attributes: Any,
    ) -> Any:
        """``network.add_<kind>(*args, **keywords)``; then sets inputs by number and attributes by name.

        Returns the layer.

        Raises:
            ConversionError: TensorRT has no such layer, or refuses the layer, an input or an attribute.
        """
        self._permit(kind, *args, *(inputs or {}).values(), *(keywords or {}).values())
        method = getattr(self.definition, f"add_{kind}", None)
        if method is None:
            raise self.fail(f"TensorRT {self.trt.__version__} has no add_{kind}")
        layer = self._made(
            kind, method, *map(self.here, args), **{k: self.here(v) for k, v in (keywords or {}).items()}
        )
        try:
            for number, tensor in (inputs or {}).items():
                layer.set_input(number, self.here(tensor))
            for name, value in attributes.items():
                if not hasattr(type(layer), name):
                    raise self.fail(f"a layer made by add_{kind} has no attribute {name!r}")
                setattr(layer, name, value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise self.fail(f"add_{kind}: {_first_line(error)}", error) from error
        self._check(layer)
        if kind in ("slice", "concatenation"):
            self._note_piece(layer, *args[:1])
        return layer

    def _note_piece(self, layer: Any, given: Any) -> None:
        """Keeps which network input a tensor is a part of, or is put together from the parts of."""
        parts = [part for part in given if 0 not in part.shape] if isinstance(given, list | tuple) else [given]
        wholes = {self._pieces.get(part, part) for part in parts}
        if len(wholes) == 1 and next(iter(wholes)).is_network_input:
            self._pieces[layer.get_output(0)] = wholes.pop()
            self._joined.update([layer.get_output(0)] if len(parts) > 1 else [])

    def _permit(self, kind: str, *values: Any) -> None:
        """Raises where the network is finished, or a tensor is not of it."""
        if self._finished:
            raise self.fail("this network is finished: a converter kept it, and adds to it now")
        for value in values:
            for tensor in value if isinstance(value, list | tuple) else (value,):
                if isinstance(tensor, self.trt.ITensor) and not self.owns(tensor):
                    raise self.fail(f"add_{kind}: the tensor {tensor.name!r} belongs to another network")

    def _made(self, kind: str, method: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        """What a method of TensorRT's makes, with a name of its own."""
        try:
            layer = method(*args, **keywords)
        except (TypeError, ValueError, RuntimeError) as error:
            raise self.fail(f"add_{kind}: {_first_line(error)}", error) from error
        if layer is None:
            raise self.fail(f"TensorRT refuses add_{kind}")
        self._name(layer, kind)
        return layer

    def _unused(self, kind: str) -> str:
        base = f"{self._prefix}.{kind}"
        count = self._counts[base] = self._counts.get(base, 0) + 1
        return base if count == 1 else f"{base}.{count}"

    def _name(self, layer: Any, kind: str) -> None:
        name = layer.name = self._unused(kind)
        if self.node is not None:
            node = self.nodes[name] = self._caller or self.node
            layer.metadata = f"{node.name}:{op_name(self.node)}"

    def _check(self, layer: Any) -> None:
        """Reads every output's shape, which makes TensorRT judge the layer."""
        sources = [layer.get_input(number) for number in range(layer.num_inputs)] if self._regions else []
        for number in range(getattr(layer, "num_outputs", 0)):
            try:
                tensor = layer.get_output(number)
                self._own.add(tensor)
                self._regions.made(tensor, sources)
                tuple(tensor.shape)
            except (RuntimeError, ValueError) as error:  # RuntimeError since 1.7, ValueError before
                raise self.fail(f"TensorRT refuses the layer {layer.name!r}", error) from error
        if self.logger.errors:
            raise self.fail(f"TensorRT reports an error at {getattr(layer, 'name', 'a layer')!r}")

    # --- conditionals and loops -----------------------------------------------------------------------------------

    def here(self, value: Any, boundary: bool = False) -> Any:
        """A tensor (or each of a list) as a layer here may read it: brought into the open branches. Others as is.

        At the boundary of a region constants too, and all into the open loops: else TensorRT finds the region outside.
        """
        if not self._regions:
            return value
        if isinstance(value, list | tuple):
            return type(value)(map(self.here, value))
        if not isinstance(value, self.trt.ITensor):
            return value
        fixed = value in self._frozen  # wherever it was made, it lies outside of every region
        if fixed and not boundary:
            return value
        for region in self._regions.entered_for(value, fixed=fixed):
            if region.conditional is not None:
                value = self._brought(value, region)
            elif boundary:
                value = self.varying(value, region)
        return value

    def _brought(self, tensor: Any, branch: Region) -> Any:
        """A tensor from outside of a branch, in it."""
        if tensor not in branch.entries:
            with self._regions.up_to(branch):
                layer = self._made("conditional_input", branch.conditional.add_input, tensor)
                self._check(layer)
            branch.entries[tensor] = layer.get_output(0)
        branch.inside.add(branch.entries[tensor])
        return branch.entries[tensor]

    def varying(self, tensor: Any, region: Region) -> Any:
        """A tensor from outside of a loop, in it: selected by a state of the loop that is always true.

        TensorRT takes what does not depend on the iteration for a tensor outside of the loop, and then cannot build a
        loop in a branch or another loop that has one as its next state, nor a loop in a loop that starts with one.
        """
        if tensor in region.inside:
            return tensor
        if tensor not in region.entries:
            with self._regions.up_to(region, around=True):
                always = self.boundary("recurrence", region.loop.add_recurrence, self.constant(True))
            region.inside.add(always.get_output(0))
            with self._regions.up_to(region):
                always.set_input(1, self.add("identity", always.get_output(0)).get_output(0))
                rank = len(tensor.shape)
                flag = self.add("shuffle", always.get_output(0), reshape_dims=(1,) * rank) if rank else always
                region.entries[tensor] = self.add("select", flag.get_output(0), tensor, tensor).get_output(0)
        return region.entries[tensor]

    def within(self, region: Region) -> contextlib.AbstractContextManager[Region]:
        """Layers from here on lie in a region."""
        return self._regions.within(region)

    def region(self, kind: str) -> Any:
        """TensorRT's own object for a new ``"if_conditional"`` or ``"loop"``."""
        self._permit(kind)
        made = getattr(self.definition, f"add_{kind}")()
        made.name = self._unused(kind)
        return made

    def boundary(self, kind: str, method: Callable[..., Any], *args: Any, length: Any = None) -> Any:
        """A layer that a conditional's or loop's own method makes (``loop.add_recurrence``). Checked as any other.

        `length` becomes the second input.
        """
        self._permit(kind, *args, length)
        layer = self._made(kind, method, *(self.here(value, boundary=True) for value in args))
        if length is not None:
            layer.set_input(1, self.here(length))
        self._check(layer)
        return layer

    # --- constants ------------------------------------------------------------------------------------------------

    def constant(self, value: Any, dtype: torch.dtype | None = None, rank: int | None = None) -> Any:
        """A constant from a number, a nested sequence or a tensor; `rank` adds leading axes of size 1.

        Equal numbers and identical tensors share one layer.
        """
        if isinstance(value, torch.Tensor):
            key: Any = (id(value), dtype, rank)
            tensor = value.detach()
        else:
            tensor = torch.tensor(value, dtype=dtype)
            if isinstance(value, float) and not tensor.is_floating_point() and tensor.item() != value:
                raise self.fail(f"the number {value} cannot be a constant of {dtype}: cast the other operand first")
            key = (tuple(tensor.shape), tensor.dtype, rank, repr(value))
        known = self._constants.get(key)
        if known is None:
            tensor = tensor.to("cpu", dtype or tensor.dtype)
            if rank is not None:
                tensor = tensor.reshape((1,) * (rank - tensor.dim()) + tuple(tensor.shape))
            # the value itself is kept, so that its id stays its own
            known = self._constants[key] = (self._add_constant(tensor), value)
        return known[0]

    def _add_constant(self, tensor: torch.Tensor) -> Any:
        tensor = tensor.contiguous()
        if tensor.dtype not in _WEIGHT_DTYPES:
            raise self.fail(f"TensorRT has no constants of {tensor.dtype}")
        layer = self.add("constant", tuple(tensor.shape), self._weights_of(tensor))
        self.weights[layer.name] = tensor
        output = layer.get_output(0)
        self._frozen[output] = tensor
        return output

    def _weights_of(self, tensor: torch.Tensor) -> Any:
        if tensor.numel() == 0:
            return self.trt.Weights(trt_dtype(tensor.dtype))
        if tensor.dtype in _NUMPY_DTYPES:
            array = tensor.numpy()
            assert isinstance(array, np.ndarray)
            return self.trt.Weights(array)
        return self.trt.Weights(trt_dtype(tensor.dtype), tensor.data_ptr(), tensor.numel())

    def frozen(self, tensor: Any) -> torch.Tensor | None:
        """The value of a constant, else None."""
        return self._frozen.get(tensor)

    # --- inputs and outputs ---------------------------------------------------------------------------------------

    def add_input(self, name: str, dtype: torch.dtype, shape: Sequence[int], sizes: Sequence[str] = ()) -> Any:
        """A network input; -1 is a dynamic size. `sizes` names all of them: those of one name are equal to TensorRT."""
        tensor = self.definition.add_input(name, trt_dtype(dtype), tuple(shape))
        if tensor is None or self.logger.errors:
            raise self.fail(f"TensorRT refuses an input {dtype}{list(shape)}")
        for axis, size in enumerate(sizes):
            if shape[axis] < 0:
                tensor.set_dimension_name(axis, size)
        self._own.add(tensor)
        return tensor

    def mark_output(self, tensor: Any, name: str) -> Any:
        """Makes a tensor an output. One that is an input, a constant or an output already goes through an identity.

        So does what may be all of an input, put together from its parts: TensorRT-RTX 1.6 would never write it.
        """
        taken = tensor.is_network_input or tensor.is_network_output or tensor in self._frozen or tensor in self._joined
        if taken:
            tensor = self.add("identity", tensor).get_output(0)
        tensor.name = name
        self.definition.mark_output(tensor)
        return tensor

    def dtype(self, tensor: Any) -> torch.dtype:
        return torch_dtype(tensor.dtype)


_NUMPY_DTYPES = (torch.float32, torch.float16, torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool)
_WEIGHT_DTYPES = (*_NUMPY_DTYPES, torch.bfloat16, torch.float8_e4m3fn)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
