"""Damaged, foreign and hostile files: each raises ArtefactError, nothing else happens."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import os
import pickle
import random
import stat
import struct
import sys
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import trtplug
from trtplug.artefacts import archive

FILE = "model.trtp"


class Small(nn.Module):
    """An engine, a Torch op with a parameter, a buffer that is written, a dynamic size."""

    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.randn(3, 4))
        self.register_buffer("count", torch.zeros(4))

    def forward(self, x, *, flag=True):
        self.count.add_(1)
        return {"near": torch.cdist(torch.relu(x) + x.shape[0], self.centres), "rest": [torch.tanh(x)]}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The bytes of a good file. The plan is replaced by a short one: nothing here depends on it."""
    torch.manual_seed(0)
    size = trtplug.Input(min_shape=(2, 4), opt_shape=(4, 4), max_shape=(8, 4), name="x")
    program = trtplug.trace(Small(), (size,), {"flag": True})
    compiled = trtplug.compile(program, min_block_size=1, torch_ops=["aten::cdist"])
    assert compiled.engines
    assert compiled.report.torch_ops
    for engine in compiled.engines:
        object.__setattr__(engine, "plan", engine.plan[:100])
    file = trtplug.save(compiled, tmp_path_factory.mktemp("good") / FILE)
    str(trtplug.load(file).report)  # Hypothesis draws constants of modules, and gets confused by new ones between draws
    return file.read_bytes()


# --- a watch over what loading does -----------------------------------------------------------------------------------

_watched: list[tuple] | None = None
_SUSPECT = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
    "pickle.find_class",
    "ctypes.dlopen",
)
_WRITES = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.link",
    "os.symlink",
    "os.chmod",
    "shutil.rmtree",
    "tempfile.mkstemp",
)


def _hook(event, args):
    if _watched is None:
        return
    writes = event == "open" and isinstance(args[1], str) and any(letter in args[1] for letter in "wax+")
    if writes or event in _SUSPECT + _WRITES:
        _watched.append((event, args))


sys.addaudithook(_hook)


@contextlib.contextmanager
def watched():
    """Fails if anything is run, unpickled or written inside."""
    global _watched
    _watched = []
    try:
        yield
        assert not _watched
    finally:
        _watched = None


def refused(data, tmp_path, match=None):
    """That a file of these bytes raises ArtefactError, and that nothing else happens."""
    file = tmp_path / FILE
    file.write_bytes(data)
    with watched(), pytest.raises(trtplug.ArtefactError, match=match) as caught:
        trtplug.load(file)
    assert str(file) in str(caught.value)
    assert caught.value.path == str(file)
    assert os.listdir(tmp_path) == [FILE]
    return caught.value


# --- chance -----------------------------------------------------------------------------------------------------------


def layout_of(data):
    file = io.BytesIO(data)
    members = archive.directory(file)
    return members, archive.layout(members)


def test_the_good_file_is_good(good, tmp_path):
    (tmp_path / FILE).write_bytes(good)
    with watched():
        loaded = trtplug.load(tmp_path / FILE)
    assert loaded(torch.ones(3, 4), flag=True)["near"].shape == (3, 3)


def test_cut_off_anywhere(good, tmp_path):
    members, plan = layout_of(good)
    edges = {edge for member, start in zip(members, plan.starts) for edge in (start, start + member.size)}
    places = {place + by for place in edges | {0, len(good)} for by in (-1, 0, 1)}
    places |= set(random.Random(0).sample(range(len(good)), 60))
    for place in sorted(place for place in places if 0 <= place < len(good)):
        refused(good[:place], tmp_path)


def test_a_changed_byte_anywhere(good, tmp_path):
    members, plan = layout_of(good)
    chance = random.Random(0)
    places = set(chance.sample(range(len(good)), 150))
    for member, header, start in zip(members, plan.headers, plan.starts):
        places |= set(range(start - len(header), start - len(header) + 80))  # every field of every header
        places |= {start, start + member.size - 1}
    places |= set(range(len(good) - len(plan.end), len(good)))
    for place in sorted(place for place in places if place < len(good)):
        damaged = bytearray(good)
        damaged[place] ^= 1 << chance.randrange(8)
        refused(bytes(damaged), tmp_path)


def test_more_before_between_or_after(good, tmp_path):
    _, plan = layout_of(good)
    for place in (0, plan.starts[0], plan.starts[1], len(good) - len(plan.end), len(good)):
        for more in (b"\0", b"PK", b"x" * archive.ALIGNMENT):
            refused(good[:place] + more + good[place:], tmp_path)


@pytest.mark.parametrize("data", [b"", b"\0", b"PK", b"PK\3\4", b"PK\5\6" + bytes(18), b"hello" * 100, bytes(5000)])
def test_other_bytes(data, tmp_path):
    refused(data, tmp_path, r"empty|not a zip|without members|cut off")


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def foreign_files():
    pickled, saved, packed = pickle.dumps(Evil()), io.BytesIO(), io.BytesIO()
    torch.save({"x": torch.ones(2)}, saved)
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("manifest.json", json.dumps({"format": "trtplug", "version": 1}))
    return {"pickle": pickled, "torch.save": saved.getvalue(), "zip": packed.getvalue()}


@pytest.mark.parametrize("kind", ["pickle", "torch.save", "zip"])
def test_foreign_files(kind, tmp_path):
    refused(foreign_files()[kind], tmp_path, r"a \.trtp file is what trtplug\.save writes")


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(trtplug.ArtefactError, match="cannot be read: No such file"):
        trtplug.load(tmp_path / FILE)
    with pytest.raises(trtplug.SettingsError, match="a folder"):
        trtplug.load(tmp_path)


# --- intent: containers -----------------------------------------------------------------------------------------------


def contents_of(data):
    members, plan = layout_of(data)
    return {member.name: data[start:][: member.size] for member, start in zip(members, plan.starts)}


def packed(contents, *, sign=True):
    """A well-formed file of these members; with its manifest brought up to date where asked."""
    contents = dict(contents)
    if sign:
        manifest = json.loads(contents["manifest.json"])
        manifest["members"] = {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in contents.items()
            if name != "manifest.json"
        }
        contents["manifest.json"] = json.dumps(manifest).encode()
    file = io.BytesIO()
    archive.write(
        file,
        [
            (archive.Member(name, *archive.checksum([memoryview(data)])), lambda data=data: [memoryview(data)])
            for name, data in contents.items()
        ],
    )
    return file.getvalue()


def with_manifest(data, **changes):
    contents = contents_of(data)
    contents["manifest.json"] = json.dumps({**json.loads(contents["manifest.json"]), **changes}).encode()
    return packed(contents, sign=False)


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
def test_other_versions(version, good, tmp_path):
    words = r"has version .* of the format and was written by trtplug '[\d.]+'; this trtplug reads version 1"
    error = refused(with_manifest(good, version=version), tmp_path, words)
    assert error.member == "manifest.json"


def test_a_later_version_is_recognized_whatever_else_it_holds(good, tmp_path):
    contents = contents_of(with_manifest(good, version=7, novelty=1))
    refused(packed({**contents, "novelty.bin": b"?"}, sign=False), tmp_path, "has version 7")


def test_other_formats(good, tmp_path):
    refused(with_manifest(good, format="zip"), tmp_path, "not the manifest of a .trtp file")
    refused(with_manifest(good, more=1), tmp_path, "has the fields")


@pytest.mark.parametrize(
    "name",
    [
        "../../evil.json",
        "/tmp/evil",
        "engines/../evil.plan",
        "engines/..plan",
        "engines\\evil.plan",
        "engines/",
        "evil.py",
        "model.json\0",
        "engines/engine_0.plan/x",
        "ENGINES/engine_0.plan",
    ],
)
def test_members_that_it_does_not_know(name, good, tmp_path):
    contents = {**contents_of(good), name: b"evil"}
    refused(packed(contents, sign=False), tmp_path, "its members are")  # that the manifest does not name
    refused(packed(contents), tmp_path, "unknown member")  # that the manifest names


def test_a_plan_of_no_engine(good, tmp_path):
    refused(packed({**contents_of(good), "engines/engine_7.plan": b"plan"}), tmp_path, "engine_7.plan")


@pytest.mark.parametrize("name", ["manifest.json", "model.json", "report.json", "tensors.safetensors"])
def test_a_member_that_is_missing(name, good, tmp_path):
    contents = contents_of(good)
    del contents[name]
    refused(packed(contents, sign=name != "manifest.json"), tmp_path, "first member|not name the members")


def test_members_that_are_not_what_the_manifest_says(good, tmp_path):
    for name in list(contents_of(good))[1:]:
        contents = contents_of(good)
        contents[name] = contents[name][:-1] + bytes([contents[name][-1] ^ 1])
        error = refused(packed(contents, sign=False), tmp_path, "its SHA-256 is not the manifest's")
        assert error.member == name
        contents[name] += b" "
        refused(packed(contents, sign=False), tmp_path, "the manifest says")


def hostile_headers(good):
    """Files whose directory and headers agree with each other and are not canonical."""
    members, plan = layout_of(good)
    first = plan.starts[0] - len(plan.headers[0])
    central = len(good) - len(plan.end)
    bomb = bytearray(good)
    struct.pack_into("<H", bomb, central + 10, 8)  # deflated
    yield "compressed", bytes(bomb)
    link = bytearray(good)
    struct.pack_into("<L", link, central + 38, (stat.S_IFLNK | 0o777) << 16)
    yield "its directory is not what trtplug writes", bytes(link)
    flags = bytearray(good)
    struct.pack_into("<H", flags, first + 6, 1)  # encrypted
    yield "its header is not what trtplug writes", bytes(flags)
    name = bytearray(good)
    name[central + 46 : central + 46 + len(members[0].name)] = b"../vil.jsonxx"[: len(members[0].name)]
    yield "first member", bytes(name)
    size = bytearray(good)
    struct.pack_into("<QQ", size, central + 46 + len(members[0].name) + 4, 2**60, 2**60)
    yield "the whole file has", bytes(size)
    many = bytearray(good)
    struct.pack_into("<QQ", many, len(good) - 98 + 24, 2**62, 2**62)
    yield "its directory names", bytes(many)
    twice = bytearray(good)
    entry = 46 + len(members[0].name) + 28
    second = 46 + len(members[1].name) + 28
    assert entry != second or members[0].name != members[1].name
    del twice[central + entry : central + entry + second]
    twice[central + entry : central + entry] = twice[central : central + entry]
    yield None, bytes(twice)


def test_hostile_headers(good, tmp_path):
    for words, data in hostile_headers(good):
        assert data != good
        refused(data, tmp_path, words)


def test_zip_bombs(tmp_path):
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as opened:
            opened.writestr("manifest.json", bytes(50_000_000))
        refused(file.getvalue(), tmp_path)


# --- intent: contents -------------------------------------------------------------------------------------------------


def with_model(data, change):
    """A well-formed file whose model.json is changed by a function."""
    contents = contents_of(data)
    model = json.loads(contents["model.json"])
    change(model)
    contents["model.json"] = json.dumps(model).encode()
    return packed(contents)


CODE = "__import__('os').system('touch pwned')"
NAMES = [
    CODE,
    "x; " + CODE,
    "x\n" + CODE,
    "a b",
    "1x",
    "",
    "def",
    "None",
    "é",
    'x"]',
    "forward",
    "__class__",
    "x.__dict__",
]


def test_the_repacked_file_is_good(good, tmp_path):
    (tmp_path / FILE).write_bytes(with_model(good, lambda model: None))
    assert trtplug.load(tmp_path / FILE)(torch.ones(3, 4), flag=True)["near"].shape == (3, 3)


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_code(name, good, tmp_path):
    """FX writes Python code from names; none of these may get there."""

    def placeholder(model):
        model["graph"]["nodes"][0][2] = name

    def keyword(model):
        next(node for node in model["graph"]["nodes"] if node[0] == "call")[4][name] = 1

    def attribute(model):
        graph = model["graph"]
        graph["attributes"][name] = graph["attributes"].pop("centres")
        next(node for node in graph["nodes"] if node[2] == "centres")[2] = name

    def title(model):
        model["graph"]["title"] = name

    def node(model):
        model["graph"]["nodes"][0][1] = name

    changes = [placeholder, keyword, attribute] if name.isidentifier() and name.isascii() else [node, title]
    if name in ("forward", "__class__"):
        changes = [attribute]  # fine as the name of an input
    for change in changes:
        refused(with_model(good, change), tmp_path)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "builtins.exec",
        "builtins.__import__",
        "torch.load",
        "aten::from_file",
        "aten::save",
        CODE,
    ],
)
def test_calls_of_anything_else(target, good, tmp_path):
    def change(model):
        next(node for node in model["graph"]["nodes"] if node[0] == "call")[2] = target

    refused(with_model(good, change), tmp_path, "node '.*may call|reads or writes files|not an op|not registered")


def test_strings_in_arguments_stay_strings(good, tmp_path):
    def change(model):
        output = model["graph"]["nodes"][-1]
        output[3][0]["tuple"][0] = CODE + "\n'\"\\" + CODE

    (tmp_path / FILE).write_bytes(with_model(good, change))
    with watched():
        result = trtplug.load(tmp_path / FILE)(torch.ones(3, 4), flag=True)
    assert result["near"] == CODE + "\n'\"\\" + CODE


def test_nesting_without_end(good, tmp_path):
    contents = contents_of(good)
    for deep in (b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000):
        refused(packed({**contents, "model.json": deep}), tmp_path)

    def arguments(model):
        argument = 1
        for _ in range(300):
            argument = {"tuple": [argument]}
        model["constants"] = [[0, argument]]

    def graphs(model):
        nodes = [["output", "output", "output", [None], {}, {}]]
        graph = {"class": "GraphModule", "title": "G", "attributes": {}, "nodes": nodes}
        for _ in range(200):
            graph = {**graph, "attributes": {"inner": {"graph": graph}}}
        model["graph"]["attributes"]["deep"] = {"graph": graph}

    def sizes(model):
        size = "s0"
        for _ in range(300):
            size = ["Add", size, 1]
        model["checks"][0]["sizes"][0] = size

    for change in (arguments, graphs, sizes):
        refused(with_model(good, change), tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xff" * 8,
        (2**40).to_bytes(8, "little"),
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{}" + b"extra",
        (2).to_bytes(8, "little") + b"{}",
    ],
)
def test_tensors_that_are_not_safetensors(header, good, tmp_path):
    error = refused(packed({**contents_of(good), "tensors.safetensors": header}), tmp_path)
    assert error.member == "tensors.safetensors"


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [10**6, 10**6]},
        {"strides": [1000, 1000]},
        {"offset": 10**9},
        {"offset": -1},
        {"shape": [-1, 4]},
        {"dtype": "float128"},
        {"dtype": "load"},
        {"dtype": "int64"},
        {"device": "nowhere"},
        {"piece": 99},
        {"parameter": 1},
        {"shape": [2**62, 2**62], "strides": [0, 0]},
    ],
)
def test_tensors_that_cannot_be(change, good, tmp_path):
    def apply(model):
        next(entry for entry in model["tensors"]["tensors"] if len(entry["shape"]) == 2).update(change)

    refused(with_model(good, apply), tmp_path)


def test_a_report_that_contradicts_itself(good, tmp_path):
    contents = contents_of(good)
    report = json.loads(contents["report.json"])
    report["engines"][0]["nodes"] = ["nobody"]
    error = refused(packed({**contents, "report.json": json.dumps(report).encode()}), tmp_path, "nobody")
    assert error.member == "report.json"


# --- intent: anything -------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9)
    | st.sampled_from([*NAMES, 2**63, -1, 10**30, "*", "aten::add.Tensor", "operator.getitem", "cuda", "float32"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["tuple", "node", "dtype", "dict", "op", "slice", "float", "x"]), inner, max_size=2
        )
    ),
    max_leaves=4,
)


def places_in(value, path=()):
    yield path
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places_in(inner, (*path, key))


@pytest.mark.parametrize("member", ["model.json", "report.json", "manifest.json"])
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_any_other_json(member, good, tmp_path, data):
    """Well-formed files with other contents load as something consistent, or raise ArtefactError."""
    contents = contents_of(good)
    value = json.loads(contents[member])
    path = data.draw(st.sampled_from(sorted(places_in(value), key=repr)))
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    action = data.draw(st.sampled_from(["replace", "delete", "repeat"]))
    if not path:
        value = data.draw(JSON)
    elif action == "delete":
        del holder[path[-1]]
    elif action == "repeat" and isinstance(holder, list):
        holder.insert(path[-1], copy.deepcopy(holder[path[-1]]))
    else:
        holder[path[-1]] = data.draw(JSON)
    contents[member] = json.dumps(value).encode()
    file = tmp_path / FILE
    file.write_bytes(packed(contents, sign=member != "manifest.json"))
    with watched(), contextlib.suppress(trtplug.ArtefactError):
        loaded = trtplug.load(file)
        str(loaded.report)
    assert os.listdir(tmp_path) == [FILE]
