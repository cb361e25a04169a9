"""load(save(c)) equals c: in this process, in a fresh one without converters or TensorRT, and byte for byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile

import pytest
import safetensors.torch
import torch
from conftest_artefacts import CASES, Foreign, Pair, assert_same, mystery
from torch import nn
from torch.utils import _pytree as pytree

import trtplug
from trtplug.artefacts import archive


@pytest.fixture(scope="module")
def compiled():
    made = {}

    def get(name):
        if name not in made:
            torch.manual_seed(0)
            made[name] = CASES[name][0]()
        return made[name]

    return get


@pytest.mark.parametrize("suffix", [".trtp", ".pt2", ""])
def test_a_place_that_cannot_be_written_to(suffix, compiled, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(trtplug.ArtefactError, match="it cannot be written: ") as caught:
        trtplug.save(compiled(next(iter(CASES))), tmp_path / "file" / f"model{suffix}")
    assert f"file/model{suffix}: " in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", CASES)
def test_a_loaded_model_is_the_saved_one(name, compiled, tmp_path):
    original = compiled(name)
    file = trtplug.save(original, tmp_path / "model.trtp")
    loaded = trtplug.load(file)
    assert isinstance(loaded, trtplug.CompiledModule)
    assert loaded.report == original.report
    assert str(loaded.report) == str(original.report)
    assert [engine.plan for engine in loaded.engines] == [engine.plan for engine in original.engines]
    for one, other in zip(loaded.engines, original.engines, strict=True):
        assert (one.name, one.input_bindings, one.output_bindings) == (
            other.name,
            other.input_bindings,
            other.output_bindings,
        )
        assert one.reference.code == other.reference.code
    assert loaded.graph_module.code == original.graph_module.code
    assert list(map(str, loaded.checks)) == list(map(str, original.checks))
    for size in (2, 4, 8, 3):
        args, kwargs = CASES[name][1](size)
        copies = pytree.tree_map_only(torch.Tensor, torch.clone, args)
        assert_same(loaded(*copies, **kwargs), original(*args, **kwargs))
        assert_same(copies, args)  # what is written into inputs
        state, wanted = dict(loaded.named_buffers()), dict(original.named_buffers())
        for path in state.keys() & wanted.keys():
            torch.testing.assert_close(state[path], wanted[path])


@pytest.mark.parametrize("name", CASES)
def test_saving_is_deterministic(name, compiled, tmp_path):
    one = trtplug.save(compiled(name), tmp_path / "one.trtp").read_bytes()
    assert trtplug.save(compiled(name), tmp_path / "two.trtp").read_bytes() == one
    again = trtplug.save(trtplug.load(tmp_path / "one.trtp"), tmp_path / "three.trtp").read_bytes()
    assert again == one
    assert sorted(os.listdir(tmp_path)) == ["one.trtp", "three.trtp", "two.trtp"]


FRESH = """
import sys
for name in ("trtplug_converters", "trtplug_lowering_passes", "tensorrt_rtx", "tensorrt", "torch._dynamo"):
    sys.modules[name] = None
import torch, trtplug
model = trtplug.load(sys.argv[1])
args, kwargs = torch.load(sys.argv[2])
torch.save([leaf for leaf in torch.utils._pytree.tree_leaves(model(*args, **kwargs))], sys.argv[3])
"""


@pytest.mark.parametrize("name", ["mixed", "sizes"])
def test_a_fresh_process_needs_neither_converters_nor_tensorrt(name, compiled, tmp_path):
    original = compiled(name)
    trtplug.save(original, tmp_path / "model.trtp")
    args, kwargs = CASES[name][1](5)
    torch.save((args, kwargs), tmp_path / "in.pt")
    command = [sys.executable, "-W", "error", "-c", FRESH, "model.trtp", "in.pt", "out.pt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same(torch.load(tmp_path / "out.pt"), pytree.tree_leaves(original(*args, **kwargs)))


def test_an_op_that_is_not_registered_is_named(compiled, tmp_path):
    class UsesMystery(nn.Module):
        def forward(self, x):
            return torch.relu(mystery(x))

    original = trtplug.compile(UsesMystery(), (torch.randn(3),), min_block_size=1)
    file = trtplug.save(original, tmp_path / "model.trtp")
    x = torch.randn(3)
    assert_same(trtplug.load(file)(x), original(x))
    code = "import sys, trtplug\ntry: trtplug.load(sys.argv[1])\nexcept trtplug.ArtefactError as error: print(error)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, file], capture_output=True, text=True)
    assert "the op trtplug_artefacts::mystery is not registered here: import the library" in done.stdout, done.stderr


def test_inputs_are_checked_after_loading(compiled, tmp_path):
    loaded = trtplug.load(trtplug.save(compiled("sizes"), tmp_path / "model.trtp"))
    for args in [(torch.randn(9, 3), torch.randn(3, 3)), (torch.randn(3), torch.randn(3, 3)), (1, 2)]:
        with pytest.raises(trtplug.InputError) as wanted:
            compiled("sizes")(*args)
        with pytest.raises(trtplug.InputError) as found:
            loaded(*args)
        assert str(found.value) == str(wanted.value)
    fixed = trtplug.load(trtplug.save(compiled("fixed"), tmp_path / "model.trtp"))
    with pytest.raises(trtplug.InputError, match=r"the model was exported for the value 2\.5"):
        fixed(torch.randn(3), 3.5, mode="on")


def test_foreign_containers_come_back_as_dicts(tmp_path):
    original = trtplug.compile(Foreign(), (Pair(torch.randn(3), torch.randn(3)),), min_block_size=1)
    loaded = trtplug.load(trtplug.save(original, tmp_path / "model.trtp"))
    given = Pair(torch.randn(3), torch.randn(3))
    assert isinstance(original(given), Pair)
    assert_same(loaded(given._asdict()), original(given)._asdict())


def test_gradients_are_asked_for_as_before(compiled, tmp_path):
    original = compiled("mixed")
    loaded = trtplug.load(trtplug.save(original, tmp_path / "model.trtp"))
    names = {name: parameter.requires_grad for name, parameter in original.named_parameters()}
    assert names == {name: parameter.requires_grad for name, parameter in loaded.named_parameters()}
    assert names == {"graph_module.centres": True}


def test_equal_buffers_have_memory_of_their_own(compiled, tmp_path):
    counter = trtplug.load(trtplug.save(compiled("counter"), tmp_path / "model.trtp"))
    places = [buffer.data_ptr() for buffer in counter.graph_module.buffers()]
    assert len(set(places)) == len(places) >= 2


def test_weights_are_stored_once(tmp_path):
    class Shares(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(1000))
            self.twin = nn.Parameter(self.weight.detach().clone())

        def forward(self, x):
            return torch.relu(torch.sort(x * self.weight).values * self.weight + self.twin)

    original = trtplug.compile(Shares(), (torch.randn(1000),), min_block_size=1, torch_ops=["aten::sort"])
    file = trtplug.save(original, tmp_path / "model.trtp")
    with zipfile.ZipFile(file) as opened:
        assert opened.testzip() is None
        tensors = safetensors.torch.load(opened.read("tensors.safetensors"))
        places = [info.header_offset for info in opened.infolist()]
        assert {info.compress_type for info in opened.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(opened.read("report.json")) == json.loads(original.report.to_json())
    assert sum(tensor.numel() == 1000 for tensor in tensors.values()) == 1
    assert places == sorted(places)


def test_members_start_at_pages(compiled, tmp_path):
    file = trtplug.save(compiled("mixed"), tmp_path / "model.trtp")
    data = file.read_bytes()
    with open(file, "rb") as opened:
        plan = archive.layout(archive.directory(opened))
    assert all(start % archive.ALIGNMENT == 0 for start in plan.starts)
    assert compiled("mixed").engines[0].plan == data[plan.starts[4] :][: len(compiled("mixed").engines[0].plan)]


def test_the_executor_and_the_device_can_be_chosen(compiled, tmp_path):
    file = trtplug.save(compiled("counter"), tmp_path / "model.trtp")
    assert trtplug.load(file, executor="reference", device="cpu").report.executor == "reference"
    with pytest.raises(trtplug.TrtplugError, match="unknown executor 'referense': did you mean 'reference'"):
        trtplug.load(file, executor="referense")
    assert {b.device.type for b in trtplug.load(file, device="meta").graph_module.buffers()} == {"meta"}


# --- where things go --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".onnx", ".engine", ".zip"])
def test_other_suffixes_are_explained(suffix, compiled, tmp_path):
    with pytest.raises(trtplug.SettingsError, match=r"no format for the suffix '\.\w+'; use \.trtp"):
        trtplug.save(compiled("writes"), tmp_path / f"model{suffix}")
    with pytest.raises(trtplug.SettingsError, match=r"use \.trtp"):
        trtplug.load(tmp_path / f"model{suffix}")
    assert not list(tmp_path.iterdir())


def test_a_failing_write_leaves_what_was_there(compiled, tmp_path, monkeypatch):
    file = trtplug.save(compiled("writes"), tmp_path / "model.trtp")
    before = file.read_bytes()

    def interrupted(*args):
        args[0].write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(archive, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trtplug.save(compiled("mixed"), file)
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.trtp"]


def test_a_model_that_a_file_cannot_hold_is_explained(compiled, tmp_path):
    loaded = trtplug.load(trtplug.save(compiled("counter"), tmp_path / "model.trtp"))
    loaded.graph_module.count = torch.zeros(3).to_sparse()
    with pytest.raises(trtplug.ArtefactError, match=r"cannot be saved: .*'count' .*no plain memory"):
        trtplug.save(loaded, tmp_path / "other.trtp")
    loaded = trtplug.load(tmp_path / "model.trtp")
    (sort,) = [node for node in loaded.graph_module.graph.nodes if node.name == "sort"]
    sort.target = print
    with pytest.raises(trtplug.ArtefactError, match=r"node 'sort': .*it is not a registered op"):
        trtplug.save(loaded, tmp_path / "other.trtp")
    with pytest.raises(trtplug.SettingsError, match="found Linear"):
        trtplug.save(nn.Linear(1, 1), tmp_path / "other.trtp")
    assert os.listdir(tmp_path) == ["model.trtp"]


def test_a_folder_of_engines(compiled, tmp_path):
    original = compiled("mixed")
    folder = trtplug.save(original, tmp_path / "engines")
    manifest = json.loads((folder / "manifest.json").read_text())
    for engine, entry in zip(original.engines, manifest["engines"], strict=True):
        assert (folder / entry["file"]).read_bytes() == engine.plan
    entry = manifest["engines"][0]["inputs"][0]
    symbol, extent = entry.pop("extents")
    assert symbol.isidentifier()
    assert extent == 8
    assert entry == {
        "name": "x",
        "dtype": "float32",
        "shape": [-1, 8],
        "size": False,
        "smallest": [2, 8],
        "typical": [4, 8],
        "largest": [8, 8],
    }
    assert {entry["op"] for entry in manifest["torch_ops"]} >= {"aten::sort"}
    trtplug.save(compiled("writes"), folder)  # replaced as a whole
    assert sorted(item.name for item in folder.iterdir()) == [
        *(f"{engine.name}.engine" for engine in compiled("writes").engines),
        "manifest.json",
    ]
    assert os.listdir(tmp_path) == ["engines"]
    with pytest.raises(trtplug.SettingsError, match="holds no Torch part"):
        trtplug.load(folder)


def test_a_folder_of_somebody_else_is_not_touched(compiled, tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"name": "a web app"}')
    with pytest.raises(trtplug.ArtefactError, match="not a folder of engines that trtplug wrote"):
        trtplug.save(compiled("writes"), folder)
    ours = trtplug.save(compiled("writes"), tmp_path / "ours")
    (ours / "notes.txt").write_text("mine")
    with pytest.raises(trtplug.ArtefactError, match="not a folder of engines that trtplug wrote"):
        trtplug.save(compiled("mixed"), ours)
    assert (ours / "notes.txt").read_text() == "mine"
    model = tmp_path / "model.trtp"
    model.mkdir()
    with pytest.raises(trtplug.ArtefactError, match="not a folder of engines"):
        trtplug.save(compiled("writes"), model)
