"""A whole compiled model as members of a ``.trtp`` file, and back."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import sympy
import torch

from trtplug.artefacts.bundle import Parts, constant, read_manifest, to_json, with_manifest
from trtplug.artefacts.engines import engine_from_json, engine_to_json
from trtplug.artefacts.graphs import GraphReader, GraphWriter
from trtplug.artefacts.malformed import (
    brief,
    field,
    fields,
    naming,
    need,
    of_type,
    parse,
    size,
    strings,
)
from trtplug.artefacts.records import record, report_of
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
from trtplug.branches import RELATIONS, Branch
from trtplug.compiled import CompiledModule
from trtplug.engine import EngineModule
from trtplug.inputs import TensorInput
from trtplug.lowering import Lowered, Mutation
from trtplug.lowering.graphs import attribute
from trtplug.ranges import Range
from trtplug.report import CompilationReport
from trtplug.reporting import once_loaded
from trtplug_registry import Executor, RunOptions

FORMAT, VERSION = "trtplug", 1
MODEL, REPORT = "model.json", "report.json"
_PLAN = re.compile(r"engines/[A-Za-z0-9_]{1,200}\.plan")


# --- writing ----------------------------------------------------------------------------------------------------------


def members_of(compiled: CompiledModule) -> Mapping[str, Parts]:
    """What a file of this model holds, by member, in order.

    Raises:
        Malformed: the model holds something that a file cannot hold.
    """
    tensors = TensorWriter()
    model = _model(compiled, GraphWriter(tensors))
    weights = tensors.finish()
    model["tensors"] = weights.table
    found = {
        MODEL: constant(to_json(model)),
        REPORT: constant(compiled.report.to_json().encode()),
        TENSORS: weights.parts,
        **{_plan(engine.name): constant(engine.plan) for engine in compiled.engines},
    }
    return with_manifest(FORMAT, VERSION, compiled.report.versions, found)


def _plan(engine: str) -> str:
    return f"engines/{engine}.plan"


def _model(compiled: CompiledModule, writer: GraphWriter) -> dict[str, Any]:
    lowered = compiled.lowered
    paths = [str(mutation.target) for mutation in lowered.mutations if mutation.kind == "buffer"]
    written = {path: attribute(lowered.graph_module, path) for path in paths}  # no node need read them
    branches = [_branch(branch) for branch in lowered.branches]
    return {
        **({"branches": branches} if branches else {}),
        "inputs": list(lowered.input_names),
        "checks": [None if check is None else _check(check) for check in compiled.checks],
        "constants": [[place, encode(value)] for place, value in lowered.constants.items()],
        "in_spec": encode_spec(lowered.in_spec),
        "out_spec": encode_spec(lowered.out_spec),
        "mutations": [[mutation.kind, mutation.target] for mutation in lowered.mutations],
        "graph": writer.write(compiled.graph_module, "", written),
        "engines": [engine_to_json(engine, writer) for engine in compiled.engines],
    }


def _check(check: TensorInput) -> dict[str, Any]:
    return {
        "name": check.name,
        "dtype": dtype_name(check.dtype),
        "sizes": [encode_size(extent) for extent in check.sizes],
        "ranges": [_range(span) for span in check.ranges],
    }


def _branch(branch: Branch) -> dict[str, Any]:
    return {**vars(branch), "left": encode_size(branch.left), "right": encode_size(branch.right)}


def _range(span: Range) -> dict[str, Any]:
    made = dataclasses.asdict(span)
    if not span.parts:
        del made["parts"]
    return made


# --- reading ----------------------------------------------------------------------------------------------------------


def check_manifest(data: bytes) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each member, once the file is one that this version reads.

    Raises:
        Malformed: it is not.
    """
    found = read_manifest(data, FORMAT, VERSION, "a .trtp file")
    for name in found:
        need(name in (MODEL, REPORT, TENSORS) or _PLAN.fullmatch(name), f"it names an unknown member {brief(name)}")
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
        model = fields({"branches": [], **of_type(parse(bytes(members[MODEL])), dict, "the model")}, *names, "branches")
        engines = [field(entry, "name", str) for entry in of_type(model["engines"], list, "the engines")]
        need(len(set(engines)) == len(engines), "two engines have one name")
    with naming(REPORT):
        report = report_of(bytes(members[REPORT]))
        known = {node.name for node in report.nodes}
        for engine in report.engines:
            need(known.issuperset(engine.nodes), f"it does not know all of the nodes {brief(engine.nodes)}")
    plans = {name: members.get(_plan(name)) for name in engines}
    needed = {MODEL, REPORT, TENSORS, *map(_plan, plans)}
    need(needed == members.keys(), f"its engines and its plans differ: {sorted(needed ^ members.keys())}")
    return Decoded(
        model, report, members[TENSORS], {name: bytes(plan) for name, plan in plans.items() if plan is not None}
    )


def rebuild(decoded: Decoded, executor: Executor, place: Place, options: RunOptions | None = None) -> CompiledModule:
    """The compiled model.

    Raises:
        Malformed: the data contradicts itself, or needs an op that is not registered here.
    """
    with naming(TENSORS):
        tensors = read_tensors(decoded.tensors, decoded.model["tensors"], place)
    with naming(MODEL):
        return _compiled(decoded, executor, place, tensors, options)


def _compiled(
    decoded: Decoded, executor: Executor, place: Place, tensors: list[torch.Tensor], options: RunOptions | None
) -> CompiledModule:
    model = decoded.model
    references = GraphReader(tensors, {}, place)
    engines = tuple(engine_from_json(entry, decoded.plans, references) for entry in model["engines"])
    runners = {engine.name: EngineModule(engine, executor, options) for engine in engines}
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
        branches=tuple(_read_branch(entry) for entry in of_type(model["branches"], list, "the branches")),
    )
    report = dataclasses.replace(decoded.report, executor=executor.name)
    known = len(report.engines) == len(engines)
    whole = once_loaded(report, [runners[engine.name] for engine in engines]) if known else report
    return CompiledModule(graph_module, lowered, engines, whole, checks=checks)


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
    spans = tuple(_read_range(item) for item in of_type(entry["ranges"], list, "the ranges"))
    need(len(spans) == len(extents), "the ranges are not those of the sizes")
    return TensorInput(of_type(entry["name"], str, "a name"), torch_constant("dtype", entry["dtype"]), extents, spans)


def _read_branch(entry: Any) -> Branch:
    entry = fields(entry, "relation", "left", "right", "source")
    need(type(entry["relation"]) is str and entry["relation"] in RELATIONS, "a branch has no such relation")
    left, right = (sympy.sympify(decode_size(entry[side])) for side in ("left", "right"))
    return Branch(entry["relation"], left, right, of_type(entry["source"], str, "a line"))


def _read_range(entry: Any) -> Range:
    found = record({"parts": [], **of_type(entry, dict, "a range")}, Range)
    need(all(len(part) == 3 for part in found.parts), "a part of a range is not min, opt and max")
    return found
