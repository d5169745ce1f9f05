"""Who goes which way: every rule of the catalogue, by what it does to matrices that are turned."""

import re
from pathlib import Path as File

import pytest
import torch
from test_wide_rows import axis
from torch import Tensor
from tour import tour

from derivations.catalogue import catalogue, find
from empirical.numbers.interpreter import LayerTensors, evaluate_network
from empirical.wide.implicit import Span
from empirical.wide.method import Path, path_of, refuse_unless_wide, way_of
from empirical.wide.span_update import Coordinates, Source
from empirical.wide.strips import strips_of
from scaling.rules.ascents import here, perturbations
from scaling.rules.parser import parse
from scaling.rules.rule import Rule
from scaling.sizes.errors import InvalidInput

SIDES = {"hidden": (40, 36), "output": (3, 40)}  # longer than blocks
SAMPLES = 2


def draw(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def update_of(rule: Rule, turned: bool) -> dict[str, Tensor]:
    """A first step on fixed data; of matrices that were turned on both sides, turned back."""
    seen, moved, turns = {}, {}, {}
    values = {x: 0.3 for x in (*rule.scaled, *rule.exponents, *rule.constants)}
    for i, (name, (rows, columns)) in enumerate(SIDES.items()):
        p, q = (
            torch.linalg.qr(draw(k, side, side)).Q if turned else torch.eye(side).double()
            for k, side in ((50 + i, rows), (60 + i, columns))
        )
        turns[name] = p, q
        w = p @ draw(30 + i, rows, columns) @ q.T
        seen[name], moved[name] = (
            LayerTensors(q @ draw(k + 1, columns, SAMPLES), p @ draw(k, rows, SAMPLES), w)
            for k in (i, 10 + i)
        )
    looks = dict.fromkeys(rule.ascents, moved)
    numbers = dict.fromkeys(SIDES, values)
    found = evaluate_network(rule, seen, numbers, ascended=looks)
    return {name: p.T @ found[name].dense() @ q for name, (p, q) in turns.items()}


def commutes_with_rotations(rule: Rule) -> bool:
    """Whether a rule needs no single entries: an oracle that knows nothing of its tree."""
    straight, turned = update_of(rule, False), update_of(rule, True)
    return all(
        torch.allclose(x, turned[name], rtol=1e-7, atol=1e-9) for name, x in straight.items()
    )


def expected(rule: Rule, own_only: bool = False) -> Path:
    """By rotations, but for entries in the eigenbasis of one side alone, which are columns."""
    if commutes_with_rotations(rule) or strips_of([rule.expression]):
        return Path.CORE
    return Path.SAMPLE if own_only else Path.ROWS


FIRST_STEP_ALONE = {
    "momentum_penalised": "later steps average weights of several steps (parts.py)",
}
DENSE_ALONE = {
    "adamp": "inner(W, ",
    "sgdp": "inner(W, ",
    "orthograd": "inner(W, G)",
    "lbfgs_first": "over_layers(",
    "nero": "W*W",
    "madam": "abs(W)",
    "sso": "specnorm(W)",
    "muon_eq_rows": "orth(ema(G, beta)/",
    "muon_eq_columns": "orth(ema(G, beta)/",
    "swan": "orth(G/",
    "adam_penalised": "rho*W",
}
"""Rules that no wide way covers, by the part that is refused."""
BY_ENTRIES_ALL_THE_SAME = {
    "adam_scalar": "mean(G*G), a sum of entries where rms(G)**2 is one of singular values",
    "amos": "the same",
    "msvag": "M*M/V*M is M at the first step, where V is M*M",
}
"""Rules that commute with rotations and go by rows: a dearer way than they need."""


@pytest.mark.parametrize("name", tour())
def test_a_rule_goes_by_rows_if_and_only_if_it_looks_at_entries(name: str) -> None:
    rule = find(name).rule
    if name in DENSE_ALONE:
        with pytest.raises(InvalidInput, match="measure it with --mode dense") as refused:
            refuse_unless_wide(rule, own_only=True)
        assert f"'{DENSE_ALONE[name]}" in str(refused.value)
        return
    if name in BY_ENTRIES_ALL_THE_SAME:
        assert commutes_with_rotations(rule) and path_of(rule) is Path.ROWS
        return
    assert path_of(rule, own_only=True) is expected(rule, own_only=True)
    if name not in FIRST_STEP_ALONE:
        assert path_of(rule) is expected(rule)


def test_rules_that_every_way_refuses_are_on_a_list() -> None:
    refused = {n for n, x in catalogue().items() if path_of(x.rule) is None}
    assert refused == {*FIRST_STEP_ALONE, *DENSE_ALONE}
    spans = Coordinates(Span(axis(4)), Span(axis(3)), 2)
    for name in FIRST_STEP_ALONE:
        with pytest.raises(InvalidInput, match="with --quantity own"):
            refuse_unless_wide(find(name).rule)
        with pytest.raises(InvalidInput, match="an average of weights, in 2 steps"):
            _ = Source(find(name).rule, {}, spans).parts


def test_the_oracle_tells_rotations_from_entries() -> None:
    for text in ("G", "orth(G)", "(B + rho*I)**(-1) @ G", "ascended(radius*G/norm(G))"):
        assert commutes_with_rotations(parse(text)), text
    for text in ("sign(G)", "(diag(L) + rho*I)**(-1) @ G", "G - row_mean(G)", "ascended(G)**3"):
        assert not commutes_with_rotations(parse(text)), text


def test_the_documentation_says_who_goes_where() -> None:
    page = File(__file__).parents[1] / "docs" / "measuring.md"
    text = re.sub(r"\s+", " ", page.read_text("utf-8"))
    core = re.search(r"update of the form D C Hᵀ \(([^)]*)\)", text)
    rows = re.search(r"look at single entries \(([^…]*)…\) are made by blocks of rows", text)
    assert core is not None and rows is not None, "the statement has moved: find it again"
    for found, way in ((core, Path.CORE), (rows, Path.ROWS)):
        named = [x.strip().lower().replace("-", "") for x in found[1].split(",")]
        known = [name for name in named if name in catalogue()]
        assert len(known) >= 3, named
        assert {path_of(find(name).rule) for name in known} == {way}


# --- several looks ------------------------------------------------------------------------------

SAM, SIGN = "ascended(radius*G/norm(G))", "ascended(radius*sign(G)/norm(sign(G)))"


@pytest.mark.parametrize(
    ("text", "moves", "own", "whole", "alone"),
    [
        (SAM, Path.CORE, Path.CORE, Path.CORE, Path.CORE),
        (SIGN, Path.ROWS, Path.CORE, Path.ROWS, Path.ROWS),
        (f"sign({SAM})", Path.CORE, Path.ROWS, Path.ROWS, Path.SAMPLE),
        (f"sign({SIGN})", Path.ROWS, Path.ROWS, Path.ROWS, Path.ROWS),
    ],
)
def test_x_and_the_rule_go_their_own_ways_and_the_dearest_counts(
    text: str, moves: Path, own: Path, whole: Path, alone: Path
) -> None:
    rule = parse(text)
    assert [way_of(x) for x in perturbations(rule).values()] == [moves]
    assert way_of(rule) is own
    assert (path_of(rule), path_of(rule, own_only=True)) == (whole, alone)
    assert not any("radius" in str(x) and "ascended" not in str(x) for x in here(rule.expression))
