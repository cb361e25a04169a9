"""Graphs as lists of nodes, in JSON.

A graph holds data only: what it calls is named and looked up (`targets`), what it reads is a table of attributes. Torch
writes Python code from a graph's names, so each name is checked to be a plain identifier before Torch sees it.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from trtplug.artefacts import targets
from trtplug.artefacts.malformed import Malformed, brief, fields, items, need, of_type
from trtplug.artefacts.tensors import TensorWriter
from trtplug.artefacts.values import Place, decode, dtype_name, encode, torch_constant
from trtplug.engine import EngineModule
from trtplug.lowering import graphs
from trtplug.reference import LiftedModule

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SEGMENT = re.compile(r"[A-Za-z0-9_]+")
_CALL, _READ, _ENGINE = "call", "read", "engine"
_OPS = {"call_function": _CALL, "get_attr": _READ, "call_module": _ENGINE}
_OWN = frozenset(vars(nn.Module())) | {"_graph", "_codegen", "meta"}  # what a module keeps about itself
_MAX_DEPTH = 50  # graphs inside of graphs
_NOTES = ("layer", "kind")
"""Metadata that a lifted network's errors speak of."""


# --- writing ----------------------------------------------------------------------------------------------------------


class GraphWriter:
    """Writes the graphs of one file, which share its tensors."""

    def __init__(self, tensors: TensorWriter) -> None:
        self.tensors = tensors

    def write(self, module: fx.GraphModule, label: str, also: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A graph module as JSON.

        Args:
            label: prefix of its tensors' names.
            also: attributes by their paths that are kept whether or not a node reads them.

        Raises:
            Malformed: it holds something that a file cannot hold.
        """
        paths = dict.fromkeys(str(node.target) for node in module.graph.nodes if node.op in ("get_attr", "call_module"))
        values = {path: graphs.attribute(module, path) for path in paths} | dict(also or {})
        return {
            "class": "LiftedModule" if isinstance(module, LiftedModule) else "GraphModule",
            "title": type(module).__name__,  # FX gives each module a class of its own
            "attributes": {path: self._attribute(value, path, label) for path, value in values.items()},
            "nodes": [_node(node) for node in module.graph.nodes],
        }

    def _attribute(self, value: Any, path: str, label: str) -> Any:
        _check_path(path)
        if isinstance(value, torch.Tensor):
            return {"tensor": self.tensors.add(f"{label}{path}", value)}
        if isinstance(value, EngineModule):
            return {"engine": value.engine.name}
        if isinstance(value, fx.GraphModule):
            return {"graph": self.write(value, f"{label}{path}.")}
        try:
            return {"value": encode(value)}
        except Malformed as error:
            raise Malformed(f"the attribute {path!r}: {error.what}") from None


def _node(node: fx.Node) -> list[Any]:
    """``[op, name, target, args, kwargs, notes]``."""
    try:
        if node.op == "call_function":
            target: Any = targets.name_of(node.target)
        elif node.op in ("placeholder", "output", *_OPS):
            target = str(node.target)
        else:
            raise Malformed(f"it is a {node.op}")
        kwargs = {name: encode(value) for name, value in node.kwargs.items()}
        made = [_OPS.get(node.op, node.op), node.name, target, [encode(value) for value in node.args], kwargs]
    except Malformed as error:
        raise Malformed(f"node {node.name!r}: {error.what}") from None
    notes = {key: node.meta[key] for key in _NOTES if type(node.meta.get(key)) is str}
    if isinstance(node.meta.get("dtype"), torch.dtype):
        notes["dtype"] = dtype_name(node.meta["dtype"])
    return [*made, notes]


# --- reading ----------------------------------------------------------------------------------------------------------


class GraphReader:
    """Makes graph modules again.

    Args:
        tensors: of the file, by number.
        engines: the modules that stand for engines, by name.
        place: where what was on a device goes.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], engines: Mapping[str, nn.Module], place: Place) -> None:
        self.tensors, self.engines, self.place = tensors, engines, place

    def read(self, data: Any, depth: int = 0) -> fx.GraphModule:
        """The opposite of `GraphWriter.write`.

        Raises:
            Malformed: it cannot be a graph, or calls what is not registered here.
        """
        need(depth < _MAX_DEPTH, "graphs are nested too deeply")
        data = fields(data, "class", "title", "attributes", "nodes")
        title = of_type(data["title"], str, "a title")
        need(_IDENTIFIER.fullmatch(title), f"{brief(title)} is not the name of a class")
        root: dict[str, Any] = {}
        for path, entry in items(data["attributes"], "the attributes"):
            _check_path(path)
            root[path] = self._attribute(entry, depth)
        inside = {path.rpartition(".")[0] for path in root if "." in path}
        above = {path[:place] for path in inside for place in [*_dots(path), len(path)]}
        need(above.isdisjoint(root), "an attribute lies inside of another")
        graph = self._graph(of_type(data["nodes"], list, "the nodes"), root)
        lifted = data["class"] == "LiftedModule"
        need(lifted or data["class"] == "GraphModule", f"{brief(data['class'])} is not a class of graphs")
        module = (LiftedModule if lifted else fx.GraphModule)(root, graph, title)
        read = {str(node.target) for node in graph.nodes if node.op in ("get_attr", "call_module")}
        for path in root.keys() - read:
            graphs.assign(module, path, root[path])
        return module

    def _attribute(self, entry: Any, depth: int) -> Any:
        need(type(entry) is dict and len(entry) == 1, f"{brief(entry)} is not an attribute")
        ((kind, value),) = entry.items()
        if kind == "tensor":
            need(type(value) is int and 0 <= value < len(self.tensors), f"there is no tensor {brief(value)}")
            return self.tensors[value]
        if kind == "engine":
            need(type(value) is str and value in self.engines, f"there is no engine {brief(value)}")
            return self.engines[value]
        if kind == "graph":
            return self.read(value, depth + 1)
        need(kind == "value", f"{kind!r} is not a kind of attribute")
        return decode(value, {}, self.place)

    def _graph(self, entries: Sequence[Any], root: Mapping[str, Any]) -> fx.Graph:
        graph, nodes = fx.Graph(), dict[str, fx.Node]()
        for number, entry in enumerate(entries):
            need(type(entry) is list and len(entry) == 6, f"node {number} is not a node")
            op, name, target, args, kwargs, notes = entry
            need(type(name) is str and _IDENTIFIER.fullmatch(name), f"node {number} is called {brief(name)}")
            need(name not in nodes, f"two nodes are called {name!r}")
            last = number == len(entries) - 1
            need((op == "output") == last, "a graph ends with its output")
            try:
                kind, callee = self._target(op, target, root)
                arguments = tuple(decode(of_type(args, list, "the arguments"), nodes, self.place))
                keywords = {key: decode(value, nodes, self.place) for key, value in items(kwargs, "the keywords")}
                need(all(_IDENTIFIER.fullmatch(key) and not keyword.iskeyword(key) for key in keywords), "bad keywords")
                node = nodes[name] = graph.create_node(kind, callee, arguments, keywords, name=name)
                node.meta.update(_notes(notes))
            except Malformed as error:
                raise Malformed(f"node {name!r}: {error.what}") from None
        need(nodes and not _misshapen(graph), "it has nodes that a graph cannot have")
        return graph

    def _target(self, op: Any, target: Any, root: Mapping[str, Any]) -> tuple[str, Any]:
        target = of_type(target, str, "what it calls")
        if op == _CALL:
            return "call_function", targets.target_of(target)
        if op in (_READ, _ENGINE):
            need(target in root, f"there is no attribute {target!r}")
            need(op == _READ or isinstance(root[target], nn.Module), f"{target!r} is not an engine")
            return ("get_attr" if op == _READ else "call_module"), target
        need(op in ("placeholder", "output"), f"{brief(op)} is not a kind of node")
        need(_IDENTIFIER.fullmatch(target) and not keyword.iskeyword(target), f"{brief(target)} is not an input's name")
        return op, target


def _notes(notes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in items(notes, "the notes"):
        need(key in (*_NOTES, "dtype"), f"{key!r} is not a note")
        made[key] = torch_constant("dtype", value) if key == "dtype" else of_type(value, str, "a note")
    return made


def _misshapen(graph: fx.Graph) -> bool:
    """Whether a graph is not one that Torch takes: inputs first and without arguments, one value as its output."""
    late = False
    for node in graph.nodes:
        if node.op == "placeholder" and (late or node.args or node.kwargs):
            return True
        late |= node.op != "placeholder"
        if node.op == "output" and (len(node.args) != 1 or node.kwargs):
            return True
        if node.op == "get_attr" and (node.args or node.kwargs):
            return True
    return False


def _dots(path: str) -> list[int]:
    return [match.start() for match in re.finditer(r"\.", path)]


def _check_path(path: str) -> None:
    """An attribute's path: identifiers or numbers, joined by dots, that nothing of a module's own is called."""
    holder: type = fx.GraphModule
    for segment in path.split("."):
        good = _SEGMENT.fullmatch(segment) and not segment.startswith("__") and not keyword.iskeyword(segment)
        if not good or hasattr(holder, segment) or segment in _OWN:
            raise Malformed(f"{brief(path)} is not a name that a file may give to an attribute")
        holder = nn.Module
