"""The whole catalogue, cheaply: every rule is derived, taken a step with, held against a library.

What takes seconds a rule runs over a tour of it (tour.py). A rule that names a library is compared
with its first two steps; where the library is not installed the test is skipped by its name.
"""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from test_measure import trial_of
from tour import TOUR

from derivations.catalogue import catalogue, families
from empirical.black_box.equal_rules import RTOL, distance
from empirical.black_box.optimizer_class import OptimizerClass, read_call
from empirical.measure.calibration import calibrate
from empirical.measure.dense_steps import measure
from empirical.measure.machine import blas_threads
from empirical.measure.trial import Trial
from scaling.rules.parser import parse
from scaling.sizes.errors import InvalidInput
from scaling.solve.derive import derive

NEW = [name for name in catalogue() if name not in TOUR]
LIBRARY = [name for name, one in catalogue().items() if one.library]
ALSO = {
    "heavyball.AdamW(storage_dtype='float64', eps=1e-15)": "adam_debiased",
    "heavyball.LaProp(storage_dtype='float64', eps=1e-15)": "laprop",
    "lion_pytorch.Lion(weight_decay=0.1)": "lion",
    "empirical.black_box.through_asdl.AsdlDiagonal(damping=1e-2)": "G/(sample_square(G) + rho)",
    "empirical.black_box.through_curvlinops.CurvlinopsKfacSplit(damping=1e-2)": "kfac_pi",
}
"""Other libraries with the first two steps of a rule."""
WIDTHS, SEEDS, TOLERANCE = (128, 512), (4, 2), 1 / 8
"""Exponents of the catalogue are multiples of 1/4, and of 1/3 in MADGRAD."""
PLANTED = {
    "beta": "(8/10)",
    "beta1": "(8/10)",
    "beta2": "(7/10)",
    "decay": "(2/10)",
    "nu": "(6/10)",
}
"""Other numbers than any library has."""


def installed(library: str) -> OptimizerClass:
    """The class of a call; the test is skipped by its name where the library is missing."""
    try:
        return read_call(library)
    except InvalidInput as error:
        assert "no module" in error.found and not library.startswith("torch."), error
        pytest.skip(f"{error.found}: pip install 'scaling[libraries]'")


def slopes(trial: Trial) -> dict[str, float]:
    """Of RMS(dW h) between two widths, by layer."""
    constants, sizes = calibrate(trial, WIDTHS[0]), []
    with blas_threads(1):
        for width, seeds in zip(WIDTHS, SEEDS, strict=True):
            found = [measure(trial, constants, width, seed).sizes for seed in range(seeds)]
            sizes.append({k: np.mean([x[k].own for x in found]) for k in found[0]})
    by = math.log(WIDTHS[1] / WIDTHS[0])
    return {k: math.log(sizes[1][k] / size) / by for k, size in sizes[0].items()}


@pytest.mark.parametrize("name", NEW)
def test_own_updates_of_a_derived_rule_are_as_large_at_any_width(name: str) -> None:
    found = slopes(trial_of(name))
    assert all(abs(slope) <= TOLERANCE for slope in found.values()), found


@pytest.mark.parametrize(
    ("name", "other"), [("racs", "sgd"), ("fismo", "muon"), ("sinkgd", "padam"), ("nero", "sign")]
)
def test_with_the_rates_of_another_rule_they_are_not(name: str, other: str) -> None:
    trial = trial_of(name)
    table = replace(trial.exponents, c=trial_of(other).exponents.c)
    found = slopes(replace(trial, exponents=table))
    assert any(abs(slope) > TOLERANCE for slope in found.values())


def test_every_rule_is_derived_and_says_what_its_symbols_are() -> None:
    for name, one in catalogue().items():
        assert derive(one.rule).exponents.c.keys() >= {"input", "hidden", "output"}, name
        symbols = {*one.rule.scaled, *one.rule.constants, *one.rule.exponents}
        assert symbols - {*one.rule.literals, *one.rule.exponents} <= set(one.units), name
        assert set(one.values) <= symbols and set(one.exponents) == set(one.rule.exponents), name
        assert set(one.rule.constants) <= set(one.values), name
        assert 0 < len(one.about) < 60 and one.reference and "lr" in one.units, name


def test_every_family_opens_with_a_claim_of_one_line() -> None:
    assert sum(map(len, families().values())) == len(catalogue()) >= 120
    assert all(20 < len(claim) <= 100 for claim in families())


def test_the_tour_is_part_of_the_catalogue_and_of_most_families() -> None:
    assert set(TOUR) <= set(catalogue()) and len(set(TOUR)) == len(TOUR) <= 51
    visited = [k for k, family in families().items() if {x.name for x in family} & set(TOUR)]
    assert len(visited) >= 0.6 * len(families())


@pytest.mark.parametrize("name", LIBRARY)
def test_a_rule_takes_the_first_two_steps_of_its_library(name: str) -> None:
    one = catalogue()[name]
    made = installed(one.library)
    usual = {**one.values, **{k: float(x) for k, x in one.exponents.items()}}
    assert distance(made, one.rule, usual) < RTOL
    for symbol in set(PLANTED) & {*one.rule.constants, *one.rule.scaled}:
        planted = parse(re.sub(rf"\b{symbol}\b", PLANTED[symbol], one.update))
        assert distance(made, planted, usual) > 10 * RTOL, symbol


@pytest.mark.parametrize(("library", "rule"), ALSO.items())
def test_other_libraries_take_the_first_two_steps_of_a_rule(library: str, rule: str) -> None:
    known = catalogue().get(rule)
    usual = {k: float(x) for k, x in known.exponents.items()} if known else {}
    decay = {"decay": 0.1} if known and known.rule.decays else {}
    meant = known.rule if known else parse(rule)
    assert distance(installed(library), meant, {**usual, **decay}) < RTOL
    assert distance(installed(library), catalogue()["sgd"].rule, {}) > 10 * RTOL


PSGD = (
    "X - mu*(X @ R - fan_out*X)/(specnorm(R) + fan_out) "
    "where X = G - mu*(L @ G - fan_in*G)/(specnorm(L) + fan_in)"
)
"""A step of each factor of PSGD from the identity, and then G between them: Q_L @ G @ Q_R."""


def test_psgd_from_the_identity_is_a_rule_at_its_first_step() -> None:
    assert derive(parse(PSGD)).exponents.c == derive(parse("G")).exponents.c
    made = installed(
        "heavyball.QSGD(storage_dtype='float64', q_dtype='float64', precond_init_scale=1.0, "
        "precond_lr=0.1, preconditioner_update_probability=1.0, betas=(0.0, 0.999), "
        "update_clipping=None)"
    )
    assert distance(made, parse(PSGD), {"mu": 0.1}, steps=1) < RTOL
    assert distance(made, parse(PSGD), {"mu": 0.05}, steps=1) > 100 * RTOL
    assert distance(made, parse("G"), {}, steps=1) > 100 * RTOL


def test_most_libraries_meet_a_planted_constant() -> None:
    rules = [catalogue()[name].rule for name in LIBRARY]
    assert sum(bool(set(PLANTED) & {*x.constants, *x.scaled}) for x in rules) >= 0.7 * len(rules)


@pytest.mark.parametrize("rule", ["ema(G, beta)", "debiased(G, beta)"])
def test_an_average_that_takes_nothing_in_is_refused_and_equals_nothing(rule: str) -> None:
    made = read_call("torch.optim.SGD(momentum=1.0)")
    assert distance(made, parse(rule), {}) == math.inf
    assert distance(read_call("torch.optim.SGD(momentum=0.5)"), parse("ema(G, beta)"), {}) < RTOL


def test_a_library_is_named_as_a_call() -> None:
    assert read_call("torch.optim.SGD(momentum=0.9)").kwargs == {"momentum": 0.9}
    for text in ("torch.optim.SGD", "SGD()", "torch.optim.SGD(lr=1"):
        with pytest.raises(InvalidInput, match=r"module.Class\(key=value\)"):
            read_call(text)
