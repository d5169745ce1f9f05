"""Functions of singular values, projections, inner products: held against the simulator.

Each row is answered, measured by a network that shares no code, and contradicted when half a power
is added to what is predicted.
"""

from dataclasses import replace

import pytest
import torch
from soundness import Question, disagreements, practice, theory
from sympy import S
from torch import Tensor

from empirical.measure.training import damped_sums, size_of
from empirical.numbers.interpreter import evaluate
from empirical.numbers.layer_matrices import LayerTensors
from empirical.numbers.layer_values import LayerValue
from scaling.models.batch import Batch, BatchGrowth
from scaling.models.chain import Setting, mlp
from scaling.rules.language import G, spectral_map, symbol
from scaling.rules.parser import parse
from scaling.rules.rule import Rule
from scaling.rules.tree import Node
from scaling.sizes.errors import NotCovered, RuleError
from scaling.solve.alternatives import regime_lines
from scaling.solve.derive import derive

SOME = (256, 1024)
M, ADAM = "ema(G, beta)", "ema(G, beta1)/(sqrt(ema(G*G, beta2)) + eps)"
MASKED = "agree(G, W)*W"


def row(rule: str, c: str, *fixed: str, dense: bool = False, **options: object):
    """``dense``: a decomposition of the whole matrix, which narrow networks can afford."""
    question = Question(rule, fixed, **options)  # type: ignore[arg-type]
    return question, tuple(c.split()), ((64, 256), 8) if dense else (SOME, 4)


ANSWERED = {
    # singular values of G in the hidden layer are of order one: the bound and its size are alike
    "spectral clipping": row("spectral_map(G, min(sigma, tau))", "-1 0 1/2", settled=("tau",)),
    "smoothly": row(f"spectral_map({M}, sigma/sqrt(sigma**2 + eps))", "-1/2 0 1/2", step=2),
    "with a negligible damping": row(
        "spectral_map(G, sigma/sqrt(sigma**2 + eps))", "-1/2 0 1/2", "d_eps=3", settled=("eps",),
    ),
    "with a large one": row(
        "spectral_map(G, sigma/sqrt(sigma**2 + eps))", "-2 -1 0", "d_eps=-2", settled=("eps",),
    ),
    "Freon's power": row("spectral_map(G, sigma**(1/4))", "-5/8 0 5/8"),
    "a power of what curvature has acted on": row(
        "spectral_map(G @ (A + rho*I)**(-1), sigma**(1/2))", "-3/4 -1/2 1/4",
    ),
    "a clip of signs": row(
        f"spectral_map(sign({M}), min(sigma, 1))", "-1/2 0 1/2", activation="tanh", dense=True,
    ),
    "one that follows Adam's update": row(
        f"spectral_map({ADAM}, min(sigma, rho))", "0 1 1", step=2, dense=True,
    ),
    "PolarGrad": row(f"inner(orth({M}), {M})*orth({M})", "-1 0 1", step=2),
    "GaLore without moments": row("project(G, 2)", "-1 0 1"),
    "Dion of low rank": row(f"orth(project({M}, 2))", "-1/2 0 1/2", step=2),
    "an error that is fed back": row("G - project(G, 2)", "-1 0 1"),
    "the polar factor of one": row(f"orth({M} - project({M}, 2))", "-1/2 0 1/2", step=2),
    "of a rank that grows": row("orth(project(G, fan_in/4))", "-1/2 0 1/2"),
    "signs on a few directions": row(
        "project(sign(G), 2)", "0 1 1", activation="tanh", dense=True,
    ),
    "the weights with the sign of G": row(MASKED, "0 1/2 0"),
    "cautious decay": row(
        f"sign(G) + decay*{MASKED}", "1 3/2 1", "d_decay=-1", settled=("decay",),
        dense=True,
    ),
    "cautious decay that is small": row(
        f"{ADAM} + decay*{MASKED}", "0 1 1", "d_decay=1", settled=("decay",), activation="tanh",
        dense=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERED)
def test_what_authors_write_is_answered_and_measured(name: str) -> None:
    question, c, (widths, seeds) = ANSWERED[name]
    answer = theory(question)
    assert not answer.refusal
    assert answer.exponents is not None
    assert tuple(map(str, answer.exponents.c.values())) == c
    measured = practice(question, answer.exponents, widths, seeds)
    assert disagreements(answer, measured) == {}
    wrong = replace(answer, own={k: x + S.Half for k, x in answer.own.items()})
    assert set(disagreements(wrong, measured)) == set(answer.own)


@pytest.mark.parametrize("masked", ["rho*W*agree(G, W)", "agree(G, W)*rho*W", "W*agree(W, G)*rho"])
def test_a_mask_of_the_weights_is_read_in_any_order(masked: str) -> None:
    plain = derive(f"sign(G) + rho*{MASKED}")
    assert derive(f"sign(G) + {masked}").exponents == plain.exponents
    assert "the decay 'decay'" in theory(Question(f"G + {masked}".replace("rho", "decay"))).refusal
    assert "agree" in theory(Question("sign(G) + rho*W*G*agree(G, W)")).refusal


REFUSED = {
    "spectral_map(G, sigma - tau)": "the function sigma - tau of singular values, which may be neg",
    "spectral_map(sign(G), sigma**2)": "a function of the singular values of a matrix of full or",
    "spectral_map(abs(G), sigma)": "spectral_map of a matrix that is not odd in delta and in h",
    "spectral_map(W, min(sigma, 1))": "spectral_map of the Gaussian matrix W",
    "G/norm(spectral_map(sign(G), min(sigma, 1)))": "entries of a full-rank polar factor",
    "project(orth(G), 2)": "the largest of singular values that are alike",
    "project(G, 1/fan_in)": "a rank that falls with the width",
    "project(W, 2)": "project of the Gaussian matrix W",
    "G - 1/2*project(G, 2)": "which may cancel",
    "sign(G) - project(sign(G), 2)": "which may cancel",
    "G - project(G, 16)": "which may be nothing",
    f"sign(G + {MASKED})": "a function of a sum of odd and even terms",
    f"sign(G) + decay*{MASKED}": "the decay 'decay' that is no factor of W alone",
    "inner(orth(G @ A), G @ B)*G": "",
}


@pytest.mark.parametrize("rule", [rule for rule, why in REFUSED.items() if why])
def test_what_is_not_known_of_them_is_refused_by_name(rule: str) -> None:
    assert REFUSED[rule] in theory(Question(rule)).refusal


def test_a_refusal_offers_what_is_accepted() -> None:
    for written in ("spectral_map(sign(G), sigma**2)", "project(orth(G), 2)"):
        with pytest.raises(NotCovered) as refusal:
            derive(written)
        offered = str(refusal.value).partition("write for example ")[2].splitlines()[0]
        assert derive(offered.partition(",")[0] if offered.count("(") == 0 else offered)


def test_classes_that_repeat_decide_which_directions_are_the_largest() -> None:
    twins = (1, 6, 0, 0, 4, 3, 5, 9)
    assert (
        "number decides which are kept" in theory(Question("project(G, 4)", labels=twins)).refusal
    )
    answer = theory(Question("spectral_map(G, sigma**(1/2))", labels=twins))
    assert not answer.refusal


def test_a_batch_that_grows_has_singular_values_of_many_orders() -> None:
    grown = Setting(mlp(3), batch=Batch(growth=BatchGrowth.PROPORTIONAL))
    for rule in ("spectral_map(G, sigma**(1/2))", "project(G, 4)"):
        with pytest.raises(NotCovered, match="under a batch that grows with the width"):
            derive(rule, setting=grown)
        assert derive(rule)


# --- sigma ----------------------------------------------------------------------------------------


def test_sigma_is_a_singular_value_and_nothing_else() -> None:
    rule = parse("spectral_map(G, min(sigma, tau))")
    assert rule.constants == ("tau",)
    assert rule == Rule(parse(str(rule)).expression)
    with pytest.raises(RuleError, match="'sigma' outside of a function of singular values"):
        parse("sigma*G")
    with pytest.raises(RuleError, match="a number made of sigma"):
        parse("spectral_map(G, G)")
    with pytest.raises(RuleError, match="a number made of sigma"):
        parse("spectral_map(G, norm(spectral_map(G, sigma)))")
    built = spectral_map(G, symbol("sigma") ** (1 / 2))
    assert built == parse("spectral_map(G, sigma**(1/2))").expression


def test_the_branch_of_a_function_of_singular_values_is_told() -> None:
    lines = regime_lines(derive("spectral_map(G, min(sigma, 1))"))
    assert "regime in output: sigma ~ M^(1/2), 1 ~ 1: the smaller is 1" in lines


# --- numbers, against torch's own decomposition ---------------------------------------------------


def value(text: str, x: Tensor, **values: float) -> Tensor:
    layer = LayerTensors(torch.eye(x.shape[1]).double(), x * x.shape[1], W=torch.ones_like(x))
    return evaluate(parse(text), layer, values).dense()


X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
U, SINGULAR, V = torch.linalg.svd(X, full_matrices=False)


@pytest.mark.parametrize(("text", "wanted"), [
    ("spectral_map(G, min(sigma, 2))", SINGULAR.clamp(max=2)),
    ("spectral_map(G, sigma/sqrt(sigma**2 + 3))", SINGULAR / (SINGULAR**2 + 3).sqrt()),
    ("spectral_map(G, sigma**(1/4))", SINGULAR**0.25),
    ("spectral_map(G, 1)", torch.ones(4).double()),
    ("spectral_map(G, sigma/specnorm(G) + 2*norm(G))",
     SINGULAR / SINGULAR[0] + 2 * SINGULAR.norm()),
    ("spectral_map(G, tau*max(sigma, 1))", 7 * SINGULAR.clamp(min=1)),
    ("project(G, 2)", SINGULAR * torch.tensor([1.0, 1, 0, 0])),
    ("project(G, fan_in/4)", SINGULAR * torch.tensor([1.0, 0, 0, 0])),
    ("project(G, 9)", SINGULAR),
])  # fmt: skip
def test_numbers_are_those_of_a_singular_value_decomposition(text: str, wanted: Tensor) -> None:
    assert torch.allclose(value(text, X, tau=7.0), (U * wanted) @ V)


def test_a_zero_matrix_has_no_singular_values_to_map() -> None:
    zero = torch.zeros(6, 4).double()
    for text in ("spectral_map(G, 1)", "project(G, 2)"):
        assert torch.equal(value(text, zero), zero)


def test_a_damping_beside_sigma_is_watched_and_calibrated() -> None:
    """The sum is recorded as it is at the largest singular value."""
    text = "spectral_map(G, sigma/(sigma + eps)) + 0*G"
    seen: dict[str, float] = {}

    def record(node: Node, found: LayerValue) -> None:
        seen[str(node)] = size_of(node, found)

    layer = LayerTensors(torch.eye(4).double(), 4 * X, W=torch.ones_like(X))
    evaluate(parse(text), layer, {"eps": 2.0}, record=record)
    assert seen["sigma + eps"] == pytest.approx(float(SINGULAR[0]) + 2)
    assert [str(x) for x in damped_sums(parse(text))] == ["sigma + eps"]
