"""Tables of the literature, number by number, as answers for graphs; the engine knows none of them.

Where a table speaks of another convention than ours, the test says how one becomes the other.
"""

from dataclasses import replace
from itertools import product

import pytest
from sympy import Expr, Rational, S, Symbol, expand

from derivations.catalogue import catalogue
from scaling.models.architectures import (
    convolutional,
    mixture,
    perceptron,
    recurrent,
    residual,
    transformer,
)
from scaling.models.graph import Graph
from scaling.models.settings import Settings
from scaling.report.graph_tables import regime
from scaling.rules.rule import Rule
from scaling.solve.graph_solution import GraphDerived, derive_graph
from scaling.states.moved_state import two_states

HALF = Rational(1, 2)
RULES = {name: entry.rule for name, entry in catalogue().items()}
KIMI = "sqrt(max(fan_in, fan_out))*orth(G)"
SPHERE = "sqrt(fan_out/fan_in)*orth(G)"
SHAMPOO = "(L + rho_L*I)**(-1/4) @ G @ (R + rho_R*I)**(-1/4)"


# --- arXiv 2603.00541, Tables 3 to 7 (k >= 2 layers a block) and 9 to 13 (k = 1) ------------------
# h + alpha W_k .. W_1 h, alpha = 1/r_L or 1/sqrt(r_L); the output has the multiplier 1/r_n and the
# variance one. Rows: input, hidden, output, hidden bias; powers of (r_n, r_L), lr ~ r^-c.

ZERO = (S.Zero, S.Zero)
TENSORS = ("input", "blocks.0", "output", "blocks.0_bias")
OUTPUT = Settings(a={"output": S.One}, b={"output": S.Zero})

RATES = {
    (2, KIMI): (ZERO, (-HALF, S.Zero), ZERO, None),
    (2, "orth(G)"): ((HALF, S.Zero), ZERO, (HALF, S.Zero), None),
    (2, SHAMPOO): ((HALF, S.Zero), ZERO, (HALF, S.Zero), None),
    (2, RULES["soap"]): ((HALF, S.Zero), ZERO, (HALF, S.Zero), None),
    (2, "G"): ((S.One, S.Zero), (S.Zero, S.One), (S.One, S.Zero), (S.One, S.One)),
    (2, RULES["adamw"]): (ZERO, (-S.One, S.Zero), ZERO, ZERO),
    (2, RULES["lion"]): (ZERO, (-S.One, S.Zero), ZERO, ZERO),
    (2, RULES["sophia"]): (ZERO, (-S.One, S.Zero), ZERO, ZERO),
    (2, SPHERE): (ZERO, ZERO, (S.One, S.Zero), None),
    (1, KIMI): (ZERO, (-HALF, -HALF), ZERO, None),
    (1, "orth(G)"): ((HALF, S.Zero), (S.Zero, -HALF), (HALF, S.Zero), None),
    (1, SHAMPOO): ((HALF, S.Zero), (S.Zero, -HALF), (HALF, S.Zero), None),
    (1, RULES["soap"]): ((HALF, S.Zero), (S.Zero, -HALF), (HALF, S.Zero), None),
    (1, "G"): ((S.One, S.Zero), ZERO, (S.One, S.Zero), (S.One, S.Zero)),
    (1, RULES["adamw"]): (ZERO, (-S.One, -HALF), ZERO, (S.Zero, -HALF)),
    (1, RULES["lion"]): (ZERO, (-S.One, -HALF), ZERO, (S.Zero, -HALF)),
    (1, RULES["sophia"]): (ZERO, (-S.One, -HALF), ZERO, (S.Zero, -HALF)),
    (1, SPHERE): (ZERO, (S.Zero, -HALF), (S.One, S.Zero), None),
}
DECAYS = {
    (2, KIMI): (ZERO, (HALF, S.Zero), ZERO, None),
    (2, "orth(G)"): ((-HALF, S.Zero), ZERO, (-HALF, S.Zero), None),
    (2, SHAMPOO): ((-HALF, S.Zero), ZERO, (-HALF, S.Zero), None),
    (2, "G"): ((-S.One, S.Zero), (S.Zero, -S.One), (-S.One, S.Zero), (-S.One, -S.One)),
    (2, RULES["adam"]): (ZERO, (S.One, S.Zero), ZERO, ZERO),
    (2, SPHERE): (ZERO, ZERO, (-S.One, S.Zero), None),
    (1, KIMI): (ZERO, (HALF, S.Zero), ZERO, None),
    (1, "orth(G)"): ((-HALF, S.Zero), ZERO, (-HALF, S.Zero), None),
    (1, SHAMPOO): ((-HALF, S.Zero), ZERO, (-HALF, S.Zero), None),
    (1, "G"): ((-S.One, S.Zero), (S.Zero, -HALF), (-S.One, S.Zero), (-S.One, -HALF)),
    (1, RULES["adam"]): (ZERO, (S.One, S.Zero), ZERO, ZERO),
    (1, SPHERE): (ZERO, ZERO, (-S.One, S.Zero), None),
}
DAMPINGS = {
    (2, RULES["adamw"], "eps"): (
        (-S.One, S.Zero), (-S.One, -S.One), (-S.One, S.Zero), (-S.One, -S.One),
    ),
    (1, RULES["adamw"], "eps"): (
        (-S.One, S.Zero), (-S.One, -HALF), (-S.One, S.Zero), (-S.One, -HALF),
    ),
    (2, SHAMPOO, "rho_L"): ((-S.One, S.Zero), (S.Zero, -2 * S.One), (-S.One, S.Zero), None),
    (1, SHAMPOO, "rho_R"): ((-S.One, S.Zero), (S.Zero, -S.One), (-S.One, S.Zero), None),
}  # fmt: skip


def both_axes(rule: Rule | str, k: int) -> tuple[GraphDerived, GraphDerived]:
    """The answers over the width and over the depth."""
    power = -S.One if k == 2 else -HALF

    def network(axis: str, multiplier: Expr) -> Graph:
        return residual(axis, k, multiplier, norms=False, biases=True, activation="linear")

    return (
        derive_graph(rule, network("width", S.Zero), OUTPUT),
        derive_graph(rule, network("depth", power)),
    )


def powers(both: tuple[GraphDerived, GraphDerived], symbol: str = "") -> list[tuple[Expr, ...]]:
    """Powers of (r_n, r_L) of the rate, or of a damping or decay, tensor by tensor."""
    answers = [[x.tensors[name] for name in TENSORS] for x in both]
    return [
        tuple(-(x.d[symbol] if symbol else x.c) for x in pair)
        for pair in zip(*answers, strict=True)
    ]


def agree(found: list[tuple[Expr, ...]], table: tuple[tuple[Expr, Expr] | None, ...]) -> None:
    for name, one, expected in zip(TENSORS, found, table, strict=True):
        assert expected is None or one == expected, name


@pytest.mark.parametrize(("k", "rule"), RATES, ids=str)
def test_learning_rates_over_width_and_depth(k: int, rule: Rule | str) -> None:
    agree(powers(both_axes(rule, k)), RATES[k, rule])


@pytest.mark.parametrize(("k", "rule", "symbol"), DAMPINGS, ids=str)
def test_dampings_over_width_and_depth(k: int, rule: Rule | str, symbol: str) -> None:
    agree(powers(both_axes(rule, k), symbol), DAMPINGS[k, rule, symbol])


@pytest.mark.parametrize(("k", "rule"), DECAYS, ids=str)
def test_decays_over_width_and_depth(k: int, rule: Rule | str) -> None:
    """The paper compares |decay W| with the direction of descent, we ask lr x decay = Theta(1).

    Both are one with a multiplier 1/L. With 1/sqrt(L) the paper's decay of what stands in blocks is
    smaller by L^(1/2), and takes a vanishing part of the weights away.
    """
    text = f"{rule} + decay*W" if isinstance(rule, str) else f"{rule.expression} + decay*W"
    found = powers(both_axes(text, k), "decay")
    if k == 1:
        shifts = [HALF if "blocks" in name else S.Zero for name in TENSORS]
        found = [(n, x - shift) for (n, x), shift in zip(found, shifts, strict=True)]
    agree(found, DECAYS[k, rule])


# --- arXiv 2512.05620, Table 1: the factor of Shampoo's rate over the depth -----------------------


def test_shampoo_over_the_depth_with_any_powers() -> None:
    """L^(1 - 2 (e_L + e_R)) under a multiplier 1/L; none for Muon, SOAP, Adam."""
    rule = "(L + rho_L*I)**(-e_L) @ G @ (R + rho_R*I)**(-e_R)"
    graph = residual("depth", 2, -S.One, norms=False)
    e_l, e_r = Symbol("e_L"), Symbol("e_R")
    c = derive_graph(rule, graph).tensors["blocks.0"].c
    assert expand(c - (2 * (e_l + e_r) - 1)) == 0
    for name in ("muon", "soap", "adam"):
        assert derive_graph(RULES[name], graph).tensors["blocks.0"].c == 0


# --- arXiv 2505.01618, Table 1: CompleteP, multiplier L^-alpha ------------------------------------


MATRICES = [f"blocks.{name}" for name in ("query", "key", "value", "projection", "up", "down")]
GAINS = [f"blocks.norm_{k}.{name}" for k in (1, 2) for name in ("gain", "bias")]
OUTSIDE = ["embedding", "positions", "norm.gain", "norm.bias", "readout"]


@pytest.mark.parametrize("alpha", [HALF, Rational(3, 4), S.One])
def test_complete_p(alpha: Expr) -> None:
    """Rates of hidden matrices, gains and biases L^(alpha - 1), eps L^-alpha in blocks."""
    answer = derive_graph(RULES["adamw"], transformer("depth", multiplier=-alpha))
    for name in (*MATRICES, *GAINS):
        x = answer.tensors[name]
        assert (x.c, x.d["eps"], x.d["decay"]) == (1 - alpha, alpha, alpha - 1), name
    for name in OUTSIDE:
        x = answer.tensors[name]
        assert (x.c, x.d["eps"], x.d["decay"]) == (0, 0, 0), name
    assert {c.needed for c in answer.changes} == (set() if alpha == 1 else {-S.One})


def test_complete_p_in_the_width() -> None:
    """Hidden lr 1/n, variance 1/n, decay n, eps 1/n; embedding eps 1/n; the readout's forward 1/n.

    With its variance of order one behind a multiplier 1/n the readout has rate and decay 1.
    """
    given = Settings(a={"readout": S.One}, b={"readout": S.Zero})
    answer = derive_graph(RULES["adamw"], transformer("width", attention=-S.One), given)
    for name in MATRICES:
        x = answer.tensors[name]
        assert (x.b, x.c, x.d["eps"], x.d["decay"]) == (HALF, 1, 1, -1), name
    for name in (*GAINS, *OUTSIDE):
        x = answer.tensors[name]
        assert (x.c, x.d["eps"], x.d["decay"]) == (0, 1, 0), name


# --- arXiv 2407.17465: u-muP, as its library has it ----------------------------------------------
# All weights start at one; multipliers 1, fan_in^-1/2, fan_in^-1; attention over head_size. Adam's
# rate: fan_in^-1/2 for "weight" (an embedding's fan_in is its width), 1 for "output", "norm" and
# "bias"; depth^-1/2 times that in residual branches, which are added times depth^-1/2.


def test_unit_scaled_mup_in_the_width() -> None:
    """All rates but that of embeddings: theirs is M^(-1/2), and the largest stable one M^0."""
    a = {"readout": S.One, **dict.fromkeys(MATRICES, HALF)}
    given = Settings(a=a, b=dict.fromkeys(("embedding", "positions", *a), S.Zero))
    graph = transformer("width", attention=-S.One)
    answer = derive_graph(RULES["adam"], graph, given)
    published = {**dict.fromkeys(MATRICES, HALF), **dict.fromkeys((*GAINS, "readout"), S.Zero)}
    assert {name: answer.tensors[name].c for name in published} == published
    assert all(answer.tensors[name].binds.startswith("its own product") for name in MATRICES)
    assert not answer.changes
    theirs = derive_graph(RULES["adam"], graph, replace(given, c={"embedding": HALF}))
    assert answer.tensors["embedding"].c == 0
    assert regime(theirs.tensors["embedding"]) == "sub-maximal"
    assert regime(answer.tensors["embedding"]) == "maximal"


def test_unit_scaled_mup_in_the_depth() -> None:
    answer = derive_graph(RULES["adam"], transformer("depth", multiplier=-HALF))
    assert {answer.tensors[name].c for name in (*MATRICES, *GAINS)} == {HALF}
    assert {answer.tensors[name].c for name in OUTSIDE} == {0}


# --- arXiv 2407.05872: four parametrizations ------------------------------------------------------
# (a, b), then c and d_eps of Adam under full alignment (1, 1/2, 1): the update is of size one entry
# by entry, so c = alpha - a; eps is as large as the gradient, M^-(a + a_L + b_L).

EVERETT = {
    "standard": [(0, 0), (0, HALF), (0, HALF)],
    "ntk": [(0, 0), (HALF, 0), (HALF, 0)],
    "mup": [(-HALF, HALF), (0, HALF), (HALF, HALF)],
    "mean_field": [(0, 0), (HALF, 0), (1, 0)],
}
ROLES = {
    "perceptron": ["input", "hidden", "output"],
    "transformer": ["embedding", "blocks.up", "readout"],
}


@pytest.mark.parametrize(("name", "model"), [*product(EVERETT, ROLES)])
def test_four_parametrizations_under_adam(name: str, model: str) -> None:
    """c and eps of every role; where W_L dh adds up, below the readout, it binds at M^(1/2) less.

    Full alignment has omega = 1/2 at the readout. After one step dh lies along W_L^T delta and
    omega is 1, so that standard and ntk, whose readout is larger by M^(1/2), bear less below it
    (measured in test_graph_measured.py); their own products have the published rates.
    """
    table = [(S(a), S(b)) for a, b in EVERETT[name]]
    tensors, graph = ROLES[model], perceptron()
    a = dict(zip(tensors, (x for x, _ in table), strict=True))
    b = dict(zip(tensors, (x for _, x in table), strict=True))
    if model == "transformer":
        graph = transformer("width", attention=-S.One)
        a |= {"positions": a["embedding"], **dict.fromkeys(MATRICES, a["blocks.up"])}
        b |= {"positions": b["embedding"], **dict.fromkeys(MATRICES, b["blocks.up"])}
    answer = derive_graph(RULES["adam"], graph, Settings(a=a, b=b))
    readout = a[tensors[2]] + b[tensors[2]]
    for tensor, alpha in zip(tensors, (0, 1, 1), strict=True):
        x = answer.tensors[tensor]
        assert x.start.own == alpha - a[tensor], tensor
        back = readout if tensor != tensors[2] else S.Zero
        assert x.d["eps"] == a[tensor] + back, tensor
        bound = 1 - readout if tensor != tensors[2] else S.Zero
        assert x.c - x.start.own == bound, tensor
        assert x.binds.startswith("its own product") == (bound == 0)


# --- arXiv 2405.15712: attention ------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [HALF, S.One])
def test_logits_at_the_start(alpha: Expr) -> None:
    """Their variance is N^(1 - 2 alpha) for a head size N."""
    start, _ = two_states(transformer("width", attention=-alpha))
    (logits,) = [n.inputs[0] for n in start.graph.walk() if n.op == "softmax"]
    assert 2 * start.values[logits].size == 1 - 2 * alpha


def test_more_heads_of_a_fixed_size_need_no_other_scale() -> None:
    """Heads are independent then: hidden matrices have c = 1, and nothing else binds."""
    answer = derive_graph(RULES["adam"], transformer("heads"))
    assert {answer.tensors[name].c for name in MATRICES} == {1}
    assert not answer.changes


# --- queries in groups, packed matrices, experts --------------------------------------------------


@pytest.mark.parametrize("rule", ["adam", "sgd"])
def test_keys_and_values_that_all_heads_share_are_readouts(rule: str) -> None:
    """Their fan_out is fixed while fan_in grows; a role by shape, hidden, has SGD's rate wrong."""
    answer = derive_graph(RULES[rule], transformer("heads", grouped=True))
    for name in ("blocks.key", "blocks.value"):
        x = answer.tensors[name]
        assert (x.fan_in, x.fan_out, x.b, x.c, x.moved.gradient) == (1, 0, 1, 1, 0), name
    query = answer.tensors["blocks.query"]
    assert (query.fan_out, query.b, query.c) == (1, HALF, 1 if rule == "adam" else 0)


@pytest.mark.parametrize("rule", ["adam", "sgd", "kfac", "shampoo", "soap", "muon"])
@pytest.mark.parametrize("attention", [-S.One, -HALF])
def test_packed_queries_keys_and_values_are_one_matrix_with_the_answers_of_three(
    rule: str, attention: Expr
) -> None:
    """One G, A, B of the whole: its size is that of the values, and queries follow later."""
    packed = derive_graph(RULES[rule], transformer("width", attention, packed=True)).tensors
    apart = derive_graph(RULES[rule], transformer("width", attention)).tensors
    whole = packed["blocks.packed"]
    assert (whole.fan_in, whole.fan_out) == (1, 1)
    for name in ("blocks.query", "blocks.key", "blocks.value"):
        assert (whole.b, whole.c, whole.d) == (apart[name].b, apart[name].c, apart[name].d), name
    assert whole.start.gradient == apart["blocks.value"].start.gradient
    for name in packed.keys() & apart.keys():
        assert (packed[name].c, packed[name].d) == (apart[name].c, apart[name].d), name


def test_experts() -> None:
    """arXiv 2601.20205: up n^-1/2, lr 1/n; down n^-1/2, lr 1/n; readout 1/n; router lr 1/n.

    The router may start at n^-gamma with gamma >= 1/2; ours is 1, as arXiv 2508.09752 has it.
    """
    x = derive_graph(RULES["adam"], mixture("width")).tensors
    starts = {"up": HALF, "down": HALF, "output": S.One}
    assert {name: x[name].b for name in starts} == starts
    assert x["router"].b == 1
    assert {name: x[name].c for name in (*starts, "router")} == dict.fromkeys(
        (*starts, "router"), 1
    )
    given = Settings(b={"router": HALF})
    assert derive_graph(RULES["adam"], mixture("width"), given).tensors["router"].c == 1


# --- arXiv 2312.12226, Prop. 4.1: K-FAC and Shampoo on other models than the chain ----------------

E_A, E_B, E = Symbol("e_A"), Symbol("e_B"), Symbol("e")
PROPOSITION = {
    "kfac": {
        "input": (E_B - 1, {"rho_A": 0, "rho_B": 1}),
        "hidden": (E_B - E_A, {"rho_A": -1, "rho_B": 1}),
        "output": (1 - E_A, {"rho_A": -1, "rho_B": 0}),
    },
    "shampoo": {
        "input": (E - 1, {"rho_L": 1, "rho_R": 1}),
        "hidden": (S.Zero, {"rho_L": 0, "rho_R": 0}),
        "output": (1 - E, {"rho_L": -1, "rho_R": -1}),
    },
    "soap": {
        "input": (-HALF, {"eps": HALF}),
        "hidden": (S.Zero, {"eps": 0}),
        "output": (HALF, {"eps": -HALF}),
    },
    "muon": {"input": (-HALF, {}), "hidden": (S.Zero, {}), "output": (HALF, {})},
}
MODELS: dict[str, tuple[Graph, dict[str, str]]] = {
    "transformer": (
        transformer("width", attention=-S.One),
        {"embedding": "input", **dict.fromkeys(MATRICES, "hidden"), "readout": "output"},
    ),
    "gated": (
        transformer("width", attention=-S.One, gated=True),
        {"blocks.gate": "hidden", "blocks.up": "hidden", "blocks.down": "hidden"},
    ),
    "convolutional": (
        convolutional(3), {"conv_1": "input", "conv_2": "hidden", "output": "output"},
    ),
    "recurrent": (
        recurrent(3), {"input": "input", "recurrence": "hidden", "output": "output"},
    ),
    "mixture": (
        mixture("width"), {"up": "hidden", "down": "hidden", "router": "output"},
    ),
    "residual": (
        residual("width", 2), {"input": "input", "blocks.0": "hidden", "output": "output"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "model"), [*product(PROPOSITION, MODELS)])
def test_second_order_rules_read_g_a_and_b_at_each_use(rule: str, model: str) -> None:
    """A weight that is shared over positions, steps or experts has the table of its role."""
    graph, roles = MODELS[model]
    answer = derive_graph(RULES[rule], graph)
    for tensor, role in roles.items():
        c, d = PROPOSITION[rule][role]
        x = answer.tensors[tensor]
        assert expand(x.c - c) == 0, (tensor, x.c)
        assert dict(x.d) == d, tensor
