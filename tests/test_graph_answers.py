"""Published tables, as answers for graphs: the engine knows none of them."""

import re
from dataclasses import replace

import pytest
from sympy import Expr, Rational, S, Symbol, expand

from scaling.models.architectures import (
    convolutional,
    lora,
    mixture,
    perceptron,
    plain,
    recurrent,
    residual,
    transformer,
)
from scaling.models.building import Builder
from scaling.models.graph import Graph, GraphNode, Start, fixed
from scaling.models.settings import Settings
from scaling.report.graph_tables import graph_table, tensor_steps
from scaling.sizes.errors import NotCovered
from scaling.solve.conditions import STANDARD
from scaling.solve.graph_solution import GraphDerived, derive_graph
from scaling.states.graph_passes import Passes
from scaling.states.tensor_uses import tensor_sizes

HALF = Rational(1, 2)
ADAM = "ema(G, beta_1) / (sqrt(ema(G*G, beta_2)) + eps)"
SIGN = "sign(G)"
MUON = "orth(G)"
KIMI = "sqrt(max(fan_in, fan_out))*orth(G)"
SHAMPOO = "(L + rho_L*I)**(-1/4) @ G @ (R + rho_R*I)**(-1/4)"


def rates(answer: GraphDerived) -> dict[str, Expr]:
    return {name: x.c for name, x in answer.tensors.items()}


MATRICES = [f"blocks.{name}" for name in ("query", "key", "value", "projection", "up", "down")]
VECTORS = [f"blocks.norm_{k}.{name}" for k in (1, 2) for name in ("gain", "bias")]
VECTORS += ["norm.gain", "norm.bias", "embedding", "positions"]


def test_adam_on_a_transformer() -> None:
    """CompleteP's table in the width, and 1/d attention: arXiv 2203.03466, 2505.01618."""
    answer = derive_graph(ADAM, transformer("width", attention=-S.One))
    c = rates(answer)
    assert {name: c[name] for name in MATRICES} == dict.fromkeys(MATRICES, 1)
    assert {name: c[name] for name in VECTORS} == dict.fromkeys(VECTORS, 0)
    assert c["readout"] == 1
    assert {answer.tensors[name].b for name in MATRICES} == {HALF}
    assert (answer.tensors["embedding"].b, answer.tensors["readout"].b) == (0, 1)
    eps = {name: x.d["eps"] for name, x in answer.tensors.items()}
    assert {eps[name] for name in (*MATRICES, *VECTORS)} == {1}
    assert eps["readout"] == 0
    assert not answer.changes


def test_attention_scaled_by_the_root_binds_queries_and_keys_and_is_named() -> None:
    answer = derive_graph(ADAM, transformer("width"))
    for name in ("query", "key"):
        x = answer.tensors[f"blocks.{name}"]
        assert (x.c, x.start.own) == (Rational(3, 2), 1)
        assert x.binds.endswith("softmax_18")
    (change,) = answer.changes
    assert (change.found, change.needed) == (-HALF, -1)
    assert change.where == "attention: scale"
    assert "blocks.query, blocks.key" in change.why


def test_sgd_sees_independent_weights_around_attention_only_at_the_start() -> None:
    """A gradient of q and k that is larger by M^(1/2) later: arXiv 2405.15712."""
    answer = derive_graph("G", transformer("width", attention=-S.One))
    for name in ("query", "key"):
        x = answer.tensors[f"blocks.{name}"]
        assert (x.start.gradient, x.moved.gradient) == (Rational(-3, 2), -1)
        assert (x.start.c, x.moved.c, x.c) == (-HALF, 0, 0)


KFAC = "(B + rho_B*I)**(-e_B) @ G @ (A + rho_A*I)**(-e_A)"


def test_kfac_on_a_transformer_has_the_table_of_its_roles() -> None:
    """arXiv 2312.12226, Prop. 4.1, tensor by tensor.

    Queries and keys have a smaller gradient at the start, and are damped there by what fits all
    later steps: a rate for the start under dampings of its own would go with none of these.
    """
    answer = derive_graph(KFAC, transformer("width", attention=-S.One))
    e_a, e_b = Symbol("e_A"), Symbol("e_B")
    table = {
        "embedding": (e_b - 1, 1, 0),
        **dict.fromkeys(MATRICES, (e_b - e_a, 1, -1)),
        "readout": (1 - e_a, 0, -1),
    }
    for name, expected in table.items():
        x = answer.tensors[name]
        assert (expand(x.c), x.d["rho_B"], x.d["rho_A"]) == expected, name
    query = answer.tensors["blocks.query"]
    assert query.start.gradient == Rational(-3, 2) and query.start.d == query.moved.d
    assert expand(query.start.c - (e_b - e_a - HALF)) == 0


@pytest.mark.parametrize("rule", ["sign(G) + decay*W", "G + decay*W"])
def test_learning_rate_times_decay_is_constant(rule: str) -> None:
    """arXiv 2405.13698, whichever of the two states decides the rate."""
    for graph in (transformer("width", attention=-S.One), mixture("width"), residual("depth", 2)):
        answer = derive_graph(rule, graph)
        assert all(x.d["decay"] == -x.c for x in answer.tensors.values())


def test_what_the_reading_of_a_rule_assumes_is_said() -> None:
    nesterov = "G + beta*ema(G, beta) - beta**2*G"
    answer = derive_graph(nesterov, perceptron())
    assert [x for x in answer.assumptions if x.startswith("the terms of")]
    clipped = graph_table(derive_graph("clip(G/(norm(G)**2 + 1), 1)", perceptron()))
    assert "regime in input: norm(G)**2 ~ M^(-1), 1 ~ 1: 1 dominates" in clipped.notes


@pytest.mark.parametrize(
    ("rule", "k", "hidden", "bias", "damping"),
    [
        (ADAM, 2, 0, 0, {"eps": 1}),
        ("G", 2, -1, -1, {}),
        (MUON, 2, 0, 0, {}),
        (ADAM, 1, HALF, HALF, {"eps": HALF}),
        ("G", 1, 0, 0, {}),
        (MUON, 1, HALF, HALF, {}),
        (KIMI, 2, 0, 0, {}),
        (KIMI, 1, HALF, HALF, {}),
    ],
)
def test_depth_of_residual_blocks(
    rule: str, k: int, hidden: Expr, bias: Expr, damping: dict[str, Expr]
) -> None:
    """arXiv 2603.00541, Tables 3-7 and 9-13: r_L^-1 for k >= 2, r_L^-1/2 for k = 1."""
    power = -S.One if k == 2 else -HALF
    activation = "relu" if k == 2 else "linear"
    answer = derive_graph(
        rule, residual("depth", k, power, norms=False, biases=True, activation=activation)
    )
    c = rates(answer)
    assert (c["input"], c["output"]) == (0, 0)
    assert {c[f"blocks.{j}"] for j in range(k)} == {hidden}
    assert {c[f"blocks.{j}_bias"] for j in range(k)} == {bias}
    assert dict(answer.tensors["blocks.0"].d) == damping
    assert not answer.changes


def test_the_dampings_of_shampoo_follow_the_depth() -> None:
    """arXiv 2603.00541: Shampoo(1/4, 1/4) has rates of order one and eps r_L^-2."""
    x = derive_graph(SHAMPOO, residual("depth", 2, -S.One, norms=False)).tensors["blocks.0"]
    assert (x.c, dict(x.d)) == (0, {"rho_L": 2, "rho_R": 2})


@pytest.mark.parametrize("multiplier", [S.Zero, -HALF])
def test_a_residual_multiplier_that_keeps_blocks_lazy_is_named(multiplier: Expr) -> None:
    """Complete feature learning at 1/L alone: arXiv 2505.01618."""
    answer = derive_graph(ADAM, transformer("depth", multiplier=multiplier))
    assert {rates(answer)[name] for name in MATRICES} == {HALF}
    assert {(x.found, x.needed) for x in answer.changes} == {(multiplier, -1)}
    assert len(answer.changes) == 2


def test_complete_p_needs_no_change() -> None:
    answer = derive_graph(ADAM, transformer("depth", multiplier=-S.One))
    assert set(rates(answer).values()) == {0}
    assert {answer.tensors[name].d["eps"] for name in MATRICES} == {1}
    assert not answer.changes


def test_a_mean_of_the_activation_adds_up_over_the_depth() -> None:
    """One relu layer a block: its mean has no random sign, so 1/sqrt(L) is not enough."""
    plain = derive_graph("G", residual("depth", 1, -HALF, norms=False, activation="tanh"))
    assert rates(plain)["blocks.0"] == 0
    with pytest.raises(NotCovered, match=re.escape("multiplies what it carries by M^(1/2)")):
        derive_graph("G", residual("depth", 1, -HALF, norms=False, activation="relu"))


def test_blocks_without_a_norm_or_a_multiplier_blow_up_with_the_depth() -> None:
    with pytest.raises(NotCovered, match="multiply the residual branch by count"):
        derive_graph("G", residual("depth", 2, norms=False))


def test_an_adapter_has_two_rates() -> None:
    """arXiv 2402.12354: A ~ 1/n and B ~ 1; A's gradient is zero until B has moved."""
    answer = derive_graph(ADAM, lora())
    assert set(answer.tensors) == {"A", "B"}
    a, b = answer.tensors["A"], answer.tensors["B"]
    assert (a.start.c, a.moved.c, a.c) == (None, 1, 1)
    assert (b.c, b.b) == (0, S.Infinity)


@pytest.mark.parametrize("gamma", [S.Zero, HALF, S.One])
def test_both_rates_of_an_adapter_over_the_rank(gamma: Expr) -> None:
    """arXiv 2602.06204: one rate for both is r^(-(1-gamma)/2) n^(-1/2), their geometric mean."""
    over_rank = rates(derive_graph(SIGN, lora("rank", -gamma)))
    over_width = rates(derive_graph(SIGN, lora("width")))
    assert (over_rank["A"] + over_rank["B"]) / 2 == (1 - gamma) / 2
    assert (over_width["A"] + over_width["B"]) / 2 == HALF


def test_a_vocabulary_that_grows_changes_no_rate_and_few_rows_have_a_gradient() -> None:
    answer = derive_graph(ADAM, transformer("vocabulary"))
    assert set(rates(answer).values()) == {0}
    assert [x for x in answer.assumptions if "rows that occur" in x]
    assert {x.moved.gradient for x in answer.tensors.values()} == {0}
    with pytest.raises(NotCovered, match="of whose growing rows few have a gradient"):
        derive_graph("G / norm(G)", transformer("vocabulary"))


def test_experts() -> None:
    """arXiv 2601.20205: router 1/n, up 1/n, down 1/n; every expert has a matrix of its own."""
    answer = derive_graph(ADAM, mixture("width"))
    c = rates(answer)
    assert (c["router"], c["up"], c["down"], c["input"], c["output"]) == (1, 1, 1, 0, 1)
    assert (answer.tensors["up"].fan_in, answer.tensors["up"].fan_out) == (1, 1)
    assert answer.tensors["up"].b == HALF
    assert answer.tensors["router"].b == 1  # as a readout, arXiv 2508.09752


def test_embeddings_tied_to_the_readout_cost_a_factor() -> None:
    answer = derive_graph(ADAM, transformer("width", attention=-S.One, tied=True))
    x = answer.tensors["embedding"]
    assert (x.b, x.c) == (1, 1)
    (change,) = answer.changes
    assert (change.found, change.needed) == (0, -1)
    assert "used twice" in change.why


def test_shared_weights_of_a_recurrence_are_one_hidden_matrix() -> None:
    x = derive_graph(ADAM, recurrent(4)).tensors["recurrence"]
    assert (x.b, x.c, x.fan_in, x.fan_out) == (HALF, 1, 1, 1)


def test_kernel_axes_are_fixed() -> None:
    c = rates(derive_graph(ADAM, convolutional(4)))
    assert list(c.values()) == [0, 1, 1, 1]


def test_an_operation_without_a_row_is_refused_by_name_and_line() -> None:
    graph = perceptron()
    nodes = [
        GraphNode(n.name, "aten.fft_rfft", n.inputs, n.axes, {}, "mixer: model.py:7")
        if n.op == "apply"
        else n
        for n in graph.nodes
    ]
    strange = Graph("width", tuple(nodes), graph.parameters, graph.outputs, graph.loss)
    with pytest.raises(NotCovered, match=r"'aten\.fft_rfft', in apply_3 at mixer: model\.py:7"):
        derive_graph("G", strange)


def lines(answer: GraphDerived, name: str) -> list[str]:
    return [str(step.subject) for step in tensor_steps(answer, name).lines()]


def test_a_rate_is_derived_line_by_line_to_the_node_that_binds() -> None:
    answer = derive_graph(ADAM, transformer("width"))
    steps = tensor_steps(answer, "blocks.query").lines()
    (bound,) = [step for step in steps if step.inference.name == "tolerance"]
    assert bound.result.width == HALF
    assert bound.numbers.endswith("-> blocks.contract_15 -> blocks.multiply_17")
    subjects = lines(answer, "blocks.query")
    assert subjects.index("|d loss / d blocks.softmax_18|") < subjects.index(
        "delta of blocks.query"
    )
    assert "h of blocks.query" in subjects


def test_what_was_supposed_is_said_where_it_was() -> None:
    fixed = derive_graph(ADAM, perceptron())
    assert "the batch is fixed" in fixed.assumptions
    assert not [x for x in fixed.assumptions if "blocks" in x or "used twice" in x]
    longer = derive_graph(ADAM, transformer("sequence", tied=True))
    assert "the batch is fixed" not in longer.assumptions
    assert [x for x in longer.assumptions if "add up in the gradient" in x]
    assert [x for x in longer.assumptions if "used twice" in x]


@pytest.mark.parametrize("rule", [MUON, SHAMPOO, "G/specnorm(G)"])
def test_ranks_are_not_known_where_samples_grow(rule: str) -> None:
    with pytest.raises(NotCovered, match="samples grow in number"):
        derive_graph(rule, transformer("sequence"))


def test_the_number_of_layers_in_a_sum_is_fixed() -> None:
    rule = "G / sqrt(over_layers(norm(G)**2))"
    assert derive_graph(rule, residual("width", 2)).tensors
    with pytest.raises(NotCovered, match="number of layers grows"):
        derive_graph(rule, residual("depth", 2, -S.One))


@pytest.mark.parametrize("letter", ["a", "b"])
def test_a_symbol_as_a_start_is_refused_with_the_number_of_a_stable_start(letter: str) -> None:
    beta = Symbol("beta")
    given = Settings(**{letter: {"output": 2 * beta}})
    with pytest.raises(NotCovered) as refused:
        derive_graph(KFAC, perceptron(), given)
    assert f"{letter}_output = 2*beta" in str(refused.value)
    offered = re.search(rf"--set {letter}_output=(\S+?),", str(refused.value))
    assert offered is not None
    value = Settings(**{letter: {"output": Rational(offered[1])}})
    assert rates(derive_graph(KFAC, perceptron(), value)) == rates(derive_graph(KFAC, perceptron()))


def test_symbols_as_rates_and_dampings_are_kept() -> None:
    beta = Symbol("beta")
    answer = derive_graph("sign(G)", perceptron(), Settings(c={"output": beta}))
    assert answer.tensors["output"].c == beta
    damped = derive_graph("G/(norm(G) + eps)", perceptron(), Settings(d={("eps", "output"): beta}))
    assert damped.tensors["output"].c.has(beta)


def test_logits_without_a_factor_are_read_where_queries_are_given_a_small_start() -> None:
    """T5 has no factor of the logits, and queries that start with entries of 1/head_size."""
    graph = transformer("width", attention=S.Zero)
    with pytest.raises(NotCovered, match=r"M\^\(1/2\) under a softmax.*\n.*\n.*--set b_NAME=1"):
        derive_graph(ADAM, graph)
    answer = derive_graph(ADAM, graph, Settings(b={"blocks.query": S.One}))
    found = {k: (answer.tensors[f"blocks.{k}"].b, answer.tensors[f"blocks.{k}"].c)
             for k in ("query", "key")}  # fmt: skip
    assert found == {"query": (1, 2), "key": (HALF, 3 * HALF)}
    assert [(x.found, x.needed) for x in answer.changes] == [(0, -1)]
    (said,) = (x for x in answer.assumptions if x.startswith("given is b"))
    assert said.startswith("given is b of blocks.query = 1, without which there are entries that")
    with pytest.raises(NotCovered, match="under a softmax"):
        derive_graph(ADAM, graph, Settings(b={"blocks.query": HALF}))


def test_starts_and_rates_that_are_given_against_a_condition_are_said() -> None:
    starts = Settings(b={"hidden": HALF / 2, "output": S.One})
    assumed = derive_graph("sign(G)", perceptron(), starts).assumptions
    assert [x for x in assumed if "is given" in x] == [
        "b = 1/4 is given where a stable start has 1/2: hidden"
    ]
    given = Settings(c={"input": S.One, "hidden": S.Zero, "output": S.One})
    assumed = derive_graph("sign(G)", perceptron(), given).assumptions
    assert [x for x in assumed if "is given" in x] == [
        "c = 1 is given where the largest stable rate has 0: input",
        "c = 0 is given where the largest stable rate has 1: hidden",
    ]


@pytest.mark.parametrize("name", ["stable start", "maximal readback", "stable step"])
def test_no_condition_on_nodes_is_left_out_in_silence(name: str) -> None:
    fewer = [x for x in STANDARD if x.name != name]
    with pytest.raises(NotCovered, match=f"without {name}"):
        derive_graph("sign(G)", perceptron(), conditions=fewer)
    free = [x for x in STANDARD if not x.name.startswith("balanced")]
    x = derive_graph("G/(norm(G) + eps)", perceptron(), conditions=free).tensors["hidden"]
    assert x.d["eps"] == Symbol("d_eps_hidden")


@pytest.mark.parametrize("rule", ["G", ADAM, MUON])
@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_the_depth_of_a_plain_chain(rule: str, activation: str) -> None:
    """arXiv 2305.07810: the largest rate is L^-3/2; arXiv 2402.17440: (sum of depth^3)^-1/2."""
    answer = derive_graph(rule, plain(activation, biases=True))
    c = rates(answer)
    three_halves = Rational(3, 2)
    assert c == {
        "input": HALF, "blocks.0": three_halves, "blocks.0_bias": three_halves, "output": 0,
    }  # fmt: skip
    assert max(c.values()) == three_halves  # one rate for all tensors: one path of depth L
    assert [x for x in answer.assumptions if "critical start" in x and "beyond the depth" in x]
    assert not [x for x in answer.assumptions if "what they add to" in x]
    residuals = derive_graph(rule, residual("depth", 2, -S.One)).assumptions
    assert not [x for x in residuals if "critical start" in x]


def test_a_plain_chain_whose_sizes_are_no_power_of_the_depth_is_refused() -> None:
    for activation in ("tanh", "gelu"):
        with pytest.raises(NotCovered, match="none of which adds") as refused:
            derive_graph("G", plain(activation))
        assert "use relu there" in str(refused.value)
        derive_graph("G", plain("relu"))


def test_a_bias_that_adds_up_over_a_plain_chain_is_refused_unless_it_starts_at_zero() -> None:
    graph = plain(biases=True)
    nodes = []
    for node in graph.nodes:
        repeat = node.get("repeat")
        if repeat is not None:
            drawn = [replace(p, start=Start.DRAWN) for p in repeat.body.parameters]
            inner = replace(repeat, body=replace(repeat.body, parameters=tuple(drawn)))
            node = replace(node, attributes={"repeat": inner})
        nodes.append(node)
    drawn_biases = replace(graph, nodes=tuple(nodes))
    with pytest.raises(NotCovered, match=re.escape("--set b_blocks.0_bias=oo")):
        derive_graph("G", drawn_biases)
    zero = Settings(b={"blocks.0_bias": S.Infinity})
    assert rates(derive_graph("G", drawn_biases, zero)) == rates(derive_graph("G", graph))


def test_a_plain_chain_with_a_norm_or_with_shared_weights_is_refused() -> None:
    for shared in (False, True):
        m, body = Builder("depth"), Builder("depth", "blocks.")
        x = m.linear("input", m.data("x", fixed(2)), S.Zero, S.Zero)
        h = body.argument("x", 0, fixed(2))
        if shared:
            w = m.parameter("shared", fixed(2))
            h = body.contract("bi,oi->bo", h, body.argument("w", 1, fixed(2)))
            y = m.repeat(body, (body.apply("relu", h),), S.One, x, w)
        else:
            h = body.norm(body.linear("0", h, S.Zero, S.Zero))
            y = m.repeat(body, (body.apply("relu", h),), S.One, x)
        with pytest.raises(NotCovered, match="blocks share" if shared else "normalise"):
            derive_graph("G", m.graph(m.linear("output", y, S.Zero, S.Zero)))


def test_a_tensor_that_its_rule_never_moves_hides_what_is_below() -> None:
    """B = 0 under a norm of the weights: neither B nor A ever learns; a trust ratio moves both."""
    never = derive_graph("norm(W)/norm(G)*G", lora())
    assert never.free == ("c_A", "c_B")
    (said,) = [x for x in never.assumptions if "never moves" in x]
    assert said.startswith("B: zero at the start") and "trust(norm(W), y)" in said
    trusted = derive_graph("trust(norm(W), norm(G))*G", lora())
    assert not trusted.free and rates(trusted) == {"A": HALF, "B": 0}
    assert not [x for x in trusted.assumptions if "never moves" in x]


def test_a_bias_or_a_reshape_behind_the_readout_keeps_the_sum_over_classes_zero() -> None:
    """Column means vanish under cross-entropy: the same answer with and without a bias."""
    plainly, biased = (perceptron(3, biases, loss="cross_entropy") for biases in (False, True))
    m = Builder("width")
    h = m.apply("relu", m.linear("input", m.data("x", fixed(3)), S.Zero, S.One))
    y = m.linear("output", h, S.One, S.Zero)
    flat = m.reshape(y, fixed(2), (((0, 1), (0,)), ((2,), (1,))))
    for graph in (plainly, biased, m.graph(flat)):
        means = tensor_sizes(Passes(graph))["output"]
        assert means.mean_delta.is_zero and not means.delta.is_zero
    squared = tensor_sizes(Passes(perceptron(3, True)))["output"]
    assert not squared.mean_delta.is_zero
