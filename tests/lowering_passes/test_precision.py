"""Each node computes in the dtype that it should; inputs, outputs and what half types would spoil are kept."""

from __future__ import annotations

import pytest
import torch
from conftest_passes import _assert_metadata, _interface, _values, graph_of, run
from torch import fx, nn

from trtplug_lowering_passes import range_sensitive, remove_no_ops_early
from trtplug_lowering_passes import set_precision as set_precision_pass
from trtplug_registry import UnknownNameError

aten = torch.ops.aten
set_precision = set_precision_pass.function
F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64


def lowered(function, *args, precision="float16", dynamic=False, **settings) -> fx.GraphModule:
    """The graph after the pass, held to what every pass must keep."""
    graph = graph_of(function, *args, dynamic=dynamic)
    remove_no_ops_early.function(graph)
    before = _interface(graph)
    set_precision(graph, precision=precision, **settings)
    graph.graph.lint()
    assert _interface(graph) == before
    for node, value in zip(*_values(graph, *args), strict=True):
        _assert_metadata(node, value)
    assert set_precision(graph, precision=precision, **settings) is False, "a second run changes nothing"
    graph.graph.eliminate_dead_code()
    return graph


def dtypes(graph: fx.GraphModule) -> dict[str, torch.dtype]:
    """What each call but casts computes, the last of its name."""
    return {
        node.target.overloadpacket.__name__: node.meta["val"].dtype
        for node in graph.graph.nodes
        if hasattr(node.target, "overloadpacket") and isinstance(node.meta["val"], torch.Tensor) and not is_cast(node)
    }


def is_cast(node: fx.Node) -> bool:
    return node.target is aten._to_copy.default


def casts(graph: fx.GraphModule) -> list[tuple[torch.dtype, torch.dtype]]:
    return [(node.args[0].meta["val"].dtype, node.meta["val"].dtype) for node in graph.graph.nodes if is_cast(node)]


def why(graph: fx.GraphModule, op: str) -> str:
    (node,) = (n for n in graph.graph.nodes if n.op == "call_function" and op in str(n.target))
    return node.meta.get("precision", "")


X = torch.randn(4, 8)


def test_nothing_is_asked_for():
    graph = graph_of(lambda x: (x @ x.T,), X)
    assert set_precision(graph) is False
    assert set_precision(graph, precision="keep") is False


@pytest.mark.parametrize(("name", "dtype"), [("float16", F16), ("bfloat16", BF16)])
@pytest.mark.parametrize("dynamic", [False, True])
def test_products_are_cast_and_softmax_is_not(name, dtype, dynamic):
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Softmax(-1), nn.Linear(8, 3))
    graph = lowered(model, X, precision=name, dynamic=dynamic)
    assert dtypes(graph) == {"linear": dtype, "gelu": dtype, "softmax": F32}
    assert casts(graph) == [(F32, dtype), (dtype, F32), (F32, dtype), (dtype, F32)]
    assert why(graph, "softmax").startswith("a sum of exponentials")
    weights = [node.meta["val"].dtype for node in graph.graph.nodes if node.op == "get_attr"]
    assert weights == [dtype] * 4, "weights are cast once, now"
    torch.testing.assert_close(run(graph, X)[0], model(X), rtol=0, atol={F16: 2e-3, BF16: 2e-2}[dtype])


def test_every_name_in_the_tables_is_an_op():
    tables = (
        *range_sensitive.RANGE_SENSITIVE,
        range_sensitive.EXACT,
        range_sensitive.BOUNDED,
        range_sensitive.PRODUCTS,
    )
    missing = [name for names in tables for name in names.split() if not hasattr(aten, name)]
    assert missing == []
    assert not range_sensitive.packets(range_sensitive.EXACT) & range_sensitive.range_sensitive().keys()


SENSITIVE = {
    "exp": torch.exp,
    "log": lambda x: x.abs().log(),
    "pow": lambda x: x**3,
    "rsqrt": lambda x: x.abs().rsqrt(),
    "layer_norm": lambda x: nn.functional.layer_norm(x, (8,)),
    "group_norm": lambda x: nn.functional.group_norm(x, 2),
    "mean": lambda x: x.mean(-1),
    "sum": lambda x: x.sum(0),
    "var": lambda x: x.var(-1),
    "cumsum": lambda x: x.cumsum(0),
    "logsumexp": lambda x: x.logsumexp(0),
    "mse_loss": lambda x: nn.functional.mse_loss(x, x + x),
    "linalg_vector_norm": lambda x: torch.linalg.vector_norm(x),
    "sin": torch.sin,
}


@pytest.mark.parametrize("op", SENSITIVE)
def test_what_half_types_spoil_is_kept(op):
    graph = lowered(lambda x: (SENSITIVE[op](x @ x.T @ x),), X)
    assert dtypes(graph)[op] == F32
    assert dtypes(graph)["matmul"] == F16
    assert why(graph, f"aten.{op}")


def test_kept_ops_exchange_exact_values():
    """Through what only moves elements, too: no pair of casts, and the numbers of float32."""

    def function(x):
        return (nn.functional.layer_norm(x, (8,)).reshape(8, 4).T.relu().softmax(-1).exp().sum(),)

    graph = lowered(function, X)
    assert casts(graph) == []
    torch.testing.assert_close(run(graph, X)[0], function(X)[0], rtol=0, atol=0)


def test_a_value_is_cast_once_for_all_who_read_it():
    graph = lowered(lambda x: (x.tanh(), x * 2.0, x.exp(), x - 1.0), X)
    assert sorted(casts(graph), key=str) == [(F16, F32)] * 3 + [(F32, F16)]


def test_casts_of_the_model_stay_where_they_round_and_go_where_they_do_not():
    graph = lowered(lambda x: (x.half().float().exp(),), X)
    assert casts(graph) == [], "to and float are the model's own casts"
    assert dtypes(graph) == {"to": F32, "exp": F32}
    torch.testing.assert_close(run(graph, X)[0], X.half().float().exp(), rtol=0, atol=0)
    graph = lowered(lambda x: (x.half().tanh().float() * 2.0,), X)
    assert [source for source, _ in casts(graph)] == [F16], "widened only for the output"


def test_a_widening_and_back_is_left_out():
    graph = lowered(lambda x: (x.tanh().to(F64).to(F32) * x,), X)
    assert casts(graph) == [(F32, F16), (F16, F32)], "the argument's and the result's"


def test_weights_are_shared():
    linear = nn.Linear(8, 8, bias=False)
    tied = nn.Sequential(linear, nn.ReLU(), linear)
    graph = lowered(tied, X)
    (weight,) = (node for node in graph.graph.nodes if node.op == "get_attr")
    assert len(weight.users) == 2

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(16, 8)
            self.head = nn.Linear(8, 16, bias=False)
            self.head.weight = self.table.weight

        def forward(self, index):
            return self.head(self.table(index))

    graph = lowered(Tied(), torch.arange(4))
    (weight,) = (node for node in graph.graph.nodes if node.op == "get_attr")
    assert (weight.meta["val"].dtype, len(weight.users)) == (F16, 2)


def test_a_weight_that_both_use_has_both():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(8))

        def forward(self, x):
            return nn.functional.layer_norm(x * self.scale, (8,), self.scale)

    graph = lowered(Both(), X)
    assert {node.meta["val"].dtype for node in graph.graph.nodes if node.op == "get_attr"} == {F16, F32}


# --- numbers and values that do not fit -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1e-9, 1e-5, 1e5, -3e38])
def test_numbers_that_float16_has_not(number):
    graph = lowered(lambda x: ((x @ x.T + number) * 0.5,), X)
    assert dtypes(graph)["add"] == F32
    assert "is not a normal number of float16" in why(graph, "add.Tensor")
    assert (dtypes(graph)["mul"] == F32) is (abs(number) > 65504), "what may overflow stays in float32"


@pytest.mark.parametrize("number", [0.5, -100.0, float("inf"), float("-inf"), 0.0, 3])
def test_numbers_that_float16_has(number):
    assert dtypes(lowered(lambda x: (x @ x.T + number,), X))["add"] == F16


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_a_row_that_is_masked_in_full_stays_finite(name):
    """The mask of older transformers: added, as the lowest number of float32."""

    def function(x, mask):
        bias = (1.0 - mask[:, None].to(F32)) * torch.finfo(F32).min
        return ((x @ x.T + bias).softmax(-1) @ x,)

    mask = torch.tensor([1, 0, 1, 0])
    graph = lowered(function, X, mask, precision=name)
    torch.testing.assert_close(run(graph, X, mask)[0], function(X, mask)[0], rtol=0, atol=3e-2)
    assert dtypes(graph)["matmul"] == (F16 if name == "float16" else BF16)


def test_constants_that_float16_has_not():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.large = nn.Parameter(torch.full((8,), 1e5))
            self.tiny = nn.Parameter(torch.tensor(1e-8))

        def forward(self, x):
            return (x @ x.T @ x) * self.large, x @ x.T + self.tiny

    graph = lowered(Model(), X)
    assert (
        dtypes(graph) == {"t": F32, "numpy_T": F32, "matmul": F16, "mul": F32, "add": F32}
        or dtypes(graph)["mul"] == F32
    )
    assert "100000 is not a normal number" in why(graph, "mul.Tensor")
    assert "1e-08 is not a normal number" in why(graph, "add.Tensor")


def test_positions_stay_exact_until_they_meet_features():
    """Rotary embeddings: angles of large positions, in float32 although the model says so nowhere."""

    def angles(n):
        frequencies = 1.0 / (10000.0 ** (torch.arange(0, 8, 2).float() / 8))
        positions = torch.arange(n.shape[0]).float() + 4000.0
        return (positions[:, None] @ frequencies[None, :]).cos()

    def function(x):
        return angles(x), x @ x.T @ torch.cat([angles(x), angles(x)], -1)

    graph = lowered(function, X)
    torch.testing.assert_close(run(graph, X)[0], angles(X), rtol=0, atol=0)
    products = [node for node in graph.graph.nodes if node.target is aten.matmul.default]
    assert sorted(str(node.meta["val"].dtype) for node in products) == ["torch.float16"] * 2 + ["torch.float32"] * 3


# --- settings ---------------------------------------------------------------------------------------------------------


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(8, 8), nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x):
        return self.norm(self.second(torch.relu(self.first(x))))


def linears(graph):
    return [node.meta["val"].dtype for node in graph.graph.nodes if node.target is aten.linear.default]


@pytest.mark.parametrize("name", ["first", "re:^first$"])
def test_modules_are_excluded(name):
    graph = lowered(Blocks(), X, precision_exclude=[name])
    assert linears(graph) == [F32, F16]
    (node,) = [n for n in graph.graph.nodes if n.target is aten.linear.default and n.meta["val"].dtype == F32]
    assert node.meta["precision"] == f"precision_exclude names {name!r}"


@pytest.mark.parametrize("name", ["aten::linear", "aten::linear.default", "aten.linear", "re:lin.ar"])
def test_ops_are_excluded(name):
    assert linears(lowered(Blocks(), X, precision_exclude=[name])) == [F32, F32]


@pytest.mark.parametrize("name", ["norm", "aten::layer_norm", "re:.*norm.*"])
def test_sensitive_ops_are_included(name):
    assert dtypes(lowered(Blocks(), X))["layer_norm"] == F32
    assert dtypes(lowered(Blocks(), X, precision_include=[name]))["layer_norm"] == F16


def test_exclusion_beats_inclusion():
    graph = lowered(Blocks(), X, precision_include=["norm"], precision_exclude=["aten::layer_norm"])
    assert dtypes(graph)["layer_norm"] == F32


def test_a_name_that_picks_nothing_is_told():
    graph = graph_of(Blocks(), X)
    with pytest.warns(UserWarning, match="precision_exclude names 'frist', which is no op or module of this graph"):
        set_precision(graph, precision="float16", precision_exclude=["frist"])
    with pytest.raises(UnknownNameError, match="did you mean 'aten::softmax'"):
        set_precision(graph, precision="float16", precision_exclude=["aten::sofmax"])


# --- dtypes of the model ----------------------------------------------------------------------------------------------


def test_double_precision_is_lowered_when_asked():
    model = Blocks().double()
    for name, product in (("float32", F32), ("float16", F16)):
        graph = lowered(model, X.double(), precision=name)
        assert dtypes(graph) == {"linear": product, "relu": product, "layer_norm": F32}
        torch.testing.assert_close(run(graph, X.double())[0], model(X.double()), rtol=0, atol=2e-2)


def test_double_precision_inside_a_model_is_lowered_too():
    graph = lowered(lambda x: ((x.double().cumsum(0) + torch.zeros(8, dtype=F64)).float(),), X, precision="float32")
    inner = {n.meta["val"].dtype for n in graph.graph.nodes if isinstance(n.meta.get("val"), torch.Tensor)}
    assert inner == {F32}


def test_half_models_are_widened():
    model = Blocks().half()
    graph = lowered(model, X.half(), precision="float32")
    assert dtypes(graph) == {"linear": F32, "relu": F32, "layer_norm": F32}
    assert casts(graph) == [(F16, F32), (F32, F16)]
    graph = lowered(model, X.half(), precision="bfloat16")
    assert dtypes(graph) == {"linear": BF16, "relu": BF16, "layer_norm": F32}


def test_ops_that_state_a_dtype_keep_it():
    graph = lowered(lambda x: ((x @ x.T).softmax(-1, dtype=F32) + (x @ x.T).sum(-1, dtype=F64),), X)
    assert dtypes(graph)["softmax"] == F32


def test_ops_of_others_and_random_ones_are_left_alone():
    @torch.library.custom_op("precisiontest::scale", mutates_args=())
    def scale(x: torch.Tensor) -> torch.Tensor:
        assert x.dtype == F32
        return x * 2

    scale.register_fake(torch.empty_like)
    graph = lowered(lambda x: (scale(x @ x.T), nn.functional.dropout(x @ x.T, 0.5, True)), X)
    assert (dtypes(graph)["scale"], dtypes(graph)["dropout"]) == (F32, F32)
    graph = lowered(lambda x: (nn.functional.scaled_dot_product_attention(x[None], x[None], x[None]),), X)
    assert dtypes(graph)["scaled_dot_product_attention"] == F16, "draws nothing without dropout"


def test_ops_with_several_results():
    def function(x):
        one, two = (x @ x.T).split(2)
        values, places = (one * two).topk(2)
        return values, places, torch.var_mean(x, 0)[1]

    graph = lowered(function, X)
    torch.testing.assert_close(run(graph, X)[0], function(X)[0], rtol=1e-2, atol=1e-2)
    assert dtypes(graph)["mul"] == F16


def test_buffers_that_the_model_writes_keep_their_dtype():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("state", torch.zeros(4, 4))

        def forward(self, x):
            self.state.add_(x @ x.T)
            return self.state * 2.0

    graph = lowered(Counter(), X)
    assert dtypes(graph)["matmul"] == F16
    states = [node for node in graph.graph.nodes if node.op == "get_attr"]
    assert [(str(node.target), node.meta["val"].dtype) for node in states] == [("state", F32)]


def test_no_guard_is_left_behind():
    graph = graph_of(Blocks(), X, dynamic=True)
    (given,) = (node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder")
    environment = given.fake_mode.shape_env
    before = len(environment.guards), dict(environment.var_to_range)
    assert set_precision(graph, precision="float16")
    assert (len(environment.guards), dict(environment.var_to_range)) == before
