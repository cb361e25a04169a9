"""Arguments of calls, nested structures and size expressions, as JSON.

Plain JSON stands for itself: null, booleans, integers, finite floats, strings, lists. Everything else is an object with
one field that says what it is: ``{"node": "add_1"}``, ``{"dtype": "float32"}``, ``{"tuple": [...]}``.
"""

from __future__ import annotations

import cmath
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

import sympy
import torch
from torch._ops import OpOverload
from torch.fx import Node
from torch.utils import _pytree as pytree
from torch.utils._sympy import functions as ts

from trtplug.artefacts import targets
from trtplug.artefacts.malformed import Malformed, brief, need, of_type

Place = Callable[[str], torch.device]
"""Where what was on a device goes."""

_DEPTH = 200  # of arguments, and of sizes

_TORCH_KINDS: Mapping[str, type] = {
    "dtype": torch.dtype,
    "layout": torch.layout,
    "memory_format": torch.memory_format,
}

# --- arguments of calls -----------------------------------------------------------------------------------------------


def encode(value: Any) -> Any:
    """An argument as JSON.

    Raises:
        Malformed: a file cannot hold it.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, Node):
        return {"node": value.name}
    if isinstance(value, tuple):  # torch.Size too
        return {"tuple": [encode(item) for item in value]}
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, slice):
        return {"slice": [encode(part) for part in (value.start, value.stop, value.step)]}
    if isinstance(value, complex) and cmath.isfinite(value):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, OpOverload):
        return {"op": targets.name_of(value)}
    if value is ...:
        return {"ellipsis": True}
    for kind, type_ in _TORCH_KINDS.items():
        if isinstance(value, type_):
            return {kind: str(value).removeprefix("torch.")}
    raise Malformed(f"a file cannot hold the value {brief(value)} ({type(value).__name__})")


def decode(data: Any, nodes: Mapping[str, Node], place: Place, depth: int = 0) -> Any:
    """The opposite of `encode`, in a graph whose nodes so far have these names."""
    if data is None or type(data) in (bool, int, float, str):
        return data
    need(depth < _DEPTH, "an argument is nested too deeply")
    if type(data) is list:
        return [decode(item, nodes, place, depth + 1) for item in data]
    need(type(data) is dict and len(data) == 1, f"{brief(data)} is not an argument")
    ((kind, inner),) = data.items()
    if kind == "node":
        need(inner.__hash__ is not None and inner in nodes, f"no node before it is called {brief(inner)}")
        return nodes[inner]
    if kind in _TORCH_KINDS:
        return torch_constant(kind, inner)
    if kind == "device":
        return place(of_type(inner, str, "a device"))
    if kind == "float":
        need(inner in ("inf", "-inf", "nan"), f"{brief(inner)} is not a float")
        return float(inner)
    if kind == "op":
        return targets.target_of(of_type(inner, str, "an op"))
    if kind == "ellipsis":
        return ...
    parts = [decode(item, nodes, place, depth + 1) for item in of_type(inner, list, f"a {kind}")]
    if kind == "tuple":
        return tuple(parts)
    if kind == "slice" and len(parts) == 3:
        return slice(*parts)
    if kind == "complex" and [type(part) for part in parts] == [float, float]:
        return complex(*parts)
    if kind == "dict" and all(type(part) is list and len(part) == 2 and _is_key(part[0]) for part in parts):
        return dict(parts)
    raise Malformed(f"{brief(data)} is not an argument")


def torch_constant(kind: str, name: Any) -> Any:
    """``torch.float32`` from ``"float32"``, and so on for layouts and memory formats."""
    found = getattr(torch, name, None) if type(name) is str and name.isidentifier() else None
    if not isinstance(found, _TORCH_KINDS[kind]):
        raise Malformed(f"{brief(name)} is no {kind} that this Torch knows")
    return found


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _is_key(value: Any) -> bool:
    return value is None or type(value) in (bool, int, float, str)


# --- nested structures ------------------------------------------------------------------------------------------------


def encode_spec(spec: pytree.TreeSpec) -> Any:
    """A nesting as JSON: ``"*"`` for a leaf, else an object.

    A foreign container becomes a dict of its fields; one whose fields have no names becomes a tuple or list.
    """
    if spec.is_leaf():
        return "*"
    children = [encode_spec(child) for child in spec.children()]
    for kind, plain in (("tuple", tuple), ("list", (list, deque))):
        if isinstance(spec.type, type) and issubclass(spec.type, plain):
            return {kind: children}
    keys = _keys(spec)
    if not all(_is_key(key) for key in keys):
        raise Malformed(f"a file cannot hold a {spec.type.__name__} with the keys {brief(keys)}")
    kind = "ordered_dict" if spec.type is OrderedDict else "dict"
    return {kind: [[key, child] for key, child in zip(keys, children, strict=True)]}


def _keys(spec: pytree.TreeSpec) -> list[Any]:
    """The names of a container's children."""
    context, count = spec.context, len(spec.children())
    if isinstance(context, type) and hasattr(context, "_fields"):  # a named tuple
        return list(context._fields)
    groups = [context] if spec.type in (dict, OrderedDict) else [context, *_sequences(context)]
    for group in groups:
        if isinstance(group, list | tuple) and len(group) == count and all(_is_key(key) for key in group):
            return list(group)
    try:
        found, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten([None] * spec.num_leaves, spec))
        paths = list(dict.fromkeys(path[0] for path, _ in found))
        keys = [getattr(path, "name", getattr(path, "key", getattr(path, "idx", None))) for path in paths]
    except Exception:  # whatever somebody's own container raises
        keys = []
    return keys if len(keys) == count else list(range(count))


def _sequences(context: Any) -> list[Any]:
    return [item for item in context if isinstance(item, list | tuple)] if isinstance(context, list | tuple) else []


def decode_spec(data: Any) -> pytree.TreeSpec:
    """The opposite of `encode_spec`."""
    return pytree.tree_flatten(_skeleton(data))[1]


def _skeleton(data: Any) -> Any:
    if data == "*":
        return object()
    need(type(data) is dict and len(data) == 1, f"{brief(data)} is not a nesting")
    ((kind, children),) = data.items()
    children = of_type(children, list, f"a {kind}")
    if kind in ("tuple", "list"):
        made = [_skeleton(child) for child in children]
        return tuple(made) if kind == "tuple" else made
    need(kind in ("dict", "ordered_dict"), f"{kind!r} is not a container")
    for child in children:
        need(type(child) is list and len(child) == 2 and _is_key(child[0]), f"{brief(child)} is not a key and a value")
    pairs = [(key, _skeleton(child)) for key, child in children]
    made_dict = OrderedDict(pairs) if kind == "ordered_dict" else dict(pairs)
    need(len(made_dict) == len(pairs), "a dict has a key twice")
    return made_dict


# --- sizes ------------------------------------------------------------------------------------------------------------

_FUNCTIONS: Mapping[str, Any] = {
    "Add": sympy.Add,
    "Mul": sympy.Mul,
    "Pow": sympy.Pow,
    **{
        name: getattr(ts, name)
        for name in ("FloorDiv", "CleanDiv", "CeilDiv", "Mod", "PythonMod", "ModularIndexing", "PowByNatural")
        if hasattr(ts, name)
    },
    "Max": ts.Max,
    "Min": ts.Min,
}
_FUNCTION_NAMES = {function: name for name, function in _FUNCTIONS.items()}
_FUNCTION_NAMES |= {sympy.Max: "Max", sympy.Min: "Min", sympy.Mod: "Mod"}


def encode_size(size: int | sympy.Expr) -> Any:
    """A size: an int, a symbol's name, or ``[function, argument, ...]``."""
    if isinstance(size, int) or size.is_Integer:
        return int(size)
    if size.is_Symbol:
        return str(size)
    name = _FUNCTION_NAMES.get(size.func)
    if name is None:
        raise Malformed(f"a file cannot hold the size {size}")
    return [name, *(encode_size(argument) for argument in size.args)]


def decode_size(data: Any, depth: int = 0) -> int | sympy.Expr:
    """The opposite of `encode_size`. An expression is kept as it is written, so that it stays the same one."""
    need(depth < _DEPTH, "a size is nested too deeply")
    if type(data) is int:
        return data
    if type(data) is str:
        need(data.isidentifier(), f"{data!r} is not a size")
        return sympy.Symbol(data, integer=True, positive=True)
    need(type(data) is list and len(data) > 1 and type(data[0]) is str and data[0] in _FUNCTIONS, "not a size")
    arguments = [decode_size(item, depth + 1) for item in data[1:]]
    symbolic = [sympy.Integer(item) if isinstance(item, int) else item for item in arguments]
    return _FUNCTIONS[data[0]](*symbolic, evaluate=False)
