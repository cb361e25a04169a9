"""Small wrong changes of a function's syntax tree, of the kinds that converters get wrong."""

from __future__ import annotations

import ast
import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping

from trtplug._tensorrt import library

Change = Callable[[ast.AST], ast.AST | None]


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One change.

    Attributes:
        kind: of change, in words.
        line: of the function's source, from 1.
        tree: the changed function.
    """

    kind: str
    line: int
    tree: ast.FunctionDef


def mutations(
    function: ast.FunctionDef, parameters: Mapping[str, str], siblings: Mapping[str, str]
) -> Iterator[Mutation]:
    """Every change of one function.

    Args:
        function: its syntax tree.
        parameters: the schema's parameters of a converter that can be ignored or misread, by name: ``axis``, ``flag``,
            or an expression for the value that stands for "ignored". Empty for a helper.
        siblings: what a string is exchanged for, and an enum's member by ``Enum.MEMBER``.
    """
    read = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    for name, meaning in parameters.items():
        if name not in read:  # its domain pins it, or the result's metadata says as much
            continue
        for kind, statement in _misreadings(name, meaning):
            changed = copy.deepcopy(function)
            start = 1 if ast.get_docstring(changed) is not None else 0
            changed.body[start:start] = ast.parse(statement).body
            yield Mutation(kind, 1, ast.fix_missing_locations(changed))
    count = sum(1 for _ in _sites(function))
    for place in range(count):
        for index in range(8):
            changed = copy.deepcopy(function)
            site = next(node for at, node in enumerate(_sites(changed)) if at == place)
            options = list(_changes(site, siblings))
            if index >= len(options):
                break
            kind, replacement = options[index]
            line = getattr(site, "lineno", 1)
            _Replace(site, replacement).visit(changed)
            if not changed.body:
                continue
            yield Mutation(kind, line, ast.fix_missing_locations(changed))


def _misreadings(name: str, meaning: str) -> Iterator[tuple[str, str]]:
    if meaning == "axis":
        one = "(-{0} - 1 if isinstance({0}, int) and {0} < 0 else {0})"
        many = f"[{one.format('_a')} for _a in {name}] if isinstance({name}, (list, tuple)) else {one.format(name)}"
        yield f"{name}: negative axis read as positive", f"{name} = {many}"
    elif meaning == "flag":
        yield f"{name} ignored", f"{name} = False"
        yield f"{name} always on", f"{name} = True"
    else:
        yield f"{name} ignored", f"{name} = {meaning}"


def _sites(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """What may be changed: the body without docstrings, annotations and error messages."""
    for number, statement in enumerate(function.body):
        is_docstring = number == 0 and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if not is_docstring:
            yield from _walk(statement)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr):
        return
    if isinstance(node, ast.keyword) and node.arg == "strict":  # of zip: an assertion
        return
    yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "ctx", "func") and not isinstance(value, ast.Attribute):
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                yield from _walk(item)


class _Replace(ast.NodeTransformer):
    def __init__(self, site: ast.AST, replacement: ast.AST | None) -> None:
        self.site, self.replacement = site, replacement

    def visit(self, node: ast.AST) -> ast.AST | None:
        if node is self.site:
            return self.replacement
        result: ast.AST | None = self.generic_visit(node)
        return result


_COMPARISONS: Mapping[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: Mapping[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.Add,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}


def _changes(node: ast.AST, siblings: Mapping[str, str]) -> Iterator[tuple[str, ast.AST | None]]:
    """What one node can be changed into."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
        flipped = _COMPARISONS[type(node.ops[0])]()
        yield "comparison flipped", ast.Compare(node.left, [flipped], node.comparators)
    elif isinstance(node, ast.Constant):
        yield from _constants(node, siblings)
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.attr.isupper():
        other = siblings.get(f"{node.value.attr}.{node.attr}")
        if other is not None:
            yield f"{node.attr} for {other}", ast.Attribute(node.value, other, node.ctx)
    elif isinstance(node, ast.BinOp):
        yield from _arithmetic(node)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield "sign or negation dropped", node.operand
    elif isinstance(node, ast.BoolOp):
        dual = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and for or", ast.BoolOp(dual, node.values)
    elif isinstance(node, ast.IfExp):
        yield "branches exchanged", ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.If):
        yield "condition negated", ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.AugAssign) or (isinstance(node, ast.Assign) and _rebinds(node)):
        yield "statement dropped", ast.Pass()
    elif isinstance(node, ast.Call):
        yield from _calls(node)


def _constants(node: ast.Constant, siblings: Mapping[str, str]) -> Iterator[tuple[str, ast.AST]]:
    value = node.value
    if isinstance(value, bool):
        yield "constant flipped", ast.Constant(not value)
    elif isinstance(value, int):
        yield "off by one", ast.Constant(value + 1)
    elif isinstance(value, float):
        yield "another number", ast.Constant(value * 2 + 1)
    elif isinstance(value, str) and value in siblings:
        yield f"{value} for {siblings[value]}", ast.Constant(siblings[value])


def _arithmetic(node: ast.BinOp) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node.op, ast.Mod):
        yield "remainder dropped", node.left
    elif type(node.op) in _ARITHMETIC:
        yield "other arithmetic", ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)
    if isinstance(node.op, ast.Sub | ast.Div | ast.FloorDiv | ast.Pow):
        yield "operands swapped", ast.BinOp(node.right, node.op, node.left)


_COMMUTATIVE = ("SUM", "PROD", "MAX", "MIN", "AND", "OR", "XOR", "EQUAL")
"""Exactly so, of floats too: with the operands swapped nothing changes."""


def _calls(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    args = node.args
    if method == "cast" and args:
        yield "cast dropped", args[0]
    if method == "elementwise" and len(args) == 3:
        if not (isinstance(args[0], ast.Constant) and args[0].value in _COMMUTATIVE):
            yield "operands swapped", ast.Call(node.func, [args[0], args[2], args[1]], node.keywords)
        yield "operand dropped", args[1]
    if method == "select" and len(args) == 3:
        yield "branches exchanged", ast.Call(node.func, [args[0], args[2], args[1]], node.keywords)
    if method == "matmul" and len(args) == 2:
        yield "operands swapped", ast.Call(node.func, [args[1], args[0]], node.keywords)
    if method in ("unary", "activation", "permute", "expand") and len(args) >= 2:
        yield "layer dropped", args[1] if method in ("unary", "activation") else args[0]
    for keyword in node.keywords:
        if keyword.arg not in (None, "strict"):
            rest = [other for other in node.keywords if other is not keyword]
            yield f"{keyword.arg}= dropped", ast.Call(node.func, args, rest)


def _rebinds(node: ast.Assign) -> bool:
    """Whether an assignment gives a new value to a name that its own right side uses."""
    (target, *more) = node.targets
    if more or not isinstance(target, ast.Name):
        return False
    return any(isinstance(used, ast.Name) and used.id == target.id for used in ast.walk(node.value))


_PAIRS = (
    ("SUM", "SUB"),
    ("PROD", "DIV"),
    ("MAX", "MIN"),
    ("AND", "OR"),
    ("EQUAL", "GREATER"),
    ("LESS", "GREATER"),
    ("EXP", "LOG"),
    ("FLOOR", "CEIL"),
    ("SIN", "COS"),
    ("AVG", "SUM"),
    ("FLOOR_DIV", "DIV"),
    ("POW", "PROD"),
)


@functools.cache
def enum_siblings() -> dict[str, str]:
    """For each member of TensorRT's enums another of the same enum; the likeliest confusion where one is known."""
    found: dict[str, str] = {}
    trt = library()
    for name in dir(trt):
        members = getattr(getattr(trt, name), "__members__", None)
        if members and len(members) > 1:
            names = list(members)
            for one, two in zip(names, [*names[1:], names[0]], strict=True):
                found.setdefault(one, two)
                found[f"{name}.{one}"] = two
    for one, two in _PAIRS:
        found[one] = two
        found.setdefault(two, one)
    for one, two in _PAIRS[:4]:
        found[two] = one
    return found
