"""One row per operator: both halves of every row, and what a row says of numbers is so."""

import ast
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sympy import Expr
from torch import Tensor

from empirical.numbers.interpreter import evaluate
from empirical.numbers.layer_matrices import LayerTensors
from empirical.numbers.layer_values import Entries, LayerValue
from empirical.numbers.operators import MEANINGS
from scaling.models.chain import Activation
from scaling.rules import language
from scaling.rules.operators import (
    FUNCTIONS,
    OPERATORS,
    Extreme,
    Formula,
    OfEntries,
    Operator,
    SecondOperand,
    SumOfEntries,
    Symmetry,
)
from scaling.rules.parser import parse, parse_formula
from scaling.rules.tree import Node, row_of
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import HALF
from scaling.solve.derive import Derived, derive

ROOT = Path(__file__).resolve().parent.parent
ROWS = {**OPERATORS, **FUNCTIONS}
ENTRYWISE = [name for name, row in FUNCTIONS.items() if isinstance(row.reading, OfEntries)]


def test_every_row_has_both_halves() -> None:
    assert set(MEANINGS) == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_the_example_of_a_row_is_an_expression_that_uses_it(name: str) -> None:
    row = ROWS[name]
    used = [row_of(node) for node in parse_formula(row.example).walk()]
    assert row in used
    assert row.name == name
    assert row.about


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_builder_of_python_makes_what_text_makes(name: str) -> None:
    row = FUNCTIONS[name]
    tree = next(n for n in parse_formula(row.example).walk() if row_of(n) is row)
    if name in ("abs", "max", "min"):  # names of Python, of another meaning there
        assert abs(language.G) == parse_formula("abs(G)")
        assert row.builder == {"abs": "abs", "max": "maximum", "min": "minimum"}[name]
    assert getattr(language, row.builder)(*tree.children) == tree
    assert row.builder in dir(language)
    assert row.about in (getattr(language, row.builder).__doc__ or "")


def test_a_builder_that_is_no_function_of_the_language_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="no attribute 'sgin'"):
        _ = language.sgin


# --- the numbers of a row are what its reading says ----------------------------------------------


def value(text: str, x: Tensor, y: Tensor | None = None) -> Tensor:
    """A formula in G and W of one layer, whose gradient is x and whose weights are y."""
    layer = LayerTensors(
        torch.eye(x.shape[1]).double(), x.double() * x.shape[1],
        W=torch.ones_like(x).double() if y is None else y.double(),
    )  # fmt: skip
    return evaluate(parse(text), layer, {}).dense()


def of_entries(row: Operator, x: Tensor) -> Tensor:
    return value(f"{row.name}(G{', 1' if row.second else ''})", x)


@pytest.mark.parametrize("name", ENTRYWISE)
def test_a_function_of_entries_behaves_as_its_row_says(name: str) -> None:
    row = FUNCTIONS[name]
    f = row.reading
    assert isinstance(f, OfEntries)
    x = torch.tensor([[1e-12, 1e-9, 1e-6, 1e6, 1e9, 1e12]], dtype=torch.float64)
    y = of_entries(row, x)[0].abs().log() / torch.log(torch.tensor(10.0))
    for exponent, (low, high) in ((f.at_zero, (0, 1)), (f.at_infinity, (4, 5))):
        assert float(y[high] - y[low]) / 3 == pytest.approx(float(exponent), abs=1e-6)
    zero = torch.zeros(1, 2, dtype=torch.float64)
    assert of_entries(row, zero).tolist() == zero.tolist()
    inside = torch.tensor([[0.1, 0.3, 0.5, 0.9]], dtype=torch.float64)
    assert torch.equal(of_entries(row, inside), inside) == (f.straight or f.power == 1)
    if f.symmetry is Symmetry.NONE:
        with pytest.raises(Exception, match="negative entries"):
            of_entries(row, -x)
    else:
        sign = 1 if f.symmetry is Symmetry.EVEN else -1
        assert torch.equal(of_entries(row, -x), sign * of_entries(row, x))


BOUNDED = [name for name in ENTRYWISE if FUNCTIONS[name].second is SecondOperand.SCALAR]


@pytest.mark.parametrize("name", BOUNDED)
def test_a_function_of_entries_and_a_bound_is_that_of_the_quotient_times_the_bound(
    name: str,
) -> None:
    x = torch.tensor([[0.1, 2.0, -7.0, 30.0]], dtype=torch.float64)
    assert torch.allclose(value(f"{name}(G, 8)", x), 8 * value(f"{name}(G, 1)", x / 8))


SUMS = [name for name, row in FUNCTIONS.items() if row.sums]


@pytest.mark.parametrize("name", SUMS)
def test_a_sum_of_entries_is_what_its_row_says(name: str) -> None:
    reading = FUNCTIONS[name].reading
    assert isinstance(reading, SumOfEntries)
    x = torch.tensor([[0.1, 2.0, -7.0], [30.0, 1.0, -2.0]], dtype=torch.float64)
    found = value(f"{name}(G) + 0*G", x)
    shape = parse_formula(f"{name}(G)").shape
    over = [i for i, side in enumerate((shape.rows, shape.cols)) if str(side) == "1"]
    total = (x**reading.power).mean(over, keepdim=True)
    if not reading.mean:
        total = (x**reading.power).sum(over, keepdim=True)
    assert torch.allclose(found, (total ** (1 / reading.power)).expand_as(x))


NUMBERS = [
    (name, text)
    for name, row in FUNCTIONS.items()
    for text in [row.example]
    if parse_formula(text).shape.is_scalar and "over_layers" not in text
]


@pytest.mark.parametrize(("name", "text"), NUMBERS)
def test_what_is_a_number_in_the_language_is_one_in_numbers(name: str, text: str) -> None:
    seen: dict[Node, LayerValue] = {}
    layer = LayerTensors(torch.ones(3, 2).double(), torch.ones(4, 2).double(),
                         W=torch.zeros(4, 3).double())  # fmt: skip
    evaluate(parse(f"{text}*G"), layer, {}, record=seen.__setitem__)
    found = seen[parse_formula(text)]
    assert isinstance(found, Entries) and found.is_scalar, name


@pytest.mark.parametrize(
    "name", [name for name, row in FUNCTIONS.items() if isinstance(row.reading, Extreme)]
)
def test_an_extreme_of_two_numbers_is_the_one_that_its_row_says(name: str) -> None:
    reading = FUNCTIONS[name].reading
    assert isinstance(reading, Extreme)
    found = value(f"{name}(norm(G), 3)*G", torch.tensor([[4.0]]))
    assert float(found) == 4 * (4 if reading.larger else 3)


@pytest.mark.parametrize(
    "name", [name for name, row in FUNCTIONS.items() if isinstance(row.reading, Formula)]
)
def test_a_function_is_the_formula_that_gives_its_size(name: str) -> None:
    row = FUNCTIONS[name]
    assert isinstance(row.reading, Formula)
    x, y = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    formula = row.reading.text.replace("x", "G").replace("y", "W")
    operands = "G" if row.second is None else "G, W"
    assert torch.allclose(value(f"{name}({operands})", x, y), value(formula, x, y))


# --- nothing else lists functions ----------------------------------------------------------------

OWN = {
    "empirical/numbers/operators.py": "the rows",
    "empirical/black_box/atlas_rows.py": "optimizers of the catalogue, some named as functions are",
    "scaling/calculus/calls.py": "inferences of functions whose rows do not say their size",
}
MODELS = ("models", "trace")
"""Where sign and abs are operations of a network, not functions of the rule language."""
ACTIVATIONS = {phi.name.lower() for phi in Activation}
"""Names that only say what a network is made of where they stand by themselves, as in a table."""


def lists_of_functions(text: str) -> Iterator[set[str]]:
    """Literals and patterns that hold several names of functions of the language."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict | ast.MatchOr):
            held = ast.walk(node)
            names = {x.value for x in held if isinstance(x, ast.Constant)} & set(FUNCTIONS)
            if len(names) > 1 and not names <= ACTIVATIONS:
                yield names


def test_what_a_function_is_is_asked_of_its_row_and_not_of_lists_of_names() -> None:
    for package in ("scaling", "empirical"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if set(path.parts) & set(MODELS):
                continue
            found = list(lists_of_functions(path.read_text()))
            assert bool(found) == (name in OWN), (name, found)


def test_a_list_of_functions_is_seen() -> None:
    assert list(lists_of_functions('x in ("sign", "abs")')) == [{"sign", "abs"}]
    assert list(lists_of_functions('match x:\n    case "diag" | "block":\n        pass')) == [
        {"diag", "block"}
    ]
    assert not list(lists_of_functions('x in ("sign", "rule")'))


# --- documentation ------------------------------------------------------------------------------


def test_the_documentation_has_the_rows_of_today() -> None:
    filled = runpy.run_path(str(ROOT / "docs" / "fill.py"))["filled"]
    page = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    assert filled(page) == page, "python docs/fill.py docs/language.md"
    assert filled(page.replace("arctangent", "sine")) == page


def test_the_documentation_names_every_function() -> None:
    page = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    assert FUNCTIONS and all(f"| `{row.signature}` |" in page for row in FUNCTIONS.values())


# --- what follows in sizes -----------------------------------------------------------------------


def derived(text: str, step: int = 1) -> Derived:
    return derive(parse(text), step=step)


def rates(text: str) -> list[Expr]:
    return list(derived(text).exponents.c.values())


def regime_lines(text: str) -> list[str]:
    return [str(regime) for found in derived(text).regimes.values() for regime in found]


@pytest.mark.parametrize(("text", "verdicts"), [
    ("G*clip(norm(W), 10)", ["the bound is active"] * 2 + ["the bound is inactive"]),
    ("G*max(1, norm(W))", ["the larger is norm(W)", "the larger is norm(W)", "the larger is 1"]),
    ("G*atan(norm(W))", ["atan is saturated there"] * 2 + ["atan is linear there"]),
    ("G/(1 + norm(W))", ["norm(W) dominates", "norm(W) dominates", "1 dominates"]),
])  # fmt: skip
def test_a_regime_line_says_which_branch_is_active(text: str, verdicts: list[str]) -> None:
    assert [line.rpartition(": ")[2] for line in regime_lines(text)] == verdicts


@pytest.mark.parametrize("bound", ["max(rho, 1)", "max(1, rho)", "clip(rho, 1)", "rho + 1"])
def test_a_damping_under_a_bound_balances_it_like_a_sum(bound: str) -> None:
    """The extreme of two numbers of one order is of that order, whichever of both it is."""
    found = derived(f"G / (norm(G) + {bound})")
    assert {d["rho"] for d in found.exponents.d.values()} <= {0, HALF, -HALF}
    if "+" not in bound:
        assert {d["rho"] for d in found.exponents.d.values()} == {0}
    assert rates(f"G / (norm(G) + {bound})") == rates("G / (norm(G) + 1)")


LARGE = "(fan_in*fan_out)**2*G"
UNSOUND = {
    f"sign(G)/clip({LARGE}, 1)": "blow up",  # it vanishes where G does, however large entries are
    f"sign(G)/atan({LARGE})": "blow up",
    "G*sqrt(clip(norm(G) - norm(W), 1/fan_in))": "the root of a difference",  # beyond the bound too
    "orth(atan(G))*abs(G)": "full-rank polar factor",  # atan(G) is G and terms of higher rank
}


@pytest.mark.parametrize("text", UNSOUND)
def test_what_a_bound_leaves_as_it_is_stays_known(text: str) -> None:
    with pytest.raises(NotCovered, match=UNSOUND[text]):
        derived(text)


def test_a_bound_that_vanishes_with_its_operand_is_a_pole_in_numbers_too() -> None:
    """1/clip(x, 1) of large x: the mean square is that of the few small ones."""
    x = torch.randn(2, 10**6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    large = 1000 * x
    assert float((1 / large.sign()).square().mean()) == 1
    assert float((1 / large.clamp(-1, 1)).square().mean()) > 10


@pytest.mark.parametrize("text", ["orth(clip(G, 9))*abs(G)", "G*sqrt(clip(norm(G), 1/fan_in))"])
def test_what_a_bound_does_not_touch_is_read_as_it_is(text: str) -> None:
    """The controls: clip is its operand below the bound, and positive where that is."""
    assert len(rates(text)) == 3


# --- the four that were added by two rows each ---------------------------------------------------

CAUTIOUS = "ema(G, beta)*agree(ema(G, beta), G)"


@pytest.mark.parametrize(("text", "same"), [
    ("tanh(G/rms(G))", "sign(G)"), ("G*tanh(norm(W))", "G*clip(norm(W), 1)"),
    ("G*min(norm(W), 1)", "G*clip(norm(W), 1)"), ("G*min(1, 1/norm(G))", "G/max(1, norm(G))"),
    ("G/mean(abs(G))", "G/rms(G)"), ("G*sqrt(mean(G*G))", "G*rms(G)"),
    (CAUTIOUS, "ema(G, beta)"), (f"{CAUTIOUS}/mean(agree(ema(G, beta), G) + 1)", "ema(G, beta)"),
])  # fmt: skip
def test_what_has_the_size_of_another_has_its_rates(text: str, same: str) -> None:
    assert rates(text) == rates(same)


@pytest.mark.parametrize(("text", "other"), [
    ("tanh(G/rms(G))", "G"), ("G*min(norm(W), 1)", "G*max(norm(W), 1)"), ("G/mean(abs(G))", "G"),
    (CAUTIOUS, "agree(G, G)*sign(G)"),
])  # fmt: skip
def test_and_not_those_of_a_third(text: str, other: str) -> None:
    assert rates(text) != rates(other)


@pytest.mark.parametrize(("text", "why"), [
    ("tanh(orth(G + W))", "entries of a polar factor of the weights"),
    ("G*agree(G, W)", "agree, which is read as"),
    ("G*mean(G)", r"the mean of entries that may take both signs(.|\n)*mean\(abs\(X\)\)"),
    ("G*mean(G*row_mean(G))", "may take both signs"), ("G*mean(W)", "the mean of the Gaussian"),
    ("G*min(norm(W) - norm(G), 1)", "min of a number and a larger one that may be negative"),
    ("G*min(-norm(G), 1)", "min of a number and a larger one that may be negative"),
    ("G*agree(G, abs(G))", "neither odd nor even in the gradient"),
    ("G*abs(W)/agree(G, G @ A)", "a division by a difference"),
    ("sqrt(agree(G, G @ A))*G", "a root of values that may be negative"),
])  # fmt: skip
def test_what_the_calculus_does_not_know_of_them_is_refused_by_name(text: str, why: str) -> None:
    with pytest.raises(NotCovered, match=why):
        derived(text)


def test_that_a_mask_keeps_a_fraction_of_the_entries_is_assumed_aloud() -> None:
    said = "the terms of 1 + sign(ema(G, beta))*sign(G) do not cancel"
    assert said in derived(CAUTIOUS, step=2).assumptions
    assert said not in derived("ema(G, beta)", step=2).assumptions
    assert said not in derived(CAUTIOUS).assumptions  # the first average has the signs of G


def test_a_mean_of_both_signs_is_smaller_than_an_entry_in_numbers() -> None:
    """Why it is refused: it is off by a power of the width, and by its sign."""
    x = torch.randn(512, 512, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(value("G*0 + mean(abs(G))", x)[0, 0]) > 0.5
    assert abs(float(value("G*0 + mean(G)", x)[0, 0])) < 0.02
    flipped, kept = value("G*mean(G)", -x), value("G*mean(G)", x)
    assert torch.equal(flipped, kept)
