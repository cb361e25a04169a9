"""The pieces of a .trtp file on their own: container, tensors, arguments, sizes, names of what is called."""

from __future__ import annotations

import ast
import inspect
import io
import math
import operator
from collections import OrderedDict, defaultdict, deque, namedtuple

import pytest
import safetensors.torch
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._sympy.functions import FloorDiv, Max

import trtplug.reference.rules as rules
from trtplug.artefacts import archive, targets
from trtplug.artefacts.malformed import Malformed, parse
from trtplug.artefacts.tensors import TensorWriter, read_tensors
from trtplug.artefacts.values import decode, decode_size, decode_spec, encode, encode_size, encode_spec
from trtplug.reference.rules import indexing, layout, pointwise, reductions, transformers, windows

aten = torch.ops.aten


def here(name):
    return torch.device(name)


# --- the container ----------------------------------------------------------------------------------------------------


@given(
    st.dictionaries(st.from_regex(r"[a-z/._-]{1,40}", fullmatch=True), st.binary(max_size=9000), min_size=1, max_size=5)
)
def test_what_is_written_is_read(contents):
    file = io.BytesIO()
    members = [
        (archive.Member(name, *archive.checksum([memoryview(data)])), lambda data=data: [memoryview(data)])
        for name, data in contents.items()
    ]
    archive.write(file, members)
    found = archive.directory(file)
    assert found == [member for member, _ in members]
    plan = archive.check_layout(file, found)
    assert archive.first_start(file) == plan.starts[0]
    for (name, data), member, start in zip(contents.items(), found, plan.starts, strict=True):
        assert (member.name, bytes(archive.read(file, member, start))) == (name, data)


def test_sizes_beyond_32_bits_have_a_place():
    plan = archive.layout([archive.Member("huge", 2**40, 1), archive.Member("next", 5, 2)])
    assert plan.starts[1] > 2**40
    assert plan.starts[1] % archive.ALIGNMENT == 0


# --- tensors ----------------------------------------------------------------------------------------------------------

WORDS = torch.tensor([1, 2, 3, 4, 5, 6, 7], dtype=torch.int16)
BASE = torch.arange(24, dtype=torch.float32)
TENSORS = {
    "plain": torch.randn(3, 4),
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "empty": torch.empty(0, 3),
    "bool": torch.tensor([True, False]),
    "half": torch.randn(3).half(),
    "brain": torch.randn(3).bfloat16(),
    "eighth": torch.randn(3).to(torch.float8_e4m3fn),
    "complex": torch.randn(3, dtype=torch.complex64),
    "wide complex": torch.randn(2, dtype=torch.complex128),
    "base": BASE,
    "middle": BASE[5:9],
    "every other": BASE[::2],
    "transposed": torch.randn(3, 4).T,
    "channels last": torch.randn(1, 3, 2, 2).to(memory_format=torch.channels_last),
    "expanded": torch.randn(1, 3).expand(5, 3),
    "conjugated": torch.randn(3, dtype=torch.complex64).conj(),
    "parameter": nn.Parameter(torch.randn(2)),
    "frozen": nn.Parameter(torch.randn(2), requires_grad=False),
    "grad": torch.randn(2, requires_grad=True),
    "odd bytes": torch.arange(7, dtype=torch.uint8)[1:4],
    "bytes of base": BASE.view(torch.uint8)[3:30],
    "words": WORDS[2:5],
    "bytes of words": WORDS.view(torch.uint8)[3:9],
    "unsigned": torch.tensor([1, 2, 65535], dtype=torch.uint16),
    "__metadata__": torch.ones(2),
}


def stored(tensors):
    writer = TensorWriter()
    numbers = {name: writer.add(name, tensor) for name, tensor in tensors.items()}
    file = writer.finish()
    return b"".join(file.parts()), file.table, numbers


def test_tensors_come_back_as_they_are():
    data, table, numbers = stored(TENSORS)
    made = read_tensors(memoryview(bytearray(data)), parse(repr_json(table)), here)
    for name, tensor in TENSORS.items():
        found = made[numbers[name]]
        torch.testing.assert_close(found.detach(), tensor.detach().resolve_conj(), rtol=0, atol=0, msg=name)
        assert type(found) is type(tensor)
        assert (found.stride(), found.requires_grad) == (tensor.stride(), tensor.requires_grad), name
    made[numbers["base"]][6] = 99.0
    assert made[numbers["middle"]][1] == 99.0
    assert made[numbers["every other"]][3] == 99.0
    assert made[numbers["plain"]].data_ptr() % 4 == 0


def test_describing_leaves_storages_as_they_are():
    stored(TENSORS)
    assert WORDS.untyped_storage().nbytes() == 14


def test_the_member_is_safetensors():
    data, _, _ = stored(TENSORS)
    found = safetensors.torch.load(data)
    assert len(found) == len(TENSORS) - 4  # some of them lie in one memory
    for name in ("plain", "scalar", "bool", "half", "brain", "unsigned"):
        torch.testing.assert_close(found[name], TENSORS[name])


def test_equal_tensors_are_stored_once_and_loaded_apart():
    one, two = torch.ones(100), torch.ones(100)
    data, table, numbers = stored({"one": one, "two": two, "one again": one, "part": torch.ones(50)})
    assert len(data) < 8 + 256 + 100 * 4 + 50 * 4
    made = read_tensors(memoryview(bytearray(data)), table, here)
    assert numbers["one"] == numbers["one again"]
    made[numbers["one"]].zero_()
    assert made[numbers["two"]].sum() == 100


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(2).to_sparse(),
        torch.ones(2, device="meta"),
        torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged),
    ],
    ids=["sparse", "meta", "nested"],
)
def test_tensors_without_plain_memory_are_refused(tensor):
    with pytest.raises(Malformed, match="it has no plain memory"):
        TensorWriter().add("odd", tensor)


def repr_json(value):
    import json

    return json.dumps(value).encode()


# --- arguments --------------------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.complex_numbers(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        [torch.float32, torch.bool, torch.strided, torch.channels_last, torch.device("cpu"), ..., aten.add.Tensor]
    ),
    st.slices(10),
)
ARGUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@given(ARGUMENTS)
def test_arguments_come_back_as_they_are(value):
    data = parse(repr_json(encode(value)))
    assert same(decode(data, {}, here), value)


def same(one, other):
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and repr(one) == repr(other)  # 0.0 is not -0.0


@pytest.mark.parametrize("value", [object(), torch.ones(1), {1, 2}, torch.float32.to_real, len])
def test_arguments_that_a_file_cannot_hold(value):
    with pytest.raises(Malformed, match="a file cannot hold the value"):
        encode(value)


@pytest.mark.parametrize(
    "tree",
    [
        1,
        (1, [2, {"a": 3, 4: (5,)}]),
        OrderedDict(b=1, a=[]),
        ((), {}, [None]),
    ],
)
def test_nestings_come_back_as_they_are(tree):
    spec = pytree.tree_structure(tree)
    assert decode_spec(parse(repr_json(encode_spec(spec)))) == spec


def test_foreign_nestings_become_dicts():
    Point = namedtuple("Point", "x y")
    assert encode_spec(pytree.tree_structure(Point(1, [2]))) == {"dict": [["x", "*"], ["y", {"list": ["*"]}]]}
    assert encode_spec(pytree.tree_structure(defaultdict(list, a=1))) == {"dict": [["a", "*"]]}
    assert encode_spec(pytree.tree_structure(deque([1, 2]))) == {"list": ["*", "*"]}
    assert encode_spec(pytree.tree_structure(torch.return_types.max((1, 2)))) == {"tuple": ["*", "*"]}


def test_sizes_come_back_as_they_are():
    s0, s1 = sympy.symbols("s0 s1", integer=True, positive=True)
    for size in (3, s0, s0 + 2 * s1, FloorDiv(s0 + 1, 2), Max(s0, s1), s0**2 - s1):
        found = decode_size(parse(repr_json(encode_size(size))))
        values = {s0: 7, s1: 4}
        assert sympy.sympify(found).subs(values).doit() == sympy.sympify(size).subs(values)
        assert encode_size(found) == encode_size(size)
    assert decode_size("s0") == decode_size("s0")
    with pytest.raises(Malformed):
        decode_size(["__import__", "os"])
    with pytest.raises(Malformed):
        decode_size("__import__('os')")


def test_a_huge_power_is_not_computed():
    decode_size(["Pow", ["Pow", 10, 10**18], 10**18])


# --- what may be called -----------------------------------------------------------------------------------------------

REFERENCE = (indexing, layout, pointwise, reductions, transformers, windows)


def called(module):
    """The functions of Torch and of the semantics that a module of rules names."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
            continue
        holder = getattr(module, node.value.id, None)
        if inspect.ismodule(holder) and (holder in (torch, nn.functional) or "semantics" in holder.__name__):
            value = getattr(holder, node.attr)
            if callable(value) and not isinstance(value, type):
                yield value


def test_every_function_of_the_reference_executor_has_a_name():
    assert rules.RULES
    functions = {value for module in REFERENCE for value in called(module)} - {torch.empty}
    assert len(functions) > 100
    for function in functions:
        assert targets.target_of(targets.name_of(function)) is function
    assert torch.empty not in targets.functions().values()  # makes a constant while lifting, is never called


@pytest.mark.parametrize(
    "target",
    [
        aten.add.Tensor,
        aten.relu.default,
        aten.sym_size.int,
        operator.getitem,
        math.ceil,
        torch.sym_max,
        torch.ops.higher_order.cond,
    ],
)
def test_targets_come_back_as_they_are(target):
    assert targets.target_of(targets.name_of(target)) is target


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "builtins.exec",
        "builtins.getattr",
        "torch.load",
        "torch.ops.load_library",
        "load_library::default",
        "operator.attrgetter",
        "operator.methodcaller",
        "reference.layout.torch",
        "reference.layout.ints",
        "aten::from_file",
        "aten::save",
        "aten::format",
        "aten::__file__",
        "__class__::__init__",
        "debugprims::load_tensor",
        "higher_order::triton_kernel_wrapper_functional",
        "higher_order::call_torchbind",
        "nowhere::nothing",
        "aten::add.nothing",
        "aten::add\n",
        "",
    ],
)
def test_what_a_file_may_not_call(name):
    with pytest.raises(Malformed):
        targets.target_of(name)


def test_ops_that_write_files_are_not_saved_either():
    with pytest.raises(Malformed, match="reads or writes files"):
        targets.name_of(aten.from_file.default)
