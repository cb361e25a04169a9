"""One engine as data: what it takes and returns, TensorRT's plan, and what its network means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import torch

from trtplug.artefacts.bundle import Parts, constant, read_bundle, read_manifest, to_json, with_manifest, write_bundle
from trtplug.artefacts.graphs import GraphReader, GraphWriter
from trtplug.artefacts.malformed import brief, field, fields, naming, need, of_type, parse, size, sizes
from trtplug.artefacts.tensors import MEMBER as TENSORS
from trtplug.artefacts.tensors import TensorWriter, read_tensors
from trtplug.artefacts.values import decode_size, dtype_name, encode_size, torch_constant
from trtplug.engine import CompiledEngine
from trtplug.network import Binding
from trtplug_registry import ShapeRange, TensorFacts

FORMAT, VERSION = "trtplug engine", 1
ENGINE, PLAN, WORK = "engine.json", "engine.plan", "work.json"
_POINTS = "smallest", "typical", "largest"


# --- one engine by itself ---------------------------------------------------------------------------------------------


def write_engine(
    file: BinaryIO,
    engine: CompiledEngine,
    versions: Mapping[str, str],
    work: bytes | None = None,
    weights: Sequence[torch.Tensor] = (),
) -> None:
    """Writes an engine, in the container of ``.trtp`` files.

    Args:
        work: JSON that says what the engine was made of, for the cache.
        weights: tensors that whoever reads the file has, so that they need not be in it.

    Raises:
        Malformed: the engine's reference holds something that a file cannot hold.
    """
    tensors = _Without(weights)
    described = engine_to_json(engine, GraphWriter(tensors))
    stored = tensors.finish()
    described["tensors"] = stored.table
    members: dict[str, Parts] = {ENGINE: constant(to_json(described))}
    if work is not None:
        members[WORK] = constant(work)
    members |= {TENSORS: stored.parts, PLAN: constant(engine.plan)}
    write_bundle(file, with_manifest(FORMAT, VERSION, versions, members))


class _Without(TensorWriter):
    """Writes tensors, but for those that are given: they have the first numbers."""

    def __init__(self, given: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self._given = len(given)
        self._at = {_whole(tensor): number for number, tensor in enumerate(given) if tensor.is_contiguous()}

    def add(self, name: str, tensor: torch.Tensor) -> int:
        known = self._at.get(_whole(tensor)) if tensor.is_contiguous() and tensor.numel() else None
        return self._given + super().add(name, tensor) if known is None else known


def _whole(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Equal where two contiguous tensors are the same memory, seen in the same way."""
    return tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape)


def read_engine(file: BinaryIO, work: bytes | None = None, weights: Sequence[torch.Tensor] = ()) -> CompiledEngine:
    """The opposite of `write_engine`.

    Args:
        work: what the engine must have been made of.
        weights: as they were when the file was written, by their data.

    Raises:
        Malformed: the file is damaged, foreign, of another version, or was made of something else.
    """
    members = read_bundle(file, _check_manifest)
    if work is not None:
        need(members.get(WORK, memoryview(b"")) == work, "it was made of something else")
    with naming(ENGINE):
        described = fields(parse(bytes(members[ENGINE])), *_FIELDS, "tensors")
        table = described.pop("tensors")
    with naming(TENSORS):
        tensors = [*(weight.detach() for weight in weights), *read_tensors(members[TENSORS], table, torch.device)]
    with naming(ENGINE):
        plans = {field(described, "name", str): bytes(members[PLAN])}
        return engine_from_json(described, plans, GraphReader(tensors, {}, torch.device))


def _check_manifest(data: bytes) -> dict[str, tuple[int, str]]:
    found = read_manifest(data, FORMAT, VERSION, "an engine")
    need(found.keys() - {WORK} == {ENGINE, TENSORS, PLAN}, f"it names the members {brief(sorted(found))}")
    return found


# --- JSON -------------------------------------------------------------------------------------------------------------

_FIELDS = "name", "layers", "inputs", "outputs", "reference"


def engine_to_json(engine: CompiledEngine, writer: GraphWriter) -> dict[str, Any]:
    """An engine without its plan.

    Raises:
        Malformed: its reference holds something that a file cannot hold.
    """
    return {
        "name": engine.name,
        "layers": engine.num_layers,
        "inputs": [binding_to_json(binding) for binding in engine.input_bindings],
        "outputs": [binding_to_json(binding) for binding in engine.output_bindings],
        "reference": writer.write(engine.reference, f"{engine.name}."),
    }


def binding_to_json(binding: Binding) -> dict[str, Any]:
    """Name, dtype, shape (-1 where dynamic) and, for an input, the shapes that the engine is built for.

    Where an engine has several optimization profiles, ``profiles`` has those shapes for each of them, in order.
    Where sizes are dynamic, ``extents`` has their expressions, by which sizes of inputs decide those of outputs.
    """
    made = {
        "name": binding.name,
        "dtype": dtype_name(binding.facts.dtype),
        "shape": list(binding.facts.shape),
        "size": binding.size,
    }
    points = {name: list(getattr(binding, name)) for name in _POINTS}
    made |= {name: point for name, point in points.items() if point}
    if binding.profiles:
        made["profiles"] = [dict(zip(_POINTS, map(list, span))) for span in binding.profiles]
    if binding.dynamic or binding.size:
        made["extents"] = [encode_size(extent) for extent in binding.extents]
    return made


def engine_from_json(entry: Any, plans: Mapping[str, bytes], reader: GraphReader) -> CompiledEngine:
    """The opposite of `engine_to_json`.

    Raises:
        Malformed: the data contradicts itself.
    """
    entry = fields(entry, *_FIELDS)
    inputs, outputs = (
        tuple(binding_from_json(item) for item in of_type(entry[name], list, name)) for name in ("inputs", "outputs")
    )
    need(len({len(binding.profiles) for binding in inputs}) <= 1, f"{entry['name']}'s inputs differ in profiles")
    reference = reader.read(entry["reference"])
    takes = sum(node.op == "placeholder" for node in reference.graph.nodes)
    need(takes == len(inputs), f"{entry['name']} takes {len(inputs)} inputs, its reference {takes}")
    return CompiledEngine(
        entry["name"], inputs, outputs, plans[entry["name"]], reference, size(entry["layers"], "the number of layers")
    )


def binding_from_json(entry: Any) -> Binding:
    """The opposite of `binding_to_json`."""
    entry = of_type(entry, dict, "an input or output")
    unknown = entry.keys() - {"name", "dtype", "shape", "size", "extents", "profiles", *_POINTS}
    need(not unknown, f"an input or output has unknown fields {sorted(unknown)}")
    shape = of_type(entry.get("shape"), list, "a shape")
    need(all(type(extent) is int and -1 <= extent < 2**63 for extent in shape), f"{brief(shape)} is not a shape")
    facts = TensorFacts(tuple(shape), torch_constant("dtype", entry.get("dtype")))
    points = {name: sizes(entry.get(name, []), name) for name in _POINTS}
    is_size = field(entry, "size", bool)
    extents = tuple(decode_size(item) for item in of_type(entry.get("extents", shape), list, "the extents"))
    need(
        len(extents) == (1 if is_size and "extents" in entry else len(shape)), "the extents are not those of the shape"
    )
    profiles = tuple(
        _span(item, len(points["typical"])) for item in of_type(entry.get("profiles", []), list, "profiles")
    )
    return Binding(field(entry, "name", str), facts, size=is_size, extents=extents, profiles=profiles, **points)


def _span(entry: Any, rank: int) -> ShapeRange:
    entry = fields(entry, *_POINTS)
    smallest, typical, largest = (sizes(entry[name], name) for name in _POINTS)
    need({len(smallest), len(typical), len(largest)} == {rank}, "the shapes of a profile differ in rank")
    return smallest, typical, largest
