"""The ONNX node tests, through NVIDIA's parser and the reference executor: an outside opinion on every kind of layer.

`DIFFERENCES` names the cause of every disagreement, and each cause has a minimal test below that shows it. The run
fails if a listed test begins to agree, or if one that is not listed does not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx_cases
import pytest
import torch
from handmade import Handmade, trt

from trtplug._tensorrt import library
from trtplug.reference import UnsupportedLayer, lift
from trtplug.reference.rules import RULES
from trtplug.reference.topology import BRANCH_KINDS, LOOP_KINDS

onnx = pytest.importorskip("onnx")

CAUSES = {
    "window in the padding": "TensorRT's rounding up keeps a last window that starts in the padding; ONNX drops it",
    "layout ignored": "the parser ignores layout=1 of recurrent networks",
    "Trilu's default": "the parser reads the default of Trilu's `upper`, 1, as 0",
    "key lengths ignored": "the parser ignores Attention's nonpad_kv_seqlen",
    "window ignored": "the parser ignores Attention's window sizes",
    "softmax of nothing": "where all keys are masked ONNX wants 0; a softmax over nothing is NaN, on a GPU too",
    "fractional size": "with scales and align_corners ONNX computes with size * scale, TensorRT with its floor",
    "mode ignored": "the parser ignores SpaceToDepth's mode",
    "order of boxes": "TensorRT's NMS orders boxes by score over all classes, ONNX's class by class",
    "random": "the network fills a tensor at random, without a seed",
}

DIFFERENCES = {
    "test_averagepool_2d_ceil_last_window_starts_on_pad": "window in the padding",
    "test_maxpool_2d_ceil_output_size_reduce_by_one": "window in the padding",
    "test_gru_batchwise": "layout ignored",
    "test_lstm_batchwise": "layout ignored",
    "test_simple_rnn_batchwise": "layout ignored",
    "test_triu": "Trilu's default",
    "test_triu_neg": "Trilu's default",
    "test_triu_one_row": "Trilu's default",
    "test_triu_out_neg_out": "Trilu's default",
    "test_triu_out_pos": "Trilu's default",
    "test_triu_pos": "Trilu's default",
    "test_triu_square": "Trilu's default",
    "test_triu_square_neg": "Trilu's default",
    "test_attention_4d_causal_nonpad_batch_prefill": "key lengths ignored",
    "test_attention_4d_causal_nonpad_continued_prefill": "key lengths ignored",
    "test_attention_4d_causal_nonpad_negative_offset_structural_empty": "key lengths ignored",
    "test_attention_4d_gqa_causal_nonpad_decode": "key lengths ignored",
    "test_attention_4d_gqa_causal_nonpad_decode_fp16": "key lengths ignored",
    "test_attention_bidirectional_window": "window ignored",
    "test_attention_local_window": "window ignored",
    "test_attention_23_boolmask_fullymasked_row_nan_robustness": "softmax of nothing",
    "test_resize_downsample_scales_cubic_align_corners": "fractional size",
    "test_resize_downsample_scales_linear_align_corners": "fractional size",
    "test_spacetodepth_crd_mode_example": "mode ignored",
    "test_nonmaxsuppression_two_classes": "order of boxes",
    "test_bernoulli_double_expanded": "random",
    "test_bernoulli_seed_expanded": "random",
}

# node tests that agree, those with "_expanded" in their name (functions spelt out as other nodes) counted apart
AGREEMENTS = {"1.7": (713, 338), "1.6": (713, 338)}

# kinds that no agreeing node test holds: test_layers.py alone vouches for them
UNSEEN = {"ASSERTION", "DEQUANTIZE", "NON_ZERO", "PADDING", "QUANTIZE", "RAGGED_SOFTMAX", "SCALE"}


@pytest.mark.slow
def test_node_tests() -> None:
    program = Path(onnx_cases.__file__)
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    records = [json.loads(line) for line in done.stdout.splitlines()]
    by_name = {record["name"]: record for record in records}
    assert len(by_name) == len(records)

    settled = {"agrees", "rejected", "skipped"}
    new = [r for r in records if r["verdict"] not in settled and r["name"] not in DIFFERENCES]
    assert not new, "without a cause:\n" + "\n".join(f"{r['name']}: {r['verdict']}, {r['detail']}" for r in new)
    gone = [name for name in DIFFERENCES if by_name[name]["verdict"] in settled]
    assert not gone, f"no longer different: {gone}"

    counts = Counter((r["verdict"], "_expanded" in r["name"]) for r in records)
    version = ".".join(library().__version__.split(".")[:2])
    for expanded, least in enumerate(AGREEMENTS.get(version, (660, 300))):
        assert counts["agrees", bool(expanded)] >= least, counts

    seen = {kind for r in records if r["verdict"] == "agrees" for kind in r["kinds"]}
    assert {*RULES, *LOOP_KINDS, *BRANCH_KINDS} - seen <= UNSEEN


def test_every_cause_is_described_and_used() -> None:
    assert set(CAUSES) == set(DIFFERENCES.values())


Arrays = dict[str, np.ndarray | None]


def parsed(op: str, arrays: Arrays, fixed: tuple[str, ...] = (), **attrs: Any) -> Any:
    """The network that the parser makes of one ONNX node with one float output, and what to hold while it is used."""
    helper = onnx.helper
    node = helper.make_node(op, [name if array is not None else "" for name, array in arrays.items()], ["y"], **attrs)
    given = {name: array for name, array in arrays.items() if array is not None}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in given.items()
    ]
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph([node], "g", inputs, [output]))
    live = {place for place, name in enumerate(given) if name not in fixed}
    return onnx_cases.parse(model, list(given.values()), live, onnx_cases.Silent())


def value(op: str, arrays: Arrays, fixed: tuple[str, ...] = (), **attrs: Any) -> torch.Tensor:
    """What the lifted network of one ONNX node computes."""
    network, *_held = parsed(op, arrays, fixed, **attrs)
    feeds = [torch.from_numpy(array) for name, array in arrays.items() if array is not None and name not in fixed]
    (result,) = lift(network, {})(*feeds)
    assert isinstance(result, torch.Tensor)
    return result


def test_cause_window_in_the_padding() -> None:
    made = Handmade()
    pool = made.network.add_pooling_nd(made.input("x", torch.float32, 1, 1, 2, 2), trt.PoolingType.MAX, (1, 1))
    pool.stride_nd = (2, 2)
    pool.padding_mode = trt.PaddingMode.EXPLICIT_ROUND_UP
    pool.post_padding = (1, 1)
    # windows start at 0 and at 2, which is padding: ONNX has one window along each axis
    assert list(pool.get_output(0).shape) == [1, 1, 2, 2]


def test_cause_layout_ignored() -> None:
    x, w, r = np.zeros((3, 5, 2), "f4"), np.zeros((1, 4, 2), "f4"), np.zeros((1, 4, 4), "f4")
    network, *_held = parsed("RNN", {"x": x, "w": w, "r": r}, hidden_size=4, layout=1)
    # batch 3, sequence 5, and Y is [batch, sequence, directions, hidden] in this layout
    assert list(network.get_output(0).shape) == [3, 1, 5, 4]


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [({}, np.tril), ({"upper": 1}, np.triu), ({"upper": 0}, np.tril)],
    ids=["by default", "upper", "lower"],
)
def test_cause_trilu_s_default(attrs: dict[str, int], expected: Any) -> None:
    x = np.arange(9, dtype="f4").reshape(3, 3)
    assert value("Trilu", {"x": x}, **attrs).tolist() == expected(x).tolist()


def heads(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, "f4")


def test_cause_key_lengths_ignored() -> None:
    inputs: Arrays = {name: heads(1, 2, 4, 8) for name in "qkv"}
    lengths = np.array([2], "i8")
    ragged = value("Attention", {**inputs, "mask": None, "pk": None, "pv": None, "lengths": lengths})
    assert torch.equal(ragged, value("Attention", inputs))


def test_cause_window_ignored() -> None:
    inputs: Arrays = {name: heads(1, 2, 4, 8) for name in "qkv"}
    assert torch.equal(value("Attention", inputs, left_window_size=1), value("Attention", inputs))


def test_cause_softmax_of_nothing() -> None:
    made = Handmade()
    scores = made.constant(torch.full((1, 3), -torch.inf))
    layer = made.network.add_softmax(scores)
    layer.axes = 2
    assert made.run(layer.get_output(0)).isnan().all()


def test_cause_fractional_size() -> None:
    x = np.arange(4, dtype="f4").reshape(1, 1, 1, 4)
    scales = np.array([1, 1, 1, 0.6], "f4")
    attrs = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    have = value("Resize", {"x": x, "roi": None, "scales": scales}, ("scales",), **attrs)
    # floor(4 * 0.6) = 2 elements: the corners. ONNX steps by (4 - 1) / (2.4 - 1), which overshoots the last one
    assert have.flatten().tolist() == [0.0, 3.0]


def test_cause_mode_ignored() -> None:
    x = np.arange(16, dtype="f4").reshape(1, 2, 2, 4)
    modes = [value("SpaceToDepth", {"x": x}, blocksize=2, mode=mode) for mode in ("DCR", "CRD")]
    assert torch.equal(*modes)


def test_cause_order_of_boxes() -> None:
    made = Handmade()
    boxes = made.input("boxes", torch.float32, 1, 2, 4)
    scores = made.input("scores", torch.float32, 1, 2, 2)
    layer = made.network.add_nms(boxes, scores, made.constant(2, torch.int32))
    apart = torch.tensor([[[0.0, 0, 1, 1], [5, 5, 6, 6]]])
    points = torch.tensor([[[0.9, 0.8], [0.1, 0.7]]])
    assert made.run(layer.get_output(0), apart, points).tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1]]


def test_cause_random() -> None:
    made = Handmade()
    layer = made.network.add_fill((2,), trt.FillOperation.RANDOM_UNIFORM, trt.float32)
    with pytest.raises(UnsupportedLayer, match="RANDOM_UNIFORM is random"):
        made.lift(layer.get_output(0))
