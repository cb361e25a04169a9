"""A whole compiled model as members of a ``.trtp`` file, and back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from trtplug.artefacts.graphs import GraphReader, GraphWriter
from trtplug.artefacts.malformed import (
    Malformed,
    brief,
    field,
    fields,
    items,
    naming,
    need,
    of_type,
    parse,
    size,
    sizes,
    strings,
)
from trtplug.artefacts.records import record
from trtplug.artefacts.tensors import MEMBER as TENSORS
from trtplug.artefacts.tensors import TensorWriter, read_tensors
from trtplug.artefacts.values import (
    Place,
    decode,
    decode_size,
    decode_spec,
    dtype_name,
    encode,
    encode_size,
    encode_spec,
    torch_constant,
)
from trtplug.compiled import CompiledModule
from trtplug.engine import CompiledEngine, EngineModule
from trtplug.inputs import TensorInput
from trtplug.lowering import Lowered, Mutation
from trtplug.lowering.graphs import attribute
from trtplug.network import Binding
from trtplug.ranges import Range
from trtplug.report import CompilationReport
from trtplug_registry import Executor, TensorFacts

FORMAT, VERSION = "trtplug", 1
MANIFEST, MODEL, REPORT = "manifest.json", "model.json", "report.json"
_PLAN = re.compile(r"engines/[A-Za-z0-9_]{1,200}\.plan")
_POINTS = "smallest", "typical", "largest"

Parts = Callable[[], Iterable[memoryview]]


# --- writing ----------------------------------------------------------------------------------------------------------


def members_of(compiled: CompiledModule) -> dict[str, Parts]:
    """What a file of this model holds, by member, in order.

    Raises:
        Malformed: the model holds something that a file cannot hold.
    """
    tensors = TensorWriter()
    model = _model(compiled, GraphWriter(tensors))
    weights = tensors.finish()
    model["tensors"] = weights.table
    found = {
        MODEL: _constant(_json(model)),
        REPORT: _constant(compiled.report.to_json().encode()),
        TENSORS: weights.parts,
        **{_plan(engine.name): _constant(engine.plan) for engine in compiled.engines},
    }
    return {MANIFEST: _constant(_manifest(compiled.report, found)), **found}


def _manifest(report: CompilationReport, found: Mapping[str, Parts]) -> bytes:
    described = {}
    for name, parts in found.items():
        digest, count = hashlib.sha256(), 0
        for part in parts():
            digest.update(part)
            count += len(part)
        described[name] = {"bytes": count, "sha256": digest.hexdigest()}
    versions = dict(report.versions)
    target = {name: version for name, version in versions.items() if name.startswith("tensorrt")}
    head = {"format": FORMAT, "version": VERSION, "versions": versions}
    return _json({**head, "targets": [{**target, "system": _system()}], "members": described})


def _system() -> str:
    return f"{sys.platform}-{platform.machine()}"


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n").encode()


def _constant(data: bytes | memoryview) -> Parts:
    return lambda: (memoryview(data),)


def _plan(engine: str) -> str:
    return f"engines/{engine}.plan"


def _model(compiled: CompiledModule, writer: GraphWriter) -> dict[str, Any]:
    lowered = compiled.lowered
    paths = [str(mutation.target) for mutation in lowered.mutations if mutation.kind == "buffer"]
    written = {path: attribute(lowered.graph_module, path) for path in paths}  # no node need read them
    return {
        "inputs": list(lowered.input_names),
        "checks": [None if check is None else _check(check) for check in compiled.checks],
        "constants": [[place, encode(value)] for place, value in lowered.constants.items()],
        "in_spec": encode_spec(lowered.in_spec),
        "out_spec": encode_spec(lowered.out_spec),
        "mutations": [[mutation.kind, mutation.target] for mutation in lowered.mutations],
        "graph": writer.write(compiled.graph_module, "", written),
        "engines": [_engine(engine, writer) for engine in compiled.engines],
    }


def _check(check: TensorInput) -> dict[str, Any]:
    return {
        "name": check.name,
        "dtype": dtype_name(check.dtype),
        "sizes": [encode_size(extent) for extent in check.sizes],
        "ranges": [dataclasses.asdict(span) for span in check.ranges],
    }


def _engine(engine: CompiledEngine, writer: GraphWriter) -> dict[str, Any]:
    return {
        "name": engine.name,
        "layers": engine.num_layers,
        "inputs": [binding_to_json(binding) for binding in engine.input_bindings],
        "outputs": [binding_to_json(binding) for binding in engine.output_bindings],
        "reference": writer.write(engine.reference, f"{engine.name}."),
    }


def binding_to_json(binding: Binding) -> dict[str, Any]:
    """Name, dtype, shape (-1 where dynamic) and, for an input, the shapes that the engine is built for."""
    made = {
        "name": binding.name,
        "dtype": dtype_name(binding.facts.dtype),
        "shape": list(binding.facts.shape),
        "size": binding.size,
    }
    points = {name: list(getattr(binding, name)) for name in _POINTS}
    return {**made, **{name: point for name, point in points.items() if point}}


# --- reading ----------------------------------------------------------------------------------------------------------


def check_manifest(data: bytes) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each member, once the file is one that this version reads.

    Raises:
        Malformed: it is not.
    """
    manifest = of_type(parse(data), dict, "the manifest")
    need(manifest.get("format") == FORMAT, "it is not the manifest of a .trtp file")
    version = manifest.get("version")
    if type(version) is not int or version != VERSION:
        made_by = brief(dict(manifest.get("versions") or {}).get("trtplug", "?"))
        raise Malformed(
            f"the file has version {brief(version)} of the format and was written by trtplug {made_by}; "
            f"this trtplug reads version {VERSION}: install a trtplug that reads it, or compile the model again"
        )
    fields(manifest, "format", "version", "versions", "targets", "members")
    found = {}
    for name, entry in items(manifest["members"], "the members"):
        need(name in (MODEL, REPORT, TENSORS) or _PLAN.fullmatch(name), f"it names an unknown member {brief(name)}")
        fields(entry, "bytes", "sha256")
        found[name] = size(entry["bytes"], "a size"), of_type(entry["sha256"], str, "a SHA-256")
    missing = sorted({MODEL, REPORT, TENSORS} - found.keys())
    need(not missing, f"it does not name the members {missing}")
    return found


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A model as data, before Torch is asked for anything.

    Attributes:
        model: the JSON of the graphs and what surrounds them.
        report: the compilation's.
        tensors: the bytes of the safetensors member.
        plans: each engine's, by its name.
    """

    model: dict[str, Any]
    report: CompilationReport
    tensors: memoryview
    plans: Mapping[str, bytes]


def decode_members(members: Mapping[str, memoryview]) -> Decoded:
    """Reads the JSON of members whose SHA-256 is right.

    Raises:
        Malformed: it is not what it should be.
    """
    names = "inputs", "checks", "constants", "in_spec", "out_spec", "mutations", "graph", "engines", "tensors"
    with naming(MODEL):
        model = fields(parse(bytes(members[MODEL])), *names)
        engines = [field(entry, "name", str) for entry in of_type(model["engines"], list, "the engines")]
        need(len(set(engines)) == len(engines), "two engines have one name")
    with naming(REPORT):
        report = record(parse(bytes(members[REPORT])), CompilationReport)
        known = {node.name for node in report.nodes}
        for engine in report.engines:
            need(known.issuperset(engine.nodes), f"it does not know all of the nodes {brief(engine.nodes)}")
    plans = {name: members.get(_plan(name)) for name in engines}
    needed = {MODEL, REPORT, TENSORS, *map(_plan, plans)}
    need(needed == members.keys(), f"its engines and its plans differ: {sorted(needed ^ members.keys())}")
    return Decoded(
        model, report, members[TENSORS], {name: bytes(plan) for name, plan in plans.items() if plan is not None}
    )


def rebuild(decoded: Decoded, executor: Executor, place: Place) -> CompiledModule:
    """The compiled model.

    Raises:
        Malformed: the data contradicts itself, or needs an op that is not registered here.
    """
    with naming(TENSORS):
        tensors = read_tensors(decoded.tensors, decoded.model["tensors"], place)
    with naming(MODEL):
        return _compiled(decoded, executor, place, tensors)


def _compiled(decoded: Decoded, executor: Executor, place: Place, tensors: list[torch.Tensor]) -> CompiledModule:
    model = decoded.model
    references = GraphReader(tensors, {}, place)
    engines = tuple(_read_engine(entry, decoded.plans, references) for entry in model["engines"])
    runners = {engine.name: EngineModule(engine, executor) for engine in engines}
    graph_module = GraphReader(tensors, runners, place).read(model["graph"])
    checks = tuple(_read_check(entry) for entry in of_type(model["checks"], list, "the checks"))
    names = strings(model["inputs"], "the inputs")
    in_spec, out_spec = decode_spec(model["in_spec"]), decode_spec(model["out_spec"])
    placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    shaped = in_spec.type is tuple and [child.type for child in in_spec.children()] == [tuple, dict]
    need(shaped, "the inputs are not positional ones and keywords")
    counts = {len(names), len(checks), len(placeholders), in_spec.num_leaves}
    need(len(counts) == 1, f"it has different numbers of inputs: {sorted(counts)}")
    mutations = tuple(
        _mutation(entry, graph_module, len(names)) for entry in of_type(model["mutations"], list, "mutations")
    )
    (output,) = graph_module.graph.find_nodes(op="output")
    results = output.args[0]
    fits = isinstance(results, tuple | list) and len(results) == out_spec.num_leaves + len(mutations)
    need(fits, "the outputs of the graph are not those of the model")
    lowered = Lowered(
        graph_module,
        {},
        in_spec,
        out_spec,
        names,
        mutations,
        constants=_constants(model["constants"], len(names), place),
    )
    report = dataclasses.replace(decoded.report, executor=executor.name)
    return CompiledModule(graph_module, lowered, engines, report, checks=checks)


def _constants(data: Any, count: int, place: Place) -> dict[int, Any]:
    made = {}
    for entry in of_type(data, list, "the constants"):
        need(type(entry) is list and len(entry) == 2, "a constant is not a position and a value")
        need(size(entry[0], "a position") < count, f"there is no input {brief(entry[0])}")
        made[entry[0]] = decode(entry[1], {}, place)
    return made


def _mutation(entry: Any, graph_module: torch.fx.GraphModule, inputs: int) -> Mutation:
    need(type(entry) is list and len(entry) == 2, "a mutation is not a kind and a target")
    kind, target = entry
    if kind == "input":
        need(size(target, "a position") < inputs, f"there is no input {brief(target)}")
        return Mutation("input", target)
    need(kind == "buffer" and type(target) is str, f"{brief(entry)} is not a mutation")
    try:
        held = attribute(graph_module, target)
    except AttributeError:
        held = None
    need(isinstance(held, torch.Tensor), f"there is no buffer {brief(target)}")
    return Mutation("buffer", target)


def _read_check(entry: Any) -> TensorInput | None:
    if entry is None:
        return None
    entry = fields(entry, "name", "dtype", "sizes", "ranges")
    extents = tuple(decode_size(item) for item in of_type(entry["sizes"], list, "the sizes"))
    spans = tuple(record(item, Range) for item in of_type(entry["ranges"], list, "the ranges"))
    need(len(spans) == len(extents), "the ranges are not those of the sizes")
    return TensorInput(of_type(entry["name"], str, "a name"), torch_constant("dtype", entry["dtype"]), extents, spans)


def _read_engine(entry: Any, plans: Mapping[str, bytes], reader: GraphReader) -> CompiledEngine:
    entry = fields(entry, "name", "layers", "inputs", "outputs", "reference")
    inputs, outputs = (
        tuple(_read_binding(item) for item in of_type(entry[name], list, name)) for name in ("inputs", "outputs")
    )
    reference = reader.read(entry["reference"])
    takes = sum(node.op == "placeholder" for node in reference.graph.nodes)
    need(takes == len(inputs), f"{entry['name']} takes {len(inputs)} inputs, its reference {takes}")
    return CompiledEngine(
        entry["name"], inputs, outputs, plans[entry["name"]], reference, size(entry["layers"], "the number of layers")
    )


def _read_binding(entry: Any) -> Binding:
    entry = of_type(entry, dict, "an input or output")
    unknown = entry.keys() - {"name", "dtype", "shape", "size", *_POINTS}
    need(not unknown, f"an input or output has unknown fields {sorted(unknown)}")
    shape = of_type(entry.get("shape"), list, "a shape")
    need(all(type(extent) is int and -1 <= extent < 2**63 for extent in shape), f"{brief(shape)} is not a shape")
    facts = TensorFacts(tuple(shape), torch_constant("dtype", entry.get("dtype")))
    points = {name: sizes(entry.get(name, []), name) for name in _POINTS}
    return Binding(field(entry, "name", str), facts, size=field(entry, "size", bool), **points)
