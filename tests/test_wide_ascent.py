"""Gradients at moved weights at any width: the numbers of dense networks, and their law."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from sympy import Expr, S
from test_wide import numbers, runs
from wide_trials import (
    ROUNDED,
    ROUNDING,
    SAME_BITS,
    assert_same_numbers,
    least_p_value,
    on_two_machines,
    trial,
)

from empirical.data.sources import load
from empirical.fit.verdict import Verdict
from empirical.limits.infinite_width import limits
from empirical.measure import dense_steps
from empirical.measure.calibration import calibrate
from empirical.measure.dense_steps import measure
from empirical.measure.machine import blas_threads
from empirical.measure.measured_sizes import MeasuredSizes, Measurement, Quantity
from empirical.measure.trial import Constants, Trial
from empirical.networks import MLP
from empirical.verify.campaign import Experiment, Mode
from empirical.verify.verification import Check, verify
from empirical.wide import Streaming, measure_wide, tiles
from empirical.wide import wide_steps as wide
from empirical.wide.method import Path, path_of, refuse_unless_wide
from empirical.wide.noise import ROWS
from empirical.wide.weight import Change, Weight
from empirical.wide.wide_network import Network
from scaling.cli.requests import problem_with, subject_of
from scaling.models.chain import Activation, Loss
from scaling.rules.parser import parse
from scaling.sizes.errors import InvalidInput, NotCovered

ALPHA = 1e-3
SAM = "ascended(radius*G/norm(G))"
GLOBAL = "ascended(radius*G/sqrt(over_layers(norm(G)**2)))"
SIGN = "ascended(radius*sign(G)/norm(sign(G)))"
EXACT = Streaming(torch.float64)
WIDTH = 80
"""More than all directions that two steps ask for, of units that are alive."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with blas_threads(1):
        yield


def uphill(text: str, *how: Any, **options: Any) -> Trial:
    """A rule under exponents of zero, so that one number is a radius at every width."""
    known = trial("sam", *how, **options)
    problem = replace(known.problem, rule=parse(text))
    d: dict[str, dict[str, Expr]] = {
        name: dict.fromkeys(problem.rule.scaled, S.Zero) for name in known.exponents.d
    }
    return replace(
        known, problem=problem, exponents=replace(known.exponents, d=d), values={"beta": 0.6}
    )


def constants_of(t: Trial, width: int = WIDTH) -> Constants:
    """Calibrated at a width, then radii of five times and rates of a tenth of that."""
    found = calibrate(t, width)
    rho = {
        name: {k: 5 * x if k == "radius" else x for k, x in values.items()}
        for name, values in found.rho.items()
    }
    return Constants({name: x / 10 for name, x in found.eta.items()}, rho)


# --- the numbers of dense networks --------------------------------------------------------------


def both(
    t: Trial,
    constants: Constants,
    monkeypatch: pytest.MonkeyPatch,
    steps: int = 1,
    quantity: Quantity = Quantity.ALL,
    machine: Streaming = EXACT,
) -> tuple[Mapping[str, MeasuredSizes], Mapping[str, MeasuredSizes]]:
    """Sizes of a wide network, and of the dense one whose weights gave all of its answers."""
    starts: list[Network] = []
    begin, draw = wide._Run.start, dense_steps.dense_network

    def start(run: Any) -> Network:
        starts.append(begin(run))
        return starts[-1]

    def network(*described: Any) -> MLP:
        model = draw(*described)
        for layer in t.problem.setting.layers:
            linear = model.linear(layer.position)
            tensor = linear.bias if layer.is_bias else linear.weight
            with torch.no_grad():
                whole = whole_of(starts[0].parameters[layer.name].weight)
                tensor.copy_(whole.reshape(tensor.shape))
        return model

    monkeypatch.setattr(wide._Run, "start", start)
    monkeypatch.setattr(dense_steps, "dense_network", network)
    ours = measure_wide(t, constants, WIDTH, 3, steps, machine, quantity)
    return ours.sizes, measure(t, constants, WIDTH, 3, steps, quantity).sizes


def whole_of(weight: Weight) -> torch.Tensor:
    """All entries: W Q Q^T, with Q as far from what was asked before as chance is."""
    side, generator = weight.columns.side, torch.Generator().manual_seed(1)
    q = torch.linalg.qr(torch.randn(side, side, generator=generator, dtype=torch.float64)).Q
    return weight.rows.values(weight @ weight.columns.given(q)).double() @ q.T


def assert_same(
    ours: Mapping[str, MeasuredSizes], theirs: Mapping[str, MeasuredSizes], accuracy: float = 1e-7
) -> None:
    for name, x in ours.items():
        known = theirs[name].known()
        assert x.known().keys() == known.keys(), name
        for quantity in known.keys() - {"init"}:  # which is over other readouts
            expected = pytest.approx(known[quantity], rel=accuracy)
            assert x.known()[quantity] == expected, (name, quantity)


CORE = [
    SAM,
    GLOBAL,
    f"{SAM} + ascended(2*radius*orth(G)) @ (A + eps*I)**(-1)",
    "ascended(radius*(norm(W)*G/norm(G) + W))",
    f"ema({SAM}, beta) + ascended(radius*ema(G, beta)/norm(G))",
    f"{GLOBAL} / over_layers(norm({GLOBAL}))",
    "ascended(radius * ((B + eps*I)**(-1) @ G) / over_layers(norm((B + eps*I)**(-1) @ G)))",
    f"orth(debiased({SAM}, beta)) * norm(W) + beta*W",
    f"ascended(radius * eig(L) @ ((eig(L).T @ G)**3) / norm(L)) / (norm({SAM}) + eps)",
]
ROW_BY_ROW = [
    f"ema({SAM}, beta) / (sqrt(ema({SAM}**2, beta)) + eps)",
    SIGN,
    f"sign({SIGN}) / over_layers(norm({SIGN}))",
    f"atan((B + eps*I)**(-1) @ {SAM}) + G / rms(sign({SAM}))",
    f"G / (row_mean({GLOBAL}**2) + eps) + beta*W",
]


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("text", [*CORE, *ROW_BY_ROW])
def test_steps_are_those_of_the_dense_network_with_these_weights(
    text: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "TILE", (33, 50))
    t = uphill(text, biases=text in (SAM, ROW_BY_ROW[0]), activation=Activation.RELU)
    assert path_of(t.problem.rule) is (Path.CORE if text in CORE else Path.ROWS)
    constants = constants_of(t)
    ours, theirs = both(t, constants, monkeypatch, steps)
    assert_same(ours, theirs)
    assert all((x.ascent is None) is (steps > 1) for x in ours.values())


@pytest.mark.parametrize("text", [SAM, SIGN, f"sign({SAM}) + G", f"sign({SIGN})"])
def test_own_updates_alone_are_those_of_the_dense_network(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    t = uphill(text, activation=Activation.RELU)
    ways = path_of(t.problem.rule), path_of(t.problem.rule, own_only=True)
    whole = SIGN in text  # what X moves goes through the network, so a sample is not enough
    expected = (Path.CORE, Path.CORE) if text == SAM else (Path.ROWS, Path.SAMPLE)
    assert ways == ((Path.ROWS, Path.ROWS) if whole else expected)
    ours, theirs = both(t, constants_of(t), monkeypatch, quantity=Quantity.OWN)
    assert_same(ours, theirs)
    assert all(x.feature is None and x.ascent is not None for x in ours.values())


@pytest.mark.parametrize("text", [SAM, f"atan((B + eps*I)**(-1) @ {SAM}) + G"])
@pytest.mark.parametrize("quantity", Quantity)
def test_single_precision_is_enough(
    text: str, quantity: Quantity, monkeypatch: pytest.MonkeyPatch
) -> None:
    t, machine = uphill(text), Streaming(torch.float32)
    ours, theirs = both(t, constants_of(t), monkeypatch, 1, quantity, machine)
    assert_same(ours, theirs, 1e-3)


def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the step sets out from where the perturbation led."""
    exact, held = Network.stepped, list[Mapping[str, Change]]()

    def stepped(
        self: Network, updates: Mapping[str, Change], columns: Sequence[int], then: int = 0
    ) -> Network:
        if not held:
            held.append(updates)
            return exact(self, updates, columns, then)
        moved = exact(self, held.pop(), range(self.u[0].count))
        return exact(moved, updates, columns, then)

    monkeypatch.setattr(Network, "stepped", stepped)


@pytest.mark.parametrize("wrong", ["forgets", "looks at W", "moves one layer"])
def test_other_steps_have_other_numbers(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    t = uphill(SAM)
    constants = constants_of(t)
    if wrong == "forgets":
        forgetful(monkeypatch)
    else:
        look = wide._Run._look

        def astray(run: Any, now: Network, then: int, moves: Mapping[str, Change]) -> Any:
            kept = ["hidden"] if wrong == "moves one layer" else []
            return look(run, now, then, {k: (k in kept) * x for k, x in moves.items()})

        monkeypatch.setattr(wide._Run, "_look", astray)
    ours, theirs = both(t, constants, monkeypatch)
    with pytest.raises(AssertionError):
        assert_same(ours, theirs)
    assert ours["hidden"].ascent == pytest.approx(theirs["hidden"].ascent, rel=1e-7)


# --- their law ----------------------------------------------------------------------------------


def sizes_of(m: Measurement) -> dict[str, float]:
    ascents = {f"ascent of {name}": x.ascent for name, x in m.sizes.items()}
    return {**numbers(m), **{name: x for name, x in ascents.items() if x is not None}}


LAWS = {
    "biases": uphill(SAM, 4, Activation.RELU, Loss.CROSS_ENTROPY, biases=True),
    "norms of all layers, two": uphill(f"{GLOBAL} + ascended(radius*orth(G))"),
    "entries": uphill(f"sign({SIGN})", activation=Activation.GELU),
}


@pytest.mark.parametrize("name", LAWS)
def test_a_step_has_the_law_of_a_dense_network(name: str) -> None:
    t = LAWS[name]
    constants = constants_of(t, 48)
    ours = runs(lambda seed: sizes_of(measure_wide(t, constants, 48, seed)), 40)
    theirs = runs(lambda seed: sizes_of(measure(t, constants, 48, seed)), 40)
    assert least_p_value(ours, theirs) > ALPHA


def test_a_step_that_is_not_taken_back_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    t = trial("sam", activation=Activation.RELU)
    constants = constants_of(t, 48)
    theirs = runs(lambda seed: sizes_of(measure(t, constants, 48, seed)), 40)
    forgetful(monkeypatch)
    wrong = runs(lambda seed: sizes_of(measure_wide(t, constants, 48, seed)), 40)
    assert least_p_value(wrong, theirs) < ALPHA


# --- the machine, and large widths --------------------------------------------------------------


@pytest.mark.parametrize("options", [*SAME_BITS, *ROUNDED])
def test_workers_and_memory_change_no_bit_and_chunks_no_more_than_rounding(
    options: dict[str, int],
) -> None:
    found = on_two_machines(trial("sam", biases=True), 3 * ROWS + 17, 1, options)
    assert_same_numbers(*map(sizes_of, found), options, ROUNDING[torch.float64])


WIDE: dict[str, Any] = {
    "widths": (512, 2048, 8192, 32768), "seeds": 6, "margin": 0.05, "threads": 1,
    "data": load("digits", samples=8, probe=6), "mode": Mode.WIDE, "streaming": Streaming(),
}  # fmt: skip


def test_derived_radii_are_measured_and_wrong_ones_are_contradicted() -> None:
    def ascents(given: Sequence[str], *expect: str) -> dict[str, Check]:
        table = subject_of("sam", problem_with("sam", *given, activation="tanh"))
        checks = verify([table], Experiment(**WIDE), expect).checks
        return {c.layer: c for c in checks if c.quantity == "ascent"}

    for layer, check in ascents([]).items():
        assert check.predicted == 0 and check.verdict is Verdict.agree, (layer, check.measured)
    claim = [f"ascent_{layer}=0" for layer in ("input", "hidden", "output")]
    wrong = ascents(["d_radius_hidden=1/10"], *claim)
    assert wrong["hidden"].verdict is Verdict.contradict, wrong["hidden"].measured
    assert wrong["hidden"].measured.slope == pytest.approx(-1 / 10, abs=0.01)
    assert {wrong[name].verdict for name in ("input", "output")} == {Verdict.agree}


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("ascended(radius*orth(sign(G)))", "orth(sign(G))"),
        ("ascended(radius*W)", "radius*W"),
        ("ascended(radius*sign(W))", "sign(W)"),
        (f"orth(sign({SAM}))", f"orth(sign({SAM}))"),
        (f"W * {SAM}", f"W*{SAM}"),
        ("sign(newton_schulz(abs(G), 3))", "newton_schulz(abs(G), 3)"),
    ],
)
def test_what_no_way_covers_is_refused_by_name(text: str, node: str) -> None:
    assert path_of(parse(text)) is None
    with pytest.raises(InvalidInput) as refusal:
        refuse_unless_wide(parse(text))
    assert refusal.value.found.startswith(f"'{node}' in")


def test_widths_that_the_dearest_look_cannot_reach_are_refused() -> None:
    for own_only in (False, True):
        with pytest.raises(InvalidInput, match=r"the width 1,000,000 for 'sign\(G\)'") as refusal:
            refuse_unless_wide(parse(SIGN), 10**6, own_only)
        assert "--quantity own" not in str(refusal.value)
    with pytest.raises(InvalidInput, match="--quantity own"):
        refuse_unless_wide(parse(f"sign({SAM})"), 10**6)
    refuse_unless_wide(parse(f"sign({SAM})"), 10**6, own_only=True)
    refuse_unless_wide(parse(SAM), 10**9)


def test_there_is_no_limit_in_closed_form() -> None:
    t = trial("sam")
    with pytest.raises(NotCovered, match=r"the limit of 'ascended\(radius\*G/norm\(G\)\)'"):
        limits(t, calibrate(t, 16), 64)
