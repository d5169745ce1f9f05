"""Recursions over the steps, extremes of entries: sizes held against the simulator, and refusals.

Each row is answered, measured by a network that shares no code, and contradicted when half a power
is added to what is predicted.
"""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from soundness import Question, disagreements, practice, theory
from sympy import S

from empirical.numbers.interpreter import evaluate
from empirical.numbers.layer_matrices import LayerTensors
from empirical.numbers.state import State
from scaling.rules.parser import parse
from scaling.sizes.errors import NotCovered
from scaling.solve.derive import derive

SOME, WIDE = (128, 512), (512, 2048)
V = "ema(G*G, beta2)"
MARS = "(G + gamma*(G - previous(G)))"
ADAN = "(G + (1 - beta2)*(G - previous(G)))"
ROWS = "row_max(running_sum(G*G)), col_max(running_sum(G*G))"


def row(rule: str, c: str, widths: tuple[int, ...] = SOME, **options: object):
    return Question(rule, **options), tuple(c.split()), widths  # type: ignore[arg-type]


ANSWERED = {
    "AMSGrad": row(f"ema(G, beta1)/(sqrt(running_max({V}, 1)) + eps)", "0 1 1", step=2),
    "Adamax": row("ema(G, beta1)/(running_max(abs(G), beta2) + eps)", "0 1 1"),
    "Adamax, at the second step": row(
        "ema(G, beta1)/(running_max(abs(G), beta2) + eps)", "0 1 1", step=2, activation="tanh",
    ),
    "Adagrad's sum": row("G/(sqrt(running_sum(G*G)) + eps)", "0 1 1", step=2),
    "Yogi": row("ema(G, beta1)/(sqrt(yogi(G*G, beta2)) + eps)", "0 1 1", step=2),
    "an optimistic step": row("G + gamma*(G - previous(G))", "-1 0 1", step=2),
    "MARS": row(f"ema({MARS}, beta1)/(sqrt(ema({MARS}*{MARS}, beta2)) + eps)", "0 1 1", step=2),
    "Adan": row(
        f"(ema(G, beta1) + (1 - beta2)*ema(G - previous(G), beta2))"
        f"/(sqrt(ema({ADAN}*{ADAN}, beta3)) + eps)", "0 1 1", step=2,
    ),
    "a floor under entries": row("G/max(abs(G), eps)", "0 1 1"),
    "in proportion to the weights, from a floor on": row(
        "sign(G)*max(abs(W), eps)", "0 1/2 0", step=2,
    ),
    "a norm of rows and one of columns": row("G/sqrt(min(row_mean(G*G), col_mean(G*G)))", "0 1 1"),
    "SM3": row(f"G/(sqrt(min({ROWS})) + eps)", "0 1 1", WIDE),
    "rows by their largest entry": row("G/row_max(abs(G))", "0 1 1", WIDE, activation="tanh"),
    "all by the largest entry": row("G/entry_max(abs(G))", "0 1 1", WIDE),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERED)
def test_what_authors_write_is_answered_and_measured(name: str) -> None:
    question, c, widths = ANSWERED[name]
    answer = theory(question)
    assert not answer.refusal
    assert answer.exponents is not None
    assert tuple(map(str, answer.exponents.c.values())) == c
    measured = practice(question, answer.exponents, widths, 8 if widths is SOME else 3)
    assert disagreements(answer, measured) == {}
    wrong = replace(answer, own={k: x + S.Half for k, x in answer.own.items()})
    assert set(disagreements(wrong, measured)) == set(answer.own)


REFUSED = {
    "G/previous(abs(G))": "a division by a sum over samples, neurons or steps",
    "G*running_max(G, 1)": "running_max of values that may be negative",
    "G*yogi(G, beta)": "yogi of values that may be negative",
    "max(G, 0*G)": "max of a gradient-like matrix, odd in G whose entries may be negative",
    "sign(G)*min(abs(W), eps)": "min of a positive function of W",
    "G*min(1/sqrt(sqrt(abs(G))), 1)": "the smaller of entries that blow up",
    "G/row_max(G)": "the largest entry of a gradient-like matrix, odd in G, which may be negative",
    "G*entry_max(1/sqrt(sqrt(abs(G))))": "the largest of entries that blow up",
    "G/sqrt(min(abs(G), 1))**3": "blow up",
    "G + (running_max(G*G, 1) - G*G)*G": "which may cancel",
}


@pytest.mark.parametrize("rule", REFUSED)
def test_what_is_not_known_of_them_is_refused_by_name(rule: str) -> None:
    assert REFUSED[rule] in theory(Question(rule, step=2)).refusal


def test_a_refusal_offers_the_function_of_absolute_values() -> None:
    for written, offered in {
        "G*running_max(G, 1)": "running_max(abs(G), 1)", "G/row_max(G)": "row_max(abs(G))",
    }.items():  # fmt: skip
        with pytest.raises(NotCovered) as refusal:
            derive(written)
        assert offered in str(refusal.value)
        assert derive(written.replace("(G,", "(abs(G),").replace("x(G)", "x(abs(G))"))


def test_maxima_are_read_up_to_logarithms_and_say_so() -> None:
    said = theory(Question("G/row_max(abs(G))")).assumptions
    assert any("row_max(abs(G)) is read up to logarithms of the width" in x for x in said)
    assert not any("logarithms" in x for x in theory(Question("G/row_mean(abs(G))")).assumptions)


# --- numbers, against the recursions as papers write them ----------------------------------------


def steps(text: str, count: int = 3, **values: float) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Gradients (count, 5, 4), and what the rule makes of the last one."""
    gradients = torch.randn(count, 5, 4, generator=torch.Generator().manual_seed(0)).double()
    state, rule = State(), parse(text)
    for g in gradients:
        layer = LayerTensors(torch.eye(4).double(), 4 * g, W=torch.ones(5, 4).double())
        found = evaluate(rule, layer, values, state).dense()
    return list(gradients), found


def test_recursions_are_those_of_the_papers() -> None:
    (x, y, z), found = steps("G*running_max(G*G, 3/4)")
    by_hand = torch.maximum(torch.maximum(9 / 16 * x**2, 3 / 4 * y**2), z**2)
    assert torch.allclose(found, z * by_hand)
    (x, y, z), found = steps("G*running_sum(G*G)")
    assert torch.allclose(found, z * (x**2 + y**2 + z**2))
    (x, y, z), found = steps("G - previous(G)")
    assert torch.allclose(found, z - y)
    assert torch.equal(steps("G - previous(G)", 1)[1], torch.zeros(5, 4).double())
    (x, y, z), found = steps("G*yogi(G*G, 3/4)")
    v = torch.zeros(5, 4).double()
    for g in (x, y, z):
        v = v - (1 - 3 / 4) * (v - g**2).sign() * g**2
    assert torch.allclose(found, z * v)


def test_a_sum_of_factors_stays_in_factors_and_is_what_dense_matrices_add_up_to() -> None:
    (x, y, z), found = steps("(running_sum(L) + 1/2*I)**(-1/2) @ G")
    total = sum(g @ g.T for g in (x, y, z)) + torch.eye(5).double() / 2
    e, q = torch.linalg.eigh(total)
    assert torch.allclose(found, q @ torch.diag(e**-0.5) @ q.T @ z)


def test_amsgrad_and_adamax_are_torch_s() -> None:
    cases = [
        ("debiased(G, 9/10)/(sqrt(running_max(ema(G*G, 3/4), 1)/(1 - 9/16)) + 1e-8)",
         torch.optim.Adam, {"amsgrad": True, "betas": (0.9, 0.75)}),
        ("debiased(G, 9/10)/(running_max(abs(G), 3/4) + 1e-8)",
         torch.optim.Adamax, {"betas": (0.9, 0.75)}),
    ]  # fmt: skip
    for text, kind, options in cases:
        gradients, found = steps(text, 2, eps_1=1e-8)
        w = torch.nn.Parameter(torch.zeros(5, 4).double())
        optimizer = kind([w], lr=1.0, **options)
        for g in gradients:
            old, w.grad = w.detach().clone(), g
            optimizer.step()
        assert torch.allclose(old - w, found, rtol=1e-5)


def test_what_stands_near_an_optimizer_outside_of_the_language_is_a_rule_that_is_accepted() -> None:
    page = (Path(__file__).parent.parent / "docs" / "optimizers.md").read_text(encoding="utf-8")
    rows = page.partition("outside of the language")[2].splitlines()
    cells = [row.split(" | ")[-1] for row in rows if row.startswith("| ") and " | " in row]
    found = [text for cell in cells for text in re.findall(r"`([^`]*G[^`]*)`", cell)]
    rules = [text for text in found if "=" not in text]
    assert len(rules) >= 8
    for text in rules:
        assert derive(text.replace("U*U", f"({ADAM})*({ADAM})"))


ADAM = "ema(G, beta1)/(sqrt(ema(G*G, beta2)) + eps)"
