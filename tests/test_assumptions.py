"""What the command prints below a table is part of the result in Python, and of its JSON."""

from dataclasses import fields
from typing import Any

import pytest

import scaling
from empirical.data.sources import load
from empirical.report import measured_tables
from empirical.verify.campaign import Experiment
from empirical.verify.single import measure_once
from empirical.verify.verification import merged, verify, verify_deep
from scaling.cli.requests import literal_of, problem_with, solution_of, subject_of
from scaling.report import as_json, tables
from scaling.solve.alternatives import regime_lines
from scaling.states.problem import CONVENTION

RULE = "nu*G / (sqrt(ema(G*G, beta)) + eps)"
ASSUMED = ("nu is a number of order one",)
GIVEN = ("nu=0.5", "beta=0.9", "eps=0.001")
DIGITS = load("digits", samples=4, probe=4)


def notes(table: tables.Table) -> set[str]:
    return set(table.notes)


def test_a_derivation_holds_what_is_printed_below_it() -> None:
    found = solution_of(problem_with(RULE, "d_eps=0", practice=False))
    assert set(ASSUMED) <= set(found.assumptions)
    decided = regime_lines(found)
    assert decided and all(text.startswith("regime in ") for text in decided)
    assert found.convention == CONVENTION
    said = {f"assumed: {x}" for x in found.assumptions} | {*decided, found.convention}
    assert notes(tables.derived_table(found)) - said <= {f"free: {', '.join(found.free)}"}
    payload = as_json.derived_json(found)
    assert payload["regimes"] == list(decided)


def test_a_prediction_and_a_comparison_hold_what_is_printed_below_them() -> None:
    problem = problem_with(RULE)
    table, bounds = literal_of(problem)
    found = scaling.predict(problem, table, bounds)
    assert set(ASSUMED) <= set(found.assumptions) and found.convention == CONVENTION
    compared = scaling.compare(problem, table, problem_with("adam"), table)
    assert (compared.assumptions, compared.convention) == (ASSUMED, CONVENTION)
    below = notes(tables.compared_table("x", "y", compared))
    assert {f"assumed: {ASSUMED[0]}", CONVENTION} <= below
    assert as_json.compared_json("x", "y", compared)["assumptions"] == list(ASSUMED)


def test_what_is_measured_holds_what_its_prediction_rests_on() -> None:
    subject = subject_of(RULE, problem_with(RULE, *GIVEN, "d_eps=0"))
    few = Experiment((8, 16, 32), 2, 0.3, DIGITS, threads=1)
    found = merged([verify([subject], few)])
    deep = verify_deep([subject], [solution_of(subject.problem).steps], few)
    predicted = scaling.predict(subject.problem, subject.exponents, subject.bounds)
    assert found.assumptions == predicted.assumptions and set(ASSUMED) <= set(found.assumptions)
    assert deep.assumptions and found.convention == deep.convention == CONVENTION
    below = notes(measured_tables.as_table(found))
    assert {f"assumed: {text}" for text in found.assumptions} <= below
    assert found.regimes == predicted.regime_lines and set(found.regimes) <= below
    assert any("eps dominates" in text for text in found.regimes), found.regimes
    assert measured_tables.as_json(found)["assumptions"] == list(found.assumptions)
    values = {**subject.declared.values, **subject.problem.settings.values}
    once = measure_once(subject.problem, subject.exponents, values, 8, 0, DIGITS, "cpu", 1)
    assert once.assumptions == ASSUMED
    assert once.as_json()["assumptions"] == list(ASSUMED)
    assert f"assumed: {ASSUMED[0]}" in measured_tables.render_measurement(once, "text")


@pytest.mark.parametrize("kind", [
    "scaling.solve.solution.Derived", "scaling.solve.predict.Prediction",
    "scaling.solve.symmetry.Comparison", "empirical.verify.verification.Verification",
])  # fmt: skip
def test_every_result_has_assumptions_and_a_convention(kind: str) -> None:
    import importlib

    module, _, name = kind.rpartition(".")
    result: Any = getattr(importlib.import_module(module), name)
    assert {"assumptions", "convention"} <= {field.name for field in fields(result)}
