"""The width at which two terms trade places: from given numbers, and as networks have it."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from sympy import S
from typer.testing import CliRunner

from empirical.data.sources import load
from empirical.fit.crossover import too_narrow
from empirical.measure.measured_sizes import Measurement
from empirical.measure.trial import Trial
from empirical.wide import measure_wide
from scaling.cli.main import app
from scaling.models.architectures import perceptron, residual
from scaling.models.batch import Batch
from scaling.models.chain import Setting, mlp
from scaling.models.settings import Settings, read_settings
from scaling.report.graph_tables import graph_json, graph_table
from scaling.rules.parser import parse
from scaling.rules.tree import Node
from scaling.solve.crossing_widths import Crossover, crossing, crossovers
from scaling.solve.derive import Derived, derive
from scaling.solve.graph_regimes import crossovers_in_graph
from scaling.solve.graph_solution import derive_graph
from scaling.solve.predict import predict

SETTING = Setting(mlp(3), batch=Batch(samples=4))


def solved(text: str, *fixed: str) -> Derived:
    rule = parse(text)
    return derive(rule, read_settings(fixed, rule, SETTING.layers), SETTING)


def told(text: str, *fixed: str) -> dict[str, Crossover]:
    return {x.layer: x for x in crossovers(solved(text, *fixed))}


def measured(found: Derived, widths: Sequence[int], **values: float) -> list[Measurement]:
    data = load("digits", samples=4, probe=4)
    trial = Trial(found.problem, found.exponents, values, data)
    return [measure_wide(trial, trial.unit_constants(), width, 0) for width in widths]


def ratio(m: Measurement, layer: str, node: Node) -> float:
    one, other = m.sums[layer, node]
    return one / other


# --- exact, from what was given -------------------------------------------------------------------

FLOOR = "max(1/256, rms(W))*orth(G)"


def test_a_floor_under_the_size_of_weights_is_met_where_it_is_predicted() -> None:
    """Adafactor's: rms(W) = M^(-1/2) in the hidden layer, and M^(-1) in the last."""
    found = solved(FLOOR)
    told_of = {x.layer: x for x in crossovers(found)}
    assert {k: (x.width, x.exact) for k, x in told_of.items()} == {
        "hidden": (65536, True), "output": (256, True),
    }  # fmt: skip
    for one in told_of.values():
        width = round(one.width)
        below, at, beyond = (
            ratio(m, one.layer, one.node) for m in measured(found, (width // 2, width, 2 * width))
        )
        assert at == pytest.approx(1, abs=0.03)
        assert below < 0.8 < 1.2 < beyond


def test_torch_s_adafactor_changes_its_regime_beyond_every_width_in_use() -> None:
    hidden = told("max(0.001, rms(W))*sign(G)", "d_eps_1=0")["hidden"]
    assert (hidden.width, hidden.exact, hidden.kept) == (10**6, True, "")
    assert str(hidden) == ("rms(W) is larger than 0.001 up to width 1,000,000, and smaller beyond")
    kept = told("max(0.001, rms(W))*sign(G)")["hidden"]
    assert (kept.width, kept.kept) == (10**6, "eps_1")


@pytest.mark.parametrize(("text", "fixed", "layer", "width"), [
    ("G/(1 + norm(W)/100)", (), "hidden", 100**2),  # norm(W) = M^(1/2)
    ("G/max(1, norm(W)/bound)", ("bound=50",), "hidden", 50**2),
    ("clip(norm(W), 30)*G", (), "hidden", 30**2),
    ("G*min(sqrt(fan_in), 20)", (), "output", 400),
    ("G/(norm(W) + fan_in/1000)", (), "hidden", 1000**2),
    ("G/(norm(W)/3 + bound)", ("bound=50",), "hidden", 150**2),
    ("G*(abs(W) + 1/100)", (), "hidden", 10**4),
    ("G*max(2*abs(W), 1/100)", (), "hidden", 200**2),
    # W of the input layer: M x 64 entries of variance 1/64
    ("G/max(1, norm(W)/bound)", ("bound=50",), "input", 50**2),
])  # fmt: skip
def test_numbers_sides_and_weights_are_exact(
    text: str, fixed: tuple[str, ...], layer: str, width: float
) -> None:
    found = told(text, *fixed)[layer]
    assert found.exact
    assert found.width == pytest.approx(width, rel=1e-9)


# --- about, and exactly with what a network has ---------------------------------------------------


def test_a_damping_that_is_kept_is_met_where_a_measured_ratio_says() -> None:
    """The theory's width takes a number of order one as 1; measured at width 256 it is known."""
    found = solved("G/(norm(G) + eps)", "d_eps=0", "eps=0.02")
    one = next(x for x in crossovers(found) if x.layer == "input")
    assert not one.exact and one.width == pytest.approx(50**2)  # norm(G) ~ M^(-1/2)
    (narrow,) = measured(found, (256,), eps=0.02)
    regime = next(x for x in found.regimes["input"] if x.node == one.node)
    x, y = (float(size.width) for size in (regime.left_size, regime.right_size))
    meeting = crossing(ratio(narrow, "input", one.node), 256, x, y)
    assert one.width / 1000 < meeting < one.width * 1000
    (at,) = measured(found, (round(meeting),), eps=0.02)
    assert ratio(at, "input", one.node) == pytest.approx(1, abs=0.15)
    prediction = predict(found.problem, found.exponents)
    assert f"alike at about width {meeting:.2g}" in too_narrow([[narrow]], prediction, ["input"])


def test_slopes_beside_the_place_where_terms_trade_places_contradict_nothing() -> None:
    """Halfway through a crossover slopes lie between two exponents, outside of both margins."""
    found = solved("G @ (A + rho*I)**(-1)", "d_rho=-3/2", "rho=0.01")
    (run,) = measured(found, (16,), rho=0.01)
    (node,) = {node for layer, node in run.sums if layer == "hidden"}
    prediction = predict(found.problem, found.exponents)

    def told(narrow: float, wide: float, margin: float = 0.1) -> str:
        """With a damping that goes from one part of the other term to another."""
        sizes = ((16384, narrow), (1048576, wide))
        runs = [replace(run, width=m, sums={("hidden", node): (1.0, x)}) for m, x in sizes]
        return too_narrow([runs], prediction, ["hidden"], margin)

    assert "alike at about width 1.1e+05" in told(0.39, 3.1)
    assert told(0.39, 3.1, margin=math.inf) == "" != told(0.1, 0.8, margin=math.inf)
    assert told(5, 40) == "" != told(5, 40, margin=0.02)


@pytest.mark.parametrize(("text", "fixed", "layer", "width"), [
    ("G/(sqrt(G*G) + 1e-8)", ("d_eps_1=0",), "hidden", 1e8),
    ("G/(sqrt(G*G) + eps)", ("eps=1e-8",), "hidden", 1e8),
    ("(B + rho_B*I)**(-1) @ G", ("d_rho_B=0", "rho_B=0.001"), "hidden", 1e3),
    ("clip(G, 1/1000)", (), "hidden", 1e3),
    ("G @ (A + rho*I)**(-1)", ("rho=1000",), "hidden", 1e3),
])  # fmt: skip
def test_what_follows_the_gradient_or_the_data_is_told_as_about(
    text: str, fixed: tuple[str, ...], layer: str, width: float
) -> None:
    found = told(text, *fixed)[layer]
    assert not found.exact and "about" in str(found)
    assert found.width == pytest.approx(width, rel=1e-9)


# --- where there is none --------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "fixed"), [
    ("G/(1 + norm(W))", ()),  # alike at width 1
    ("G/(sqrt(G*G) + eps)", ()),  # follows what it is added to
    ("G/(sqrt(G*G) + eps)", ("d_eps=0",)),  # nobody said how large
    ("G/(sqrt(G*G) + eps)", ("d_eps=3", "eps=0.001")),  # from a base width that is not said
    ("G/max(1, norm(G)/bound)", ()),
    ("G @ (A + rho*I)**(-1)", ("rho=0.001",)),  # the larger one from the start
    ("G/(1 + norm(W)/100)", ("b=oo",)),
    ("sign(G)", ()),
])  # fmt: skip
def test_nothing_is_told_where_no_given_number_decides(text: str, fixed: tuple[str, ...]) -> None:
    if "b=oo" in fixed:
        fixed = ("b_output=oo",)
        assert "output" not in told(text, *fixed)
        return
    assert told(text, *fixed) == {}


def test_terms_of_one_order_never_meet() -> None:
    assert str(crossing(10, 64, 0.5, 0.5)) == "nan"
    assert crossing(1e300, 64, 0.0, 0.01) == float("inf")


# --- what is printed ------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["derive", "predict"])
def test_both_verbs_print_it_and_give_it_as_json(verb: str) -> None:
    words = [verb, "max(0.001, rms(W))*sign(G)", "--set", "d_eps_1=0"]
    line = "crossover in hidden: rms(W) is larger than 0.001 up to width 1,000,000, and smaller"
    said = CliRunner().invoke(app, words).output
    assert line in said
    payload = json.loads(CliRunner().invoke(app, [*words, "--format", "json"]).output)
    hidden = next(x for x in payload["crossovers"] if x["layer"] == "hidden")
    assert hidden == {
        "layer": "hidden", "node": "max(0.001, rms(W))", "larger_below": "rms(W)",
        "larger_beyond": "0.001", "width": 10**6, "exact": True,
    }  # fmt: skip
    plain = CliRunner().invoke(app, [verb, "sign(G)", "--format", "json"]).output
    assert json.loads(plain)["crossovers"] == []


# --- on models ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "fixed"), [
    ("G/(sqrt(G*G) + 1e-8)", ("d_eps_1=0",)),
    ("G/(sqrt(G*G) + eps)", ("eps=1e-8",)),
    ("G @ (A + rho*I)**(-1)", ("rho=1000",)),
])  # fmt: skip
def test_a_chain_as_a_graph_has_the_widths_of_the_chain(text: str, fixed: tuple[str, ...]) -> None:
    rule, layers = parse(text), SETTING.layers
    answer = derive_graph(rule, perceptron(3), read_settings(fixed, rule, layers))
    found = {x.layer: x for x in crossovers_in_graph(answer)}
    assert {n: (str(x.node), x.width, x.kept) for n, x in told(text, *fixed).items()} == {
        n: (str(x.node), x.width, x.kept) for n, x in found.items()
    }
    assert not any(x.exact for x in found.values())


def test_the_size_at_which_a_kept_eps_takes_over_is_named_by_its_axis() -> None:
    rule = parse("G/(sqrt(G*G) + eps)")
    answer = derive_graph(rule, residual("depth", 2, -S.One), Settings(values={"eps": 1e-6}))
    (line,) = [x for x in graph_table(answer).notes if x.startswith("crossover in blocks")]
    assert (
        "with eps kept as it is, sqrt(G*G) is larger than eps up to about depth 1,000,000" in line
    )
    found = {x["tensor"]: x["depth"] for x in graph_json(answer)["crossovers"]}
    assert found == dict.fromkeys(("blocks.0", "blocks.1"), pytest.approx(1e6))
    assert not graph_json(derive_graph(rule, residual("depth", 2, -S.One)))["crossovers"]
