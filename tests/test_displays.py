"""Results show themselves in notebooks: every public result, as valid HTML and as LaTeX."""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import html5lib
import pytest
from sympy import S

import scaling
from derivations.catalogue import catalogue
from scaling.models.architectures import perceptron, transformer
from scaling.report.rule_latex import formula
from scaling.report.step_lines import Derivation
from scaling.sizes.in_notebook import InNotebook
from scaling.solve.graph_solution import derive_graph
from scaling.solve.phases import phases
from scaling.solve.predict import predict

KFAC = "(B + rho_B*I)**(-e_B) @ G @ (A + rho_A*I)**(-e_A)"


def measured() -> Any:
    from empirical.fit.exponent import estimate
    from empirical.fit.verdict import Verdict
    from empirical.verify.verification import Check, Verification

    fit = estimate([64, 128, 256], [[1.0, 1.0, 1.0], [1.0, 1.1, 1.0]])
    check = Check("sgd", "hidden", "own", S.Zero, fit, Verdict.agree)
    return Verification((check,), (), 2, 0.1, 0.0, ())


def window() -> Any:
    from scaling.cli.requests import literal_of, problem_of

    problem = problem_of("sgd", ["b_output=x", "c=y"], practice=True)
    return phases(predict(problem, *literal_of(problem)), "b_output", "c", ["0", "2", "-1", "2"])


def kfac() -> Any:
    return scaling.derive(KFAC)


RESULTS: dict[str, tuple[Callable[[], Any], str]] = {
    "rule": (lambda: scaling.parse(KFAC), "(A + rho_A*I)**(-e_A)"),
    "derived": (kfac, "-e_A + e_B"),
    "derivation": (
        lambda: Derivation(kfac().problem.rule, "hidden layer", kfac().steps["hidden"]),
        "push-through",
    ),
    "step": (lambda: kfac().steps["hidden"], "push-through [8] [11]"),
    "predicted": (lambda: predict(kfac().problem, kfac().exponents), "maximal"),
    "compared": (
        lambda: scaling.compare(
            *(x for rule in ("G", "sign(G)") for x in _table(scaling.derive(rule)))
        ),
        "differs",
    ),
    "inverse": (lambda: scaling.solve_for(KFAC, "e_A,e_B", "c=0"), "answer: e_A = 1, e_B = 1"),
    "phases": (window, "unstable"),
    "graph": (lambda: transformer("width"), "<svg"),
    "graph derived": (lambda: derive_graph("sign(G)", perceptron(3)), "its own product"),
    "measured": (measured, "verdict: agree (1 agree)"),
}


def _table(found: Any) -> tuple[Any, Any]:
    return found.problem, found.exponents


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_shows_itself_as_html_and_as_latex(name: str) -> None:
    make, told = RESULTS[name]
    result = make()
    html, latex = result._repr_html_(), result._repr_latex_()
    parser = html5lib.HTMLParser()
    parser.parseFragment(html)
    assert not parser.errors, parser.errors[:3]
    assert told in html.replace("&lt;", "<")
    if isinstance(result, InNotebook):
        printed: list[str] = []
        type(result).__dict__["_repr_pretty_"](result, SimpleNamespace(text=printed.append), False)
        assert printed[0].strip() and max(map(len, printed[0].splitlines())) <= 100
    assert balanced(latex) and re.search(r"\\begin\{(tabular|align)\}|\$\\displaystyle", latex)


def balanced(text: str) -> bool:
    """Whether brackets and environments close, outside of comments."""
    text = "\n".join(line for line in text.splitlines() if not line.startswith("% "))
    depth = 0
    for found in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if found == "{" else -1
        if depth < 0:
            return False
    pairs = ((r"\\begin\{", r"\\end\{"), (r"\\left", r"\\right"))
    return depth == 0 and all(
        len(re.findall(a, text)) == len(re.findall(b, text)) for a, b in pairs
    )


# --- plans and checks of a model: all that the table holds is shown -------------------------------


def build(width: int = 8) -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2, bias=False))


def batch() -> Any:
    import torch

    return torch.eye(3), torch.ones(3, 2)


def planned() -> Any:
    from empirical import plan

    tuned = {"lr": 3e-3, "eps": 1e-8, "decay": 0.1}
    return plan(build, batch, "adamw", {"width": 8}, {"width": 32}, tuned)


def checked() -> Any:
    from empirical import check

    return check(build, batch, "sign(G)", "width=8,16,32", seeds=(0, 1))


MODEL_RESULTS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "plan": (planned, ["2.weight", "0.00075", "2.5e-09", "width 8 -> 32", "assumed: "]),
    "check": (checked, ["0.weight", "2.weight", "own", "needed", "2 seeds", "assumed: "]),
}


@pytest.mark.parametrize("name", MODEL_RESULTS)
def test_a_plan_or_a_check_shows_its_whole_table(name: str) -> None:
    from empirical.report.measured_notebook import shown

    make, told = MODEL_RESULTS[name]
    result = make()
    html, latex, text = result._repr_html_(), result._repr_latex_(), shown(result, "text")
    tree = html5lib.parseFragment(html, namespaceHTMLElements=False)
    cells = [["".join(x.itertext()) for x in row if x.tag in "th td"] for row in tree.iter("tr")]
    head, *rows = cells
    assert rows and {len(row) for row in rows} == {len(head)}
    words = "".join(tree.itertext())
    assert not [x for x in told if x not in words] and not [x for x in told if x not in text]
    body = latex.replace("\\_", "_").replace("\\allowbreak ", "")
    for row in rows:
        assert any(all(cell in line for cell in row) for line in body.splitlines()), row
    assert balanced(latex) and latex.count("&") >= (len(head) - 1) * (len(rows) + 1)


def test_the_check_of_latex_sees_what_does_not_close() -> None:
    assert balanced(r"\frac{a}{b} \left(x\right)")
    assert not balanced(r"\frac{a}{b") and not balanced(r"\left(x") and not balanced("}{")


def test_every_result_that_public_functions_return_is_shown() -> None:
    """The classes of the printers are all that have the mixin; a new one has a place there."""
    import empirical.report.measured_notebook as measured
    import scaling.report.notebook as printed

    def below(kind: type) -> set[type]:
        return {x for sub in kind.__subclasses__() for x in ({sub} | below(sub))}

    known = [x for module in (measured, printed) for x in vars(module).values()]
    shown = below(InNotebook)
    assert len(shown) > 12 and not [kind for kind in shown if kind not in known]


def test_every_rule_of_the_catalogue_is_written_as_mathematics() -> None:
    for name, declared in catalogue().items():
        text = re.sub(r"_\{\w+\}", "", formula(declared.rule.expression))
        assert balanced(text), name
        for matrix in "GABLRW":
            has = any(str(node) == matrix for node in declared.rule.expression.walk())
            assert has == bool(re.search(rf"(?<![\\a-zA-Z]){matrix}(?![a-zA-Z])", text)), name
    assert formula(scaling.parse("(G + G)*2 - (G - G)").expression) == (
        r"\left(G + G\right) 2 - \left(G - G\right)"
    )
    assert formula(scaling.parse("G * G * sign(G)").expression).count(r"\odot") == 2
