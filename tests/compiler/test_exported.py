"""Torch's own formats: ``.pt2``, a real ExportedProgram, and ``.ts``; read by Torch alone, refused without trust."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch
from conftest_artefacts import CASES, Foreign, Pair, assert_same
from torch import nn
from torch.utils import _pytree as pytree

import trtplug
from trtplug import stored_engine

# Torch's own: its pytree, where it copies a program; and 2.11 reads buffers of a .pt2 from bytes
TORCHS_OWN = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:The given buffer is not writable")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    made = {}

    def get(name, suffix=".pt2"):
        if name not in made:
            torch.manual_seed(0)
            made[name] = CASES[name][0]()
        if (name, suffix) not in made:
            made[name, suffix] = trtplug.save(made[name], tmp_path_factory.mktemp("saved") / f"model{suffix}")
        return made[name], made[name, suffix]

    return get


@pytest.mark.parametrize("name", CASES)
def test_a_loaded_model_is_the_saved_one(name, saved):
    original, file = saved(name)
    loaded = trtplug.load(file, trusted=True)
    assert loaded.report == original.report
    ops = [n for n in loaded.program.graph.nodes if n.target is torch.ops.trtplug.stored_engine.default]
    assert len(ops) == len(original.engines)
    for size in (2, 4, 8, 3):
        args, kwargs = CASES[name][1](size)
        copies = pytree.tree_map_only(torch.Tensor, torch.clone, args)
        results = loaded(*copies, **kwargs)
        expected = original(*args, **kwargs)
        assert_same(results, expected)
        assert_same(copies, args)  # what is written into inputs


PLAIN = """
import sys
for name in ("trtplug_converters", "trtplug_lowering_passes", "tensorrt_rtx", "tensorrt"):
    sys.modules[name] = None
import torch
ours = {name for name in sys.modules if "trtplug" in name and sys.modules[name]}
assert ours == {"trtplug", "trtplug.collector", "trtplug.stored_engine"}, ours
program = torch.export.load(sys.argv[1])
args, kwargs = torch.load(sys.argv[2])
torch.save(torch.utils._pytree.tree_leaves(program.module()(*args, **kwargs)), sys.argv[3])
args, kwargs = torch.load(sys.argv[5])
torch.save(torch.jit.load(sys.argv[4])(*args), sys.argv[6])
"""


def test_torch_alone_loads_and_runs_it_without_plugins_and_without_tensorrt(saved, tmp_path):
    original, file = saved("mixed")
    args, kwargs = CASES["mixed"][1](5)
    torch.save((args, kwargs), tmp_path / "in.pt")
    sizes, script = saved("sizes", ".ts")
    given = CASES["sizes"][1](5)
    torch.save(given, tmp_path / "in.ts.pt")
    ignored = [
        "-W",
        "ignore:`torch.jit:DeprecationWarning",
        "-W",
        "ignore:The given buffer is not writable:UserWarning",
    ]
    command = [sys.executable, "-W", "error", *ignored, "-c", PLAIN]
    paths = [file, "in.pt", "out.pt", script, "in.ts.pt", "out.ts.pt"]
    done = subprocess.run([*command, *paths], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same(torch.load(tmp_path / "out.pt"), pytree.tree_leaves(original(*args, **kwargs)))
    assert_same(torch.load(tmp_path / "out.ts.pt"), sizes(*given[0]))


@TORCHS_OWN
def test_shapes_follow_from_the_program_without_running_it(saved):
    _, file = saved("sizes")
    program = torch.export.load(file)
    assert [str(v) for v in program.range_constraints.values()] == ["VR[2, 8]", "VR[3, 9]"]  # no size is data-dependent
    again = program.run_decompositions({})
    x, y = torch.randn(4, 3), torch.randn(5, 3)
    assert_same(again.module()(x, y), program.module()(x, y))


def test_what_trtp_holds_becomes_a_pt2(saved, tmp_path):
    original, _ = saved("mixed")
    loaded = trtplug.load(trtplug.save(original, tmp_path / "model.trtp"))
    again = trtplug.load(trtplug.save(loaded, tmp_path / "model.pt2"), trusted=True)
    args, kwargs = CASES["mixed"][1](3)
    assert_same(again(*args, **kwargs), original(*args, **kwargs))


def test_foreign_containers_come_back_as_dicts(tmp_path):
    original = trtplug.compile(Foreign(), (Pair(torch.randn(3), torch.randn(3)),), min_block_size=1)
    loaded = trtplug.load(trtplug.save(original, tmp_path / "model.pt2"), trusted=True)
    given = Pair(torch.randn(3), torch.randn(3))
    assert_same(loaded(given._asdict()), original(given)._asdict())


def test_inputs_that_do_not_fit_are_refused_by_torch(saved):
    _, file = saved("sizes")
    loaded = trtplug.load(file, trusted=True)
    with pytest.raises(AssertionError, match="Guard failed"):
        loaded(torch.randn(9, 3), torch.randn(4, 3))


def test_the_executor_and_the_device_can_be_chosen(saved):
    original, file = saved("mixed")
    loaded = trtplug.load(file, trusted=True, executor="reference", device="cpu")
    assert loaded.report.executor == "reference"
    args, kwargs = CASES["mixed"][1](3)
    assert_same(loaded(*args, **kwargs), original(*args, **kwargs))
    with pytest.raises(trtplug.TrtplugError, match="did you mean 'reference'"):
        trtplug.load(file, trusted=True, executor="referense")


# --- trust ------------------------------------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return os.system, ("echo executed > executed",)


@pytest.mark.parametrize("suffix", [".pt2", ".ts"])
@pytest.mark.parametrize("content", ["pickle", "zip", "real"])
def test_nothing_is_read_without_trust(content, suffix, saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"model{suffix}"
    if content == "pickle":
        file.write_bytes(pickle.dumps(Bomb()))
    elif content == "zip":
        torch.save(Bomb(), file)
    else:
        file.write_bytes(saved("writes", suffix)[1].read_bytes())
    opened = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    with pytest.raises(trtplug.ArtefactError, match=rf"Torch unpickles a \{suffix} file.*trusted=True"):
        trtplug.load(file)
    assert str(file) not in opened
    assert os.listdir(tmp_path) == [f"model{suffix}"]


@pytest.mark.parametrize("suffix", [".pt2", ".ts"])
def test_damage_is_refused(suffix, saved, tmp_path):
    """Cut off at every member, and a byte of an engine changed: Torch does not look, its digest does."""
    source = saved("sizes", suffix)[1]
    data = source.read_bytes()
    file = tmp_path / f"model{suffix}"
    with zipfile.ZipFile(source) as opened:
        members = [info.header_offset for info in opened.infolist()]
    for place in members:
        file.write_bytes(data[:place])
        with pytest.raises(trtplug.ArtefactError, match=str(file)):
            trtplug.load(file, trusted=True)
    plan = data.index(b"engine.plan") + 20_000
    file.write_bytes(data[:plan] + bytes([data[plan] ^ 1]) + data[plan + 1 :])
    with pytest.raises(trtplug.ArtefactError):
        trtplug.load(file, trusted=True)


def test_a_program_that_is_not_ours_is_named(tmp_path):
    file = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(nn.ReLU(), (torch.randn(3),)), file)
    with pytest.raises(trtplug.ArtefactError, match=r"trtplug\.save did not write it.*torch\.export\.load"):
        trtplug.load(file, trusted=True)
    with pytest.raises(trtplug.ArtefactError, match="cannot be read: No such file"):
        trtplug.load(tmp_path / "nothing.pt2", trusted=True)


def test_an_op_that_is_not_registered_is_named(tmp_path, capfd):
    library = torch.library.Library("trtplug_foreign", "DEF")
    try:
        library.define("mystery(Tensor x) -> Tensor")
        library.impl("mystery", lambda x: x * 3, "CompositeExplicitAutograd")
        torch.library.register_fake("trtplug_foreign::mystery", torch.empty_like, lib=library)

        class Uses(nn.Module):
            def forward(self, x):
                return torch.relu(torch.ops.trtplug_foreign.mystery(x))

        compiled = trtplug.compile(Uses(), (torch.randn(3),), min_block_size=1)
        file = trtplug.save(compiled, tmp_path / "model.pt2")
    finally:
        library._destroy()
        del torch.ops.trtplug_foreign
    with pytest.raises(trtplug.ArtefactError, match=r"torch\.ops\.trtplug_foreign\.mystery\.default.*not registered"):
        trtplug.load(file, trusted=True)
    assert capfd.readouterr().err == ""  # Torch's own words are in the error


# --- TorchScript ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["counter", "writes", "sizes", "strided"])
def test_torchscript_is_the_saved_model(name, tmp_path):
    original = CASES[name][0]()
    file = trtplug.save(original, tmp_path / "model.ts")
    loaded = trtplug.load(file, trusted=True, executor="reference")
    assert loaded.report == original.report
    for size in (2, 4, 8, 3):  # sizes stay sizes
        args, kwargs = CASES[name][1](size)
        copies = pytree.tree_map_only(torch.Tensor, torch.clone, args)
        assert_same(loaded(*copies, **kwargs), original(*args, **kwargs))
        assert_same(copies, args)


@pytest.mark.parametrize(("name", "words"), [("mixed", "inputs are not all tensors"), ("fixed", "inputs are not all")])
def test_what_torchscript_has_no_type_for(name, words, saved, tmp_path):
    with pytest.raises(
        trtplug.ArtefactError, match=rf"TorchScript cannot hold the model: its {words}.*save it as \.trtp"
    ):
        trtplug.save(saved(name)[0], tmp_path / "model.ts")
    assert list(tmp_path.iterdir()) == []


def test_a_script_that_is_not_ours_is_named(tmp_path):
    file = tmp_path / "model.ts"
    with pytest.warns(DeprecationWarning, match=r"torch\.jit"):
        torch.jit.save(torch.jit.script(nn.ReLU()), file)
    with pytest.raises(trtplug.ArtefactError, match=r"trtplug\.save did not write it.*torch\.jit\.load"):
        trtplug.load(file, trusted=True)


# --- the op -----------------------------------------------------------------------------------------------------------


def test_the_op_keeps_no_engine_alive():
    x, keys = torch.randn(3), []
    for module in (nn.ReLU(), nn.Tanh()):
        compiled = trtplug.compile(module, (x,), min_block_size=1)
        data, signature = stored_engine.packed(compiled.engines[0])
        (result,) = torch.ops.trtplug.stored_engine([x], data, signature)
        assert_same(result, module(x))
        keys.append((signature, "auto", "cpu"))
        assert keys[-1] in stored_engine._PREPARED
    assert keys[0] not in stored_engine._PREPARED  # its data was gone when the second one came


def test_the_op_is_checked_by_torch():
    compiled = trtplug.compile(nn.ReLU(), (torch.randn(3, 2),), min_block_size=1)
    data, signature = stored_engine.packed(compiled.engines[0])
    torch.library.opcheck(
        torch.ops.trtplug.stored_engine.default,
        ([torch.randn(3, 2)], data, signature),
        test_utils=("test_schema", "test_faketensor"),
    )
    with pytest.raises(trtplug.ArtefactError, match="SHA-256 is not the signature's"):
        torch.ops.trtplug.stored_engine([torch.randn(3, 2)], data + 1, signature)
