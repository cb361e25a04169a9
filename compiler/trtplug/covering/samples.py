"""A well-formed call of an op, guessed from its schema, to see what lowering makes of one that no converter claims."""

from __future__ import annotations

import functools
import itertools
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo.source import ConstantSource
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.utils import _pytree as pytree

from trtplug.lowering.lift import lift

_SHAPES = ((2, 3, 4, 4), (4, 4), (4,), (2, 4, 4), (2, 3, 4, 4, 4), ())
"""Shapes of the first tensor; the others have the same, or what `_SHAPE_OF` says."""

_SHAPE_OF: Mapping[str, tuple[int, ...]] = {"running_mean": (3,), "running_var": (3,), "grid": (2, 4, 4, 2)}

_INDEX = frozenset({"index", "indices", "offsets", "target", "labels", "repeats", "batch1_index"})
_MASK = frozenset({"mask", "condition"})
_PER_CHANNEL = frozenset({"weight", "bias"})

_BY_NAME: Mapping[str, Any] = {
    "dim": 0,
    "dim0": 0,
    "dim1": 1,
    "dim2": 1,
    "kernel_size": 2,
    "output_size": 2,
    "stride": 1,
    "dilation": 1,
    "padding": 0,
    "pad": 1,
    "groups": 1,
    "num_groups": 1,
    "group": 1,
    "N": 2,
    "C": 3,
    "HxW": 16,
    "eps": 1e-5,
    "momentum": 0.1,
    "p": 2.0,
    "reduce": "sum",
    "mode": "constant",
    "equation": "...,...->...",
    "approximate": "none",
    "rounding_mode": "floor",
    "interpolation": "linear",
    "train": False,
    "training": False,
    "cudnn_enabled": False,
    "onesided": True,
    "size": 4,
    "sizes": 2,
    "repeats": 1,
    "normalized_shape": 4,
    "compute_mode": None,
    "interpolation_mode": 0,
    "padding_mode": 0,
    "align_corners": False,
    "scale_factors": 2.0,
    "n": 4,
    "steps": 4,
    "end": 4,
    "num_classes": 8,
    "split_size": 2,
    "sections": 2,
    "chunks": 2,
    "upscale_factor": 1,
    "downscale_factor": 1,
    "dtype": torch.float32,
}


def _convolution(axes: int, *padding: str) -> tuple[Any, ...]:
    given = (torch.ones(2, 3, *[5] * axes), torch.ones(4, 3, *[3] * axes))
    return (*given, None, [1] * axes, *padding) if padding else given


_KNOWN: Mapping[str, Callable[[], tuple[Any, ...]]] = {
    "aten::_adaptive_avg_pool2d_backward": lambda: (torch.ones(2, 3, 4, 5), torch.ones(2, 3, 7, 6)),
    "aten::_adaptive_avg_pool2d": lambda: (torch.ones(2, 3, 4, 6), [2, 3]),
    "aten::_adaptive_avg_pool3d": lambda: (torch.ones(2, 3, 4, 6, 4), [2, 3, 2]),
    "aten::_cdist_forward": lambda: (torch.ones(4, 3), torch.ones(2, 3), 2.0, None),
    "aten::_pdist_forward": lambda: (torch.ones(4, 3), 2.0),
    "aten::_embedding_bag": lambda: (
        *(torch.ones(4, 3), *(torch.zeros(2, dtype=torch.int64) for _ in range(2)), False, 1),
    ),
    "aten::_fft_c2r": lambda: (torch.ones(4, 4, dtype=torch.complex64), [1], 0, 6),
    "aten::_fft_r2c": lambda: (torch.ones(4, 4), [1], 0, True),
    "aten::_local_scalar_dense": lambda: (torch.ones(()),),
    "aten::_log_softmax": lambda: (torch.ones(2, 3), 1, False),
    "aten::_softmax": lambda: (torch.ones(2, 3), 1, False),
    "aten::_native_batch_norm_legit_no_training": lambda: (
        *(torch.ones(2, 3, 4), None, None, torch.zeros(3), torch.ones(3), 0.1, 1e-5),
    ),
    "aten::_native_batch_norm_legit": lambda: (
        *(torch.ones(2, 3, 4), None, None, torch.zeros(3), torch.ones(3), True, 0.1, 1e-5),
    ),
    "aten::_native_batch_norm_legit.no_stats": lambda: (torch.ones(2, 3, 4), None, None, True, 0.1, 1e-5),
    **{
        f"aten::{name}": lambda: (torch.ones(4, 3, dtype=torch.int64), torch.ones(4, 3, dtype=torch.int64))
        for name in ("__lshift__.Tensor", "__rshift__.Tensor")
    },
    **{
        f"aten::{name}": lambda: (torch.ones(4, 3, dtype=torch.int64), 2)
        for name in ("__lshift__.Scalar", "__rshift__.Scalar")
    },
    "aten::_fft_c2c": lambda: (torch.ones(4, 4, dtype=torch.complex64), [1], 0, True),
    "aten::empty_permuted": lambda: ([4, 3], [1, 0]),
    "aten::_is_all_true": lambda: (torch.ones(4, 3, dtype=torch.bool),),
    "aten::_is_any_true": lambda: (torch.ones(4, 3, dtype=torch.bool),),
    "aten::_unique2": lambda: (torch.ones(4, 3),),
    "aten::_reshape_copy": lambda: (torch.ones(4, 3), [3, 4]),
    "aten::addbmm": lambda: (torch.ones(2, 4), torch.ones(5, 2, 3), torch.ones(5, 3, 4)),
    "aten::addmv": lambda: (torch.ones(2), torch.ones(2, 3), torch.ones(3)),
    "aten::bilinear": lambda: (torch.ones(5, 2), torch.ones(5, 3), torch.ones(4, 2, 3), torch.ones(4)),
    "aten::binary_cross_entropy": lambda: (torch.ones(4, 3), torch.ones(4, 3)),
    "aten::binary_cross_entropy_with_logits": lambda: (torch.ones(4, 3), torch.ones(4, 3)),
    "aten::diagonal_scatter": lambda: (torch.ones(4, 3), torch.ones(3)),
    "aten::histc": lambda: (torch.ones(4, 3), 4, -1.0, 1.0),
    "aten::index_reduce": lambda: (torch.ones(4, 3), 0, torch.zeros(2, dtype=torch.int64), torch.ones(2, 3), "amax"),
    "aten::mv": lambda: (torch.ones(2, 3), torch.ones(3)),
    "aten::one_hot": lambda: (torch.zeros(4, dtype=torch.int64), 3),
    "aten::permute_copy": lambda: (torch.ones(4, 3), [1, 0]),
    **{f"aten::conv{axes}d": functools.partial(_convolution, axes) for axes in (1, 2, 3)},
    **{f"aten::conv{axes}d.padding": functools.partial(_convolution, axes, "same") for axes in (1, 2, 3)},
    "aten::avg_pool2d_backward": lambda: (
        *(torch.ones(2, 3, 4, 5), torch.ones(2, 3, 8, 10), [2, 2], [2, 2], [0, 0], False, True, None),
    ),
    "aten::col2im": lambda: (torch.ones(3, 8, 4), [4, 4], [2, 2], [1, 1], [0, 0], [2, 2]),
    "aten::clamp": lambda: (torch.ones(4), 0, 1),
    "aten::convolution": lambda: (
        *(torch.ones(2, 3, 5, 5), torch.ones(4, 3, 3, 3), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
    ),
    "aten::convolution_backward": lambda: (
        *(torch.ones(2, 4, 3, 3), torch.ones(2, 2, 5, 5), torch.ones(4, 2, 3, 3), [4]),
        *([1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, True]),
    ),
    "aten::embedding_dense_backward": lambda: (torch.ones(3, 4), torch.zeros(3, dtype=torch.int64), 5, -1, False),
    "aten::max_pool2d_with_indices_backward": lambda: (
        *(torch.ones(2, 3, 4, 5), torch.ones(2, 3, 8, 10), [2, 2], [2, 2], [0, 0], [1, 1], False),
        torch.zeros(2, 3, 4, 5, dtype=torch.int64),
    ),
    "aten::native_group_norm_backward": lambda: (
        *(torch.ones(2, 4, 3), torch.ones(2, 4, 3), torch.zeros(2, 2), torch.ones(2, 2), torch.ones(4)),
        *(2, 4, 3, 2, [True, True, True]),
    ),
    "aten::native_layer_norm_backward": lambda: (
        *(torch.ones(2, 3), torch.ones(2, 3), [3], torch.zeros(2, 1), torch.ones(2, 1), torch.ones(3), torch.ones(3)),
        [True, True, True],
    ),
    "aten::resize_": lambda: (torch.ones(4, 4), [2, 8]),
    "aten::select_scatter": lambda: (torch.ones(4, 4), torch.ones(4), 0, 1),
}
"""Arguments that fit together in ways that a guess misses."""


def sample(op: OpOverload) -> fx.GraphModule | None:
    """A graph with one call of `op` on fake tensors, or None where no well-formed call could be guessed.

    Of an op that writes to its arguments, the graph has the values instead of the writes.
    """
    found = call(op)
    return None if found is None else sample_of(op, *found)


def sample_of(op: OpOverload, args: Any, kwargs: Any, symbolic: str = "") -> fx.GraphModule | None:
    """As `sample`, of given arguments; `symbolic` are ``"all"`` sizes or those of the ``"first"`` axis, or none."""
    if op._schema.is_mutable:
        return None if symbolic else _functional(op, args, kwargs)
    return _graph(op, args, kwargs, symbolic)


def in_dtype(op: OpOverload, args: Any, kwargs: Any, dtype: torch.dtype) -> tuple[Any, Any] | None:
    """The same call with its data in another dtype, or None where eager has no such call.

    Data is what has the dtype of the first tensor that is no index and no mask; of a call without tensors, its result.
    """
    names = [argument.name for argument in op._schema.arguments]
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    data = next(
        (
            leaf.dtype
            for name, value in given.items()
            if name not in _INDEX | _MASK
            for leaf in pytree.tree_leaves(value)
            if isinstance(leaf, torch.Tensor)
        ),
        None,
    )
    if data is not None:
        args, kwargs = pytree.tree_map(
            lambda leaf: leaf.to(dtype) if isinstance(leaf, torch.Tensor) and leaf.dtype == data else leaf,
            (tuple(args), dict(kwargs)),
        )
    elif "dtype" in names:
        place = names.index("dtype")
        keyword = op._schema.arguments[place].kwarg_only
        args, kwargs = (args, {**kwargs, "dtype": dtype}) if keyword else ((*args[:place], dtype), kwargs)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            op(*args, **kwargs)
    except Exception:  # eager refuses in any way
        return None
    return args, kwargs


def call(op: OpOverload) -> tuple[Sequence[Any], Mapping[str, Any]] | None:
    """Arguments that eager takes, or None where none could be guessed.

    Guesses are tried in eager, which refuses one quickly. Torch's internal ops are not called: some crash the process
    when their arguments make no sense.
    """
    if op.name() in _KNOWN:
        return _KNOWN[op.name()](), {}
    if op._schema.name.partition("::")[2].startswith("_") and op._schema.returns:
        return None
    lengths = (1, 2, 3, 4) if any("List[" in str(a.type) for a in op._schema.arguments) else (1,)
    for shape, dtype, length in itertools.product(_SHAPES, (torch.float32, torch.int64, torch.bool), lengths):
        guess = _Guess(shape, dtype, length)
        try:
            args, kwargs = guess.arguments(op)
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                op(*args, **kwargs)
        except Exception:  # a guess that is not well-formed fails in any way
            continue
        return args, kwargs
    return None


class _Call(torch.nn.Module):
    """One call on copies of the inputs: a model's input cannot be written to in every way that its own tensors can."""

    def __init__(self, op: OpOverload, args: Any, kwargs: Any) -> None:
        super().__init__()
        self.op = op
        self.leaves, self.spec = pytree.tree_flatten((tuple(args), dict(kwargs)))

    def tensors(self) -> tuple[torch.Tensor, ...]:
        return tuple(leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor))

    def forward(self, *tensors: torch.Tensor) -> Any:
        given = iter(tensors)
        leaves = [next(given).clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in self.leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return self.op(*args, **kwargs)


def _functional(op: OpOverload, args: Any, kwargs: Any) -> fx.GraphModule | None:
    module = _Call(op, args, kwargs)
    try:
        return lift(torch.export.export(module, module.tensors(), strict=False)).graph_module
    except Exception:  # a write that is no value
        return None


def _graph(op: OpOverload, args: Any, kwargs: Any, symbolic: str = "") -> fx.GraphModule | None:
    env = ShapeEnv() if symbolic else None
    graph, mode = fx.Graph(), FakeTensorMode(allow_non_fake_inputs=True, shape_env=env)
    leading = next((leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)), None)

    def placed(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        node = graph.placeholder(f"in_{len(graph.nodes)}")
        node.meta["val"] = (
            mode.from_tensor(leaf) if env is None else _symbolic(mode, leaf, leading, symbolic, node.name)
        )
        return node

    args, kwargs = pytree.tree_map(placed, (tuple(args), kwargs))
    node = graph.call_function(op, args, kwargs)
    fake_args, fake_kwargs = fx.node.map_arg((args, kwargs), lambda source: source.meta["val"])
    try:
        with mode, enable_python_dispatcher(), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            node.meta["val"] = op(*fake_args, **fake_kwargs)
    except Exception:  # an op without a fake implementation
        return None
    if env is not None and not any(env.replace(symbol).free_symbols for symbol in env.var_to_range):
        return None  # eager's own rules fix every size, or there is none
    results = list(_results(graph, node)) or graph.find_nodes(
        op="placeholder"
    )  # an op without results, such as a check
    graph.output(tuple(results)).meta["val"] = tuple(item.meta["val"] for item in results)
    return fx.GraphModule(torch.nn.Module(), graph) if results else None


def _symbolic(mode: FakeTensorMode, leaf: torch.Tensor, leading: Any, which: str, name: str) -> torch.Tensor:
    """A fake tensor whose sizes are symbolic, equal ones being one symbol."""
    first = leading.shape[:1] if leading is not None else ()
    sizes = [
        DimDynamic.DUCK if which == "all" or (axis == 0 and leaf.shape[:1] == first) else DimDynamic.STATIC
        for axis in range(leaf.dim())
    ]
    context: Any = StatelessSymbolicContext(dynamic_sizes=sizes)
    return mode.from_tensor(leaf, source=ConstantSource(name), symbolic_context=context)


def _results(graph: fx.Graph, node: fx.Node) -> Iterator[fx.Node]:
    value = node.meta["val"]
    if isinstance(value, torch.Tensor):
        yield node
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            if isinstance(item, torch.Tensor):
                part = graph.call_function(operator.getitem, (node, number))
                part.meta["val"] = item
                yield part


class _Guess:
    """Guesses a value for each argument that has no default."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, length: int) -> None:
        self.shape, self.dtype, self.length = shape, dtype, length

    def arguments(self, op: OpOverload) -> tuple[list[Any], dict[str, Any]]:
        required = [a for a in op._schema.arguments if not a.has_default_value()]
        args = [self.value(a.name, str(a.type)) for a in required if not a.kwarg_only]
        return args, {a.name: self.value(a.name, str(a.type)) for a in required if a.kwarg_only}

    def value(self, name: str, kind: str) -> Any:
        if kind in ("Tensor", "Optional[Tensor]"):
            return self.tensor(name)
        if kind in ("List[Tensor]", "List[Optional[Tensor]]"):
            return [self.tensor(name), self.tensor(name)] if name != "indices" else [self.tensor(name)]
        guess = _BY_NAME.get(name, 1)
        if kind.startswith("List["):
            return [guess] * self.length
        if kind == "Optional[List[float]]":  # of output sizes and scale factors, one is given
            return [float(guess)] * self.length
        if kind in ("int", "number", "Optional[int]", "Optional[number]"):
            return guess if guess is None or isinstance(guess, int | float) else 1
        if kind in ("float", "Optional[float]"):
            return float(guess) if isinstance(guess, int | float) else 0.5
        if kind in ("bool", "Optional[bool]"):
            return bool(guess) if name in _BY_NAME else False
        if kind == "str":
            return guess if isinstance(guess, str) else "none"
        if kind.startswith("Optional["):
            return None
        raise TypeError(kind)

    def tensor(self, name: str) -> torch.Tensor:
        shape = _SHAPE_OF.get(name, self.shape)
        if name in _PER_CHANNEL and len(shape) > 1:
            shape = (shape[1],)
        if name in _INDEX:
            return torch.zeros(shape, dtype=torch.int64)
        return torch.ones(shape, dtype=torch.bool if name in _MASK else self.dtype)
