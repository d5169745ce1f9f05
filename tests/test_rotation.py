"""Eigenbases: SOAP and EKFAC against explicit matrices, and what may not be rotated."""

import re

import numpy as np
import pytest
import torch
from dense_layers import LAYERS, Array, Dense, assert_close, layer, polar, tensors

from derivations.catalogue import find
from empirical.limits.infinite_width import limits
from empirical.measure.calibration import calibrate
from empirical.measure.trial import Trial
from empirical.numbers.interpreter import evaluate
from empirical.numbers.layer_matrices import LayerTensors
from empirical.numbers.rotated_values import Corner
from empirical.numbers.state import State
from empirical.wide.method import Path, path_of
from scaling.models.chain import mlp
from scaling.models.settings import read_settings
from scaling.rules.parser import parse
from scaling.rules.rule import Rule
from scaling.sizes.errors import InvalidInput, NotCovered, RuleError
from scaling.solve.derive import Derived, derive

SOAP, ONE_SIDED, EKFAC = (find(name).rule for name in ("soap", "soap_one_sided", "ekfac"))
VALUES = {"beta1": 0.9, "beta2": 0.8, "shampoo_beta": 0.7, "eps": 1e-3, "e": 1.0}
OWN = [name for name in LAYERS if not LAYERS[name][3]]  # B of the loss's own cotangents


def eigenvectors(x: Array) -> Array:
    return np.linalg.eigh(x)[1][:, ::-1]


@pytest.mark.parametrize("rule", [
    SOAP, ONE_SIDED, EKFAC, parse("eig(B) @ (eig(B).T @ G / (eps + abs(eig(B).T @ G)))"),
    parse("eig(L) @ sign(eig(L).T @ G)"), parse("G * norm(eig(B).T @ G @ eig(A))"),
])  # fmt: skip
def test_a_gradient_that_is_exactly_zero_stays_so_in_every_basis(rule: Rule) -> None:
    """Under a readout that starts at zero the layers below rest, and the readout learns as ever."""
    zero, usual = (
        derive(rule, read_settings([given], rule, mlp())) for given in ("b_output=oo", "b_output=1")
    )
    assert {"c_input", "c_hidden"} <= set(zero.free)
    assert zero.updates["hidden"].entry.is_zero
    assert not usual.updates["hidden"].entry.is_zero
    assert zero.exponents.c["output"] == usual.exponents.c["output"]
    assert zero.exponents.d["output"] == usual.exponents.d["output"]
    assert usual.free == ()


# --- SOAP and EKFAC, written out ----------------------------------------------------------------


def soap(history: list[Dense], two_sided: bool = True) -> Array:
    """SOAP (arXiv 2409.11321) with a basis of every step and without bias correction."""
    m = v = left = right = np.zeros(())
    for x in history:
        m = 0.9 * m + 0.1 * x.G
        left, right = 0.7 * left + 0.3 * x.G @ x.G.T, 0.7 * right + 0.3 * x.G.T @ x.G
        q_l = eigenvectors(left)
        q_r = eigenvectors(right) if two_sided else np.eye(len(right))
        v = 0.8 * v + 0.2 * (q_l.T @ x.G @ q_r) ** 2
        update = q_l @ (q_l.T @ m @ q_r / (np.sqrt(v) + 1e-3)) @ q_r.T
    return update


def ekfac(x: Dense, e: float = 1.0) -> Array:
    """EKFAC (arXiv 1806.03884), sample by sample."""
    q_b, q_a = eigenvectors(x.B), eigenvectors(x.A)
    s = np.mean([(q_b.T @ np.outer(d, h) @ q_a) ** 2 for d, h in zip(x.D.T, x.H.T, strict=True)], 0)
    return q_b @ (q_b.T @ x.G @ q_a / (s + 1e-3) ** e) @ q_a.T


@pytest.mark.parametrize("name", ["hidden", "one sample", "fewer outputs than samples", "bias"])
@pytest.mark.parametrize("dense", [False, True], ids=["low rank", "dense"])
@pytest.mark.parametrize("rule", [SOAP, ONE_SIDED], ids=lambda rule: rule.name)
def test_soap_follows_the_loop_written_by_hand(rule: Rule, name: str, dense: bool) -> None:
    state, history = State(), list[Dense]()
    for seed in range(3):
        history.append(layer(name, seed))
        update = evaluate(rule, tensors(history[-1]), VALUES, state, dense=dense).dense()
        assert_close(update, soap(history, rule is SOAP), rtol=1e-8)
        state = State.unpack(state.pack())
    with pytest.raises(AssertionError, match="Not equal"):
        assert_close(update, soap(history[1:], rule is SOAP), rtol=1e-2)


def test_the_corner_of_an_average_grows_with_the_rank_and_is_saved() -> None:
    state, shapes = State(), []
    for seed in range(3):
        evaluate(SOAP, tensors(layer("hidden", seed)), VALUES, state)
        (corner,) = (x for x in state.averages.values() if isinstance(x, Corner))
        shapes.append(tuple(corner.core.shape))
    assert shapes == [(5, 5), (10, 10), (15, 15)]


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("e", [0.5, 1.0])
@pytest.mark.parametrize("dense", [False, True], ids=["low rank", "dense"])
def test_ekfac_is_the_formula_of_its_paper(name: str, e: float, dense: bool) -> None:
    x = layer(name)
    found = evaluate(EKFAC, tensors(x), {**VALUES, "e": e}, dense=dense).dense()
    assert_close(found, ekfac(x, e), rtol=1e-8)
    with pytest.raises(AssertionError, match="Not equal"):
        assert_close(found, ekfac(x, e + 0.01), rtol=1e-8)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dense", [False, True], ids=["low rank", "dense"])
def test_soap_without_eps_is_the_polar_factor_at_the_first_step(name: str, dense: bool) -> None:
    """Off the diagonal of the corner are rounding errors, of which no sign may be taken."""
    x = layer(name)
    for text in (
        str(SOAP).replace(" + eps", ""),
        "eig(L) @ sign(eig(L).T @ G @ eig(R)) @ eig(R).T",
    ):
        found = evaluate(parse(text), tensors(x), VALUES, dense=dense).dense()
        factor = 0.1 / np.sqrt(0.2) if "ema" in text else 1.0
        assert_close(found, factor * polar(x.G), rtol=1e-7)


def test_badly_conditioned_eigenvectors_give_no_signs_of_rounding_errors() -> None:
    draw = np.random.default_rng(0).standard_normal
    u, v = (np.linalg.qr(draw((40, 5)))[0] for _ in "uv")
    g = (u * np.array([1, 1e-2, 1e-4, 1e-5, 3e-6])) @ v.T
    x = LayerTensors(*(torch.from_numpy(y) for y in (g.T, 40 * np.eye(40), np.zeros((40, 40)))))
    found = evaluate(parse("eig(L) @ sign(eig(L).T @ G @ eig(R)) @ eig(R).T"), x, {}).dense()
    assert_close(found, u @ v.T, rtol=1e-2)  # an eigenvalue of 1e-11 is known to 1e-5


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dense", [False, True], ids=["low rank", "dense"])
def test_rotating_there_and_back_changes_nothing(name: str, dense: bool) -> None:
    x = layer(name)
    right = "eig(A + rho*trace(A)*I)"
    for text in (
        "eig(L) @ (eig(L).T @ G @ eig(R)) @ eig(R).T",
        "(eig(R) @ (eig(R).T @ G.T @ eig(2*L)) @ eig(2*L).T).T",
        f"-eig(L + L) @ (eig(L + L).T @ (-G) @ {right}) @ {right}.T",
        "G * (norm(eig(L).T @ G @ eig(R)) / norm(G))",
        "eig(L)/2 @ (eig(L).T @ ((4*G) / 2))",
        "G * (specnorm(G @ eig(A)) / specnorm(G)) * (rms(eig(G @ G.T).T @ G) / rms(G))",
    ):
        found = evaluate(parse(text), tensors(x), {"rho": 0.1}, dense=dense).dense()
        assert_close(found, x.G)


def test_numbers_outside_the_corner_count_in_norms() -> None:
    x, eps = layer("hidden"), 0.3
    rotated = eigenvectors(x.B)[:, :5].T @ x.G @ eigenvectors(x.A)[:, :5]
    full = np.full(x.G.shape, eps)
    full[:5, :5] = rotated**2 + eps
    for norm, expected in (
        ("norm", np.linalg.norm(full)),
        ("specnorm", np.linalg.norm(full, 2)),
        ("rms", np.sqrt((full**2).mean())),
    ):
        text = f"G * {norm}((eig(B).T @ G @ eig(A))**2 + eps)"
        found = evaluate(parse(text), tensors(x), {"eps": eps}).dense()
        assert_close(found, x.G * expected)


def test_nothing_of_the_size_of_the_weights_is_formed() -> None:
    fan, draw = 200_000, torch.Generator().manual_seed(0)
    h, d = (torch.randn(fan, 3, generator=draw).double() for _ in "HD")
    x = LayerTensors(h, d, torch.zeros(()).double().expand(fan, fan))
    for rule in (SOAP, EKFAC):
        update = evaluate(rule, x, VALUES)
        assert update.factors is not None
        assert float(update.frobenius_norm()) > 0


# --- per-sample squares -------------------------------------------------------------------------

SQUARES = {
    "G": lambda x, g: g,
    "-G/2": lambda x, g: g / 2,
    "L @ (norm(G)*G)": lambda x, g: np.linalg.norm(x.G) * x.L @ g,
    "(2*(G @ A).T).T": lambda x, g: 2 * g @ x.A,
    "B @ G @ diag(A)": lambda x, g: x.B @ g @ np.diag(np.diag(x.A)),
}


@pytest.mark.parametrize("text", SQUARES)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dense", [False, True], ids=["low rank", "dense"])
def test_per_sample_squares_are_means_over_samples(text: str, name: str, dense: bool) -> None:
    x = layer(name)
    one_by_one = [np.outer(d, h) for d, h in zip(x.D.T, x.H.T, strict=True)]
    expected = x.G * np.mean([SQUARES[text](x, g) ** 2 for g in one_by_one], axis=0)
    rule = parse(f"G * sample_square({text})")
    assert_close(evaluate(rule, tensors(x), {}, dense=dense).dense(), expected)


def test_the_diagonal_fisher_leaves_dead_weights_alone() -> None:
    x = layer("hidden, degenerate")
    found = evaluate(parse("G / sample_square(G)"), tensors(x), {}).dense().numpy()
    assert not found[x.G == 0].any()
    assert (x.G == 0).any()
    assert found.any()


# --- theory -------------------------------------------------------------------------------------


def solve(rule: str, *settings: str) -> Derived:
    parsed = parse(rule)
    return derive(parsed, read_settings(settings, parsed, mlp(3)))


def test_soap_has_the_exponents_of_shampoo_and_ekfac_those_of_kfac() -> None:
    at_half = solve(str(find("shampoo").rule), "e=1/2").exponents.c
    for eps in (" + eps", ""):
        assert solve(str(SOAP).replace(" + eps", eps)).exponents.c == at_half
        kfac = solve(str(find("kfac").rule).replace("e_A", "e").replace("e_B", "e"))
        assert solve(str(EKFAC).replace(" + eps", eps)).exponents.c == kfac.exponents.c
    assert at_half != solve(str(find("shampoo").rule), "e=1/4").exponents.c
    assert at_half != solve(str(find("adam").rule)).exponents.c


def test_eps_follows_what_it_is_added_to() -> None:
    kfac, gain = solve(str(find("kfac").rule)).exponents.d, {"input": 1, "hidden": 0, "output": -1}
    for name, d in solve(str(EKFAC)).exponents.d.items():
        assert d["eps"] == sum(kfac[name].values()) == gain[name]
        assert solve(str(SOAP)).exponents.d[name]["eps"] * 2 == gain[name]


MISMATCH = {
    "eig(L) @ G": r"\(fan_out x basis\(L\)\)(.|\n)*turned the other way(.|\n)*eig\(X\)\.T @ G",
    "eig(R).T @ G": r"its side",
    "eig(B) @ (eig(L).T @ G)": r"the eigenbasis that the matrix is in",
    "eig(ema(L, 1/2)) @ (eig(L).T @ G)": r"basis\(ema\(L, 1/2\)\)",
    "eig(L).T @ G + G": r"rotated into the same eigenbases(.|\n)*rotate back before anything",
    "(eig(L).T @ G) * (eig(B).T @ G)": r"the same eigenbases",
    "(eig(L).T @ G) / col_mean(G)": r"the same eigenbases",
    "(eig(L).T @ G) @ A": r"products before matrices are rotated",
    "(eig(L).T @ G) @ G.T @ G": r"products before",
    "eig(L)**2 @ G": r"a power of the eigenbasis eig\(L\)(.|\n)*L\*\*\(-1/4\)",
    "eig(L) @ eig(L)": r"beside a gradient-like matrix",
    "eig(L).T @ L": r"beside a gradient-like matrix",
    "eig(L) + eig(L)": r"an eigenbasis was applied to",
    "eig(L) * eig(L)": r"in matrix products only",
    "1 / eig(L)": r"in matrix products only",
    "eig(G)": r"a square matrix such as A",
    "eig(I)": r"a square matrix such as A",
    "norm(eig(L))": r"needed: a matrix",
    "ema(eig(L), 1/2)": r"average what is rotated",
    "orth(eig(L).T @ G)": r"a gradient-like matrix",
    "row_mean(eig(L).T @ G)": r"a gradient-like matrix",
    "eig(L).T @ G": r"the update(.|\n)*rotate back: eig\(L\) @ X @ eig\(R\)\.T",
    "G @ eig(A**(-1)) @ eig(A**(-1)).T": r"the eigenvectors of A\*\*\(-1\)(.|\n)*eig\(L\)",
    "eig(diag(L)) @ (eig(diag(L)).T @ G)": r"the eigenvectors of diag\(L\)",
    "G @ eig(A - R) @ eig(A - R).T": r"positive multiples",
    "G @ eig(0*A + R) @ eig(0*A + R).T": r"positive multiples",
    "G @ eig(A*(1 - 2)) @ eig(A*(1 - 2)).T": r"positive multiples",
    "G * sample_square(G*G)": r"the per-sample square of G\*G(.|\n)*linear in G",
    "G * sample_square(ema(G, 1/2))": r"linear in G",
    "sample_square(A) @ G": r"G between square matrices and eigenbases",
}  # fmt: skip


@pytest.mark.parametrize("text", MISMATCH)
def test_what_has_no_frame_is_refused_with_found_needed_and_do_this(text: str) -> None:
    with pytest.raises(RuleError, match=MISMATCH[text]) as refusal:
        parse(text)
    assert re.search(r"found: (.|\n)*\n *\^\n *needed: (.|\n)*\n *do this: ", str(refusal.value))


X, Y = "(eig(L).T @ G @ eig(R))", "(eig(B).T @ G @ eig(A))"
UNSOUND = {
    f"eig(L) @ abs({X}) @ eig(R).T": "signs of the eigenvectors",
    f"eig(L) @ ({X} + {X}*{X}) @ eig(R).T": "signs of the eigenvectors",
    f"eig(L) @ ({X} + eps) @ eig(R).T": "outside the corner",
    f"eig(L) @ ({X}/(abs({X}) + eps) + eps) @ eig(R).T": "outside the corner",
    f"eig(L) @ {X}**0 @ eig(R).T": "outside the corner",
    f"eig(L) @ ema({X}, 1/2) @ eig(R).T": "a moving average of a rotated matrix",
    "eig(L) @ (eig(L).T @ (G @ A) @ eig(R)) @ eig(R).T": "need not hold all of it",
    "eig(L) @ (eig(L).T @ (B @ G))": "need not hold all of it",
    "eig(B) @ (eig(B).T @ sign(G))": "need not hold all of it",
    "eig(L) @ (sign(eig(L).T @ G) @ eig(R)) @ eig(R).T": "need not hold all of it",
    "eig(L) @ (eig(L).T @ W)": "Gaussian matrix W in an eigenbasis",
    "eig(B @ G @ (B @ G).T) @ (eig(B @ G @ (B @ G).T).T @ G)": "need not hold the gradient",
    f"eig(L) @ ({X} / sample_square({X})) @ eig(R).T": "samples in eig",
    f"eig(B) @ ((eig(B).T @ (L @ G) @ eig(A)) / sqrt({Y}**2)) @ eig(A).T": "exactly zero where",
    f"eig(B) @ ({Y}*sample_square({Y}) / {Y}**2) @ eig(A).T": "blow up|exactly zero where",
    f"eig(B) @ (sample_square({Y}) / {Y}) @ eig(A).T": "exactly zero where",
    f"eig(B) @ ({Y} / ({Y} + eps)) @ eig(A).T": "a difference",
    f"eig(B) @ (eps / {Y}) @ eig(A).T": "exactly zero where",
    f"eig(B) @ ({Y} / clip({Y}**2 + eps, 1)) @ eig(A).T": "outside the corner",
    f"eig(B) @ ({Y} * norm({Y}**2 + eps)) @ eig(A).T": "outside the corner",
    "G * sample_square(G) / abs(G)": "vanishes where G does not",
    "(G @ A) / sqrt(sample_square(G))": "vanishes where G does not",
}  # fmt: skip


@pytest.mark.parametrize("text", UNSOUND)
def test_what_is_not_sound_is_refused_by_name(text: str) -> None:
    with pytest.raises(NotCovered, match=UNSOUND[text]):
        derive(parse(text))


def test_eigenvectors_that_miss_the_gradient_are_refused_by_both_readings() -> None:
    with pytest.raises(NotCovered, match="span need not hold the gradient"):
        derive(EKFAC, sampled_fisher=True)
    with pytest.raises(
        InvalidInput, match=r"of its norm outside the eigenvectors(.|\n)*refresh it"
    ):
        evaluate(EKFAC, tensors(layer("hidden, true Fisher")), VALUES)
    stale = State(curvature_interval=2)
    evaluate(SOAP, tensors(layer("hidden", 0)), VALUES, stale)
    with pytest.raises(InvalidInput, match="outside the eigenvectors"):
        evaluate(SOAP, tensors(layer("hidden", 1)), VALUES, stale)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"eig(L) @ ({X} + 1) @ eig(R).T", "not zero outside the corner"),
        (f"eig(B) @ (1 / ({Y} - {Y})) @ eig(A).T", "divided by exactly zero"),
    ],
)
def test_numbers_refuse_what_eigenvectors_do_not_determine(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        evaluate(parse(text), tensors(layer("hidden")), {})


# --- wide ---------------------------------------------------------------------------------------


def test_what_stays_in_the_corner_is_measured_at_any_width_and_what_does_not_is_refused() -> None:
    assert path_of(SOAP) is path_of(EKFAC) is path_of(ONE_SIDED) is Path.CORE
    assert path_of(parse("G / (sample_square(G) + eps)")) is Path.ROWS
    assert path_of(parse("G / (sample_square(L @ G) + eps)")) is None
    assert path_of(parse("sign(eig(L) @ (eig(L).T @ G))")) is Path.ROWS


@pytest.mark.parametrize("rule", [SOAP, EKFAC], ids=lambda rule: rule.name)
def test_coordinates_in_the_span_of_all_steps_are_enough(rule: Rule) -> None:
    xs = [layer("hidden", seed) for seed in range(3)]
    q, p = (np.linalg.qr(np.hstack(y))[0] for y in ([x.D for x in xs], [x.H for x in xs]))
    whole, small = State(), State()
    for x in xs:
        h, d = (
            torch.from_numpy(np.concatenate([y, np.zeros((2, 5))])) for y in (p.T @ x.H, q.T @ x.D)
        )
        told = LayerTensors(h, d, torch.zeros(17, 17).double(), sides=(20, 30))
        core = evaluate(rule, told, VALUES, small).dense().numpy()
        found = evaluate(rule, tensors(x), VALUES, whole).dense().numpy()
        assert_close(q @ core[:15, :15] @ p.T, found, 1e-8)
        assert not core[15:].any()


def test_limits_refuse_eigenvectors_by_name() -> None:
    from test_bridge import DATA

    solution = derive(SOAP)
    trial = Trial(solution.problem, solution.exponents, dict(find("soap").values), DATA)
    with pytest.raises(NotCovered, match="eigenvectors in"):
        limits(trial, calibrate(trial, 16), 64)


# --- rounding noise outside of the corner ---------------------------------------------------------

SPLUS = "eig(L) @ sign(eig(L).T @ ema(G, beta) @ eig(R)) @ eig(R).T"
DAMPED = "eig(L) @ (X/(abs(X) + eps)) @ eig(R).T where X = eig(L).T @ ema(G, beta) @ eig(R)"


def test_the_sign_of_what_is_exactly_zero_is_said_to_be_noise_in_floating_point() -> None:
    said = [x for x in derive(parse(SPLUS)).assumptions if "rounding noise" in x]
    assert len(said) == 1 and "divide by abs(X) + eps" in said[0]
    assert not [x for x in derive(parse(DAMPED)).assumptions if "rounding noise" in x]
    assert derive(parse(DAMPED)).exponents.c == derive(parse(SPLUS)).exponents.c


def test_a_library_has_random_signs_there_and_theory_s_numbers_have_zeros() -> None:
    generator = torch.Generator().manual_seed(0)
    d, h = (torch.randn(40, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    g = d @ h.T / 3
    left, right = torch.linalg.eigh(g @ g.T)[1], torch.linalg.eigh(g.T @ g)[1]
    noisy = left @ (left.T @ g @ right).sign() @ right.T
    seen = LayerTensors(h, d, torch.zeros(40, 40).double())
    ours = evaluate(parse("eig(L) @ sign(eig(L).T @ G @ eig(R)) @ eig(R).T"), seen, {}).dense()
    assert float(torch.linalg.matrix_norm(ours)) < 4 < 20 < float(torch.linalg.matrix_norm(noisy))
    inside = torch.linalg.qr(h)[0]
    other = torch.randn(40, generator=generator, dtype=torch.float64)
    other = other - inside @ (inside.T @ other)  # of a sample held out, what the batch lacks
    assert float((ours @ other).norm()) < 1e-9 < 1 < float((noisy @ other).norm())
