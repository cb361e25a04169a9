"""Mutants: converters with one small wrong change in their code or in a helper's, made in memory."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import functools
import inspect
import sys
import textwrap
import types
from collections.abc import Iterator
from typing import Any

from trtplug.testing.mutations import Mutation, enum_siblings, mutations
from trtplug_registry import Axis, Converter, ListOf, Optional, Registry


@dataclasses.dataclass(frozen=True, eq=False)
class Mutant:
    """One wrong change of one function.

    Attributes:
        function: that is changed.
        kind: of change.
        where: ``module:line``.
        diff: the lines that differ.
        replacement: the changed function; for a row of a table the function itself, and `row` the other row's value.
        row: for an exchanged row, a tuple of the new value.
    """

    function: types.FunctionType
    kind: str
    where: str
    diff: str
    replacement: types.FunctionType
    row: tuple[Any, ...] = ()

    @contextlib.contextmanager
    def applied(self, converter: Converter) -> Iterator[Converter]:
        """The converter with the change; what modules refer to is exchanged for as long as this lasts."""
        original, row = base_of(converter)
        function: Any = self.replacement if original is self.function else original
        values = tuple(self.replacement if value is self.function else value for value in self.row or row)
        changed = functools.partial(function, *values) if values else function
        with _exchanged(self.function, self.replacement, functions_of(converter)):
            yield dataclasses.replace(converter, function=changed)

    @property
    def id(self) -> str:
        """The same wherever in its file the function is."""
        return f"{self.function.__module__}.{self.function.__qualname__}: {self.kind}\n{self.diff}"

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}\n{textwrap.indent(self.diff, '    ')}"


def base_of(converter: Converter) -> tuple[Any, tuple[Any, ...]]:
    """The plain function of a converter, and the row value of a table's."""
    function = converter.function
    return (function.func, function.args) if isinstance(function, functools.partial) else (function, ())


def functions_of(converter: Converter) -> tuple[types.FunctionType, ...]:
    """The converter's function and the functions of its own package that it reaches, each once."""
    return functions_reached(converter.function, base_of(converter)[0].__module__.partition(".")[0])


def functions_reached(value: Any, package: str) -> tuple[types.FunctionType, ...]:
    """The functions of a package that a function, or what is made of one, reaches, itself among them; each once."""
    found: dict[Any, None] = {}

    def visit(value: Any) -> None:
        if isinstance(value, functools.partial):
            visit(value.func)
            for item in value.args:
                visit(item)
        if isinstance(value, Converter):
            visit(base_of(value)[0])
        if type(value) is dict:
            for item in value.values():
                visit(item)
        if not isinstance(value, types.FunctionType) or value in found:
            return
        if value.__module__.partition(".")[0] != package:
            return
        found[value] = None
        for name in _names(value.__code__):
            visit(value.__globals__.get(name))
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # a cell that is not filled
                visit(cell.cell_contents)

    visit(value)
    return tuple(found)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def mutants(converter: Converter, registry: Registry | None = None) -> Iterator[Mutant]:
    """Every mutant of a converter: of its function, of the helpers that it calls, and of its row in a table.

    Args:
        converter: to be changed.
        registry: where the other rows of its table are found.
    """
    for function in functions_of(converter):
        yield from mutants_of(function, converter)
    yield from exchanged_rows(converter, registry or ())


def mutants_of(function: types.FunctionType, converter: Converter) -> Iterator[Mutant]:
    """The mutants of one function that a converter uses."""
    tree = _tree(function)
    if tree is None:
        return
    parameters = _parameters(converter) if function is base_of(converter)[0] else {}
    before = ast.unparse(tree)
    seen = {before}
    for mutation in mutations(tree, parameters, enum_siblings()):
        after = ast.unparse(mutation.tree)
        if after in seen:
            continue
        seen.add(after)
        replacement = _compiled(function, mutation)
        if replacement is not None:
            line = function.__code__.co_firstlineno + mutation.line - 1
            where = f"{function.__module__}.{function.__qualname__}:{line}"
            yield Mutant(function, mutation.kind, where, _diff(before, after), replacement)


def exchanged_rows(converter: Converter, registry: Registry | tuple[()]) -> Iterator[Mutant]:
    """The converter with the value of another row of its table."""
    function, row = base_of(converter)
    for other in registry:
        if base_of(other)[0] is function and row and base_of(other)[1] != row:
            diff = f"-{_shown(row[0])}\n+{_shown(base_of(other)[1][0])}"
            where = f"{function.__module__}.{function.__qualname__}:{converter.target_name}"
            yield Mutant(function, "row exchanged", where, diff, function, base_of(other)[1])
            return


def _shown(row: Any) -> str:
    return str(getattr(row, "__qualname__", None) or repr(row))


def _parameters(converter: Converter) -> dict[str, str]:
    """How each parameter may be misread; see `mutations`."""
    found = {}
    for argument in converter.overloads()[0]._schema.arguments:
        spec = converter.domain.arguments.get(argument.name)
        while isinstance(spec, Optional | ListOf):
            spec = spec.item
        kind = str(argument.real_type)
        if spec is None:
            continue
        if isinstance(spec, Axis):
            found[argument.name] = "axis"
        elif kind == "bool":
            found[argument.name] = "flag"
        elif argument.has_default_value() and isinstance(argument.default_value, int | float | str | list | None):
            found[argument.name] = repr(argument.default_value)
        elif kind in ("number", "int", "float"):
            found[argument.name] = "1"
    return found


def _tree(function: types.FunctionType) -> ast.FunctionDef | None:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, SyntaxError, IndexError, TypeError):  # no source
        return None
    if not isinstance(tree, ast.FunctionDef) or tree.name != function.__name__:
        return None  # a lambda, or a file that has changed since it was imported
    offset = tree.lineno - 1
    ast.increment_lineno(tree, -offset)
    tree.decorator_list = []
    return tree


def _compiled(function: types.FunctionType, mutation: Mutation) -> types.FunctionType | None:
    """The changed function, with the globals, defaults and closure of the original."""
    free = function.__code__.co_freevars
    outer = ast.parse(f"def _outer({', '.join(free)}):\n    pass").body[0]
    assert isinstance(outer, ast.FunctionDef)
    own: list[ast.stmt] = [] if function.__name__ in free else [ast.Global([function.__name__])]
    outer.body = [*own, mutation.tree]
    module = ast.fix_missing_locations(ast.Module([outer], []))
    flags = function.__code__.co_flags & 0x1000000  # from __future__ import annotations
    try:
        code: Any = compile(module, "<mutant>", "exec", flags=flags, dont_inherit=True)
    except (SyntaxError, ValueError):
        return None
    for _ in range(2):
        code = next(item for item in code.co_consts if isinstance(item, types.CodeType))
    cells = dict(zip(free, function.__closure__ or (), strict=True))
    closure = tuple(cells[name] for name in code.co_freevars)
    changed = types.FunctionType(code, function.__globals__, function.__name__, function.__defaults__, closure)
    changed.__kwdefaults__ = function.__kwdefaults__
    changed.__annotations__ = function.__annotations__
    changed.__module__, changed.__qualname__ = function.__module__, function.__qualname__
    return changed


@contextlib.contextmanager
def _exchanged(
    old: types.FunctionType, new: types.FunctionType, users: tuple[types.FunctionType, ...]
) -> Iterator[None]:
    """Every reference to `old` is one to `new`: in its package's modules, their dicts, and the users' closures."""
    package = old.__module__.partition(".")[0]
    spaces = [vars(module) for name, module in list(sys.modules.items()) if name.partition(".")[0] == package]
    tables = [value for space in spaces for value in space.values() if type(value) is dict]
    changed = [(space, key) for space in (*spaces, *tables) for key, value in list(space.items()) if value is old]
    cells = [cell for user in users for cell in user.__closure__ or () if _content(cell) is old]
    try:
        for space, key in changed:
            space[key] = new
        for cell in cells:
            cell.cell_contents = new
        yield
    finally:
        for space, key in changed:
            space[key] = old
        for cell in cells:
            cell.cell_contents = old


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled
        return None


def _diff(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))
