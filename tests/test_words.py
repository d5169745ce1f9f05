"""Words: heads of docstrings name their subject, and advice can be followed."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sympy import S

from empirical.fit.exponent import estimate
from empirical.fit.verdict import Verdict, agreeing_margin, judge
from empirical.your_model.coordinate_check import REACH, _advice
from scaling.models.chain import Setting, mlp
from scaling.solve.derive import derive

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("scaling", "derivations", "empirical")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
QUESTION = re.compile(r"(of )?(what|whose|which|whom)\b", re.IGNORECASE)


def heads(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield (ast.get_docstring(node) or "").split("\n")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_head_of_a_docstring_names_its_subject(path: Path) -> None:
    assert [head for head in heads(path) if QUESTION.match(head)] == []


def test_heads_that_are_questions_are_found() -> None:
    assert QUESTION.match("What is known") and QUESTION.match("of which one")
    assert not QUESTION.match("Whatever the width") and not QUESTION.match("The value")


VAGUE = re.compile(r"(fix|rewrite|change|correct) (it|this|that|the \w+)|write it out|see --help")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_advice_offers_something_that_would_be_accepted(path: Path) -> None:
    texts = [
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [text for text in texts if VAGUE.fullmatch(text)] == []


def test_vague_advice_is_found() -> None:
    assert all(VAGUE.fullmatch(x) for x in ("fix it", "rewrite this", "fix the value"))
    assert not VAGUE.fullmatch("write for example 0.1")


WIDTHS = (64, 128, 256, 512, 1024)
SLOW = estimate(WIDTHS, [[m**0.06 * (1 + 0.9 * m**-0.5) for m in WIDTHS]] * 3)
NOISY = estimate(WIDTHS, [[m**-x * s for m in WIDTHS] for s, x in ((1, 0.3), (2, 0.7))])


@pytest.mark.parametrize("fit", [SLOW, NOISY])
@pytest.mark.parametrize("margin", [0.001, 0.05, 0.061, 0.09])
@pytest.mark.parametrize("target", [0.0, -0.5, 0.1])
def test_no_advice_asks_for_widths_out_of_reach(fit, margin: float, target: float) -> None:
    verdict = judge(fit, target, margin)
    advice = _advice(fit, target, margin, verdict)
    assert all(int(x) <= REACH for x in re.findall(r"widths up to (\d+)", advice))
    for margin in map(float, re.findall(r"margin=([\d.]+)", advice)):
        assert judge(fit, target, margin) is Verdict.agree
        assert agreeing_margin(fit, target) == margin


def test_a_width_out_of_reach_is_met_with_a_margin() -> None:
    advised = [_advice(SLOW, 0.0, m / 1000, judge(SLOW, 0.0, m / 1000)) for m in range(20, 90)]
    assert any("no width up to 16,384 settles it: margin=" in advice for advice in advised)


CLIPPED = "G/max(1, sqrt(over_layers(norm(G)**2))/bound)"


@pytest.mark.parametrize("biases", [False, True])
def test_adam_after_clipping_by_the_global_norm_needs_a_smaller_eps(biases: bool) -> None:
    """The output layer's |G| ~ M^(1/2) leads the norm: every entry shrinks by M^(-1/2)."""
    setting = Setting(mlp(3, biases))
    adam = "ema(X, b1)/(sqrt(ema(X*X, b2)) + eps) + decay*W where X = "
    plain, clipped = (derive(adam + x, setting=setting).exponents for x in ("1*G", CLIPPED))
    assert plain.c == clipped.c and plain.b == clipped.b
    for layer, d in plain.d.items():
        assert clipped.d[layer] == {"eps": d["eps"] + S.Half, "decay": d["decay"]}
