"""Every result in every format: complete, escaped, well-formed, and JSON by the interface."""

import html
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from html.parser import HTMLParser
from typing import Any

import pytest
from sympy import Max, S, Symbol, sympify
from tour import tour

from derivations.catalogue import catalogue
from scaling.models.chain import Activation, Setting, mlp
from scaling.models.settings import read_settings
from scaling.report.as_json import (
    compared_json,
    derived_json,
    predicted_json,
    steps_json,
    to_json,
)
from scaling.report.step_lines import SIZE_OF, Derivation, render_steps
from scaling.report.tables import (
    Format,
    Table,
    compared_table,
    derived_table,
    predicted_table,
    render,
)
from scaling.report.wrapping import WIDTH, titled, wrapped
from scaling.rules.named_parts import split, words
from scaling.rules.parser import parse, parse_formula
from scaling.rules.tree import Node
from scaling.sizes.derivation import Step
from scaling.solve.derive import Derived, derive
from scaling.solve.predict import Prediction, predict
from scaling.solve.symmetry import compare
from scaling.states.problem import CONVENTION, Exponents, Problem

LAYERS = mlp(3, biases=True)
TABULAR = [Format.TEXT, Format.MARKDOWN, Format.LATEX, Format.HTML]
# rules and settings that between them print Max, oo, free symbols, assumptions and regimes
CASES: dict[str, tuple[str, list[str]]] = {
    **{name: (name, []) for name in tour()},
    "readout beta": ("kfac", ["b_output=beta"]),
    "readout zero": ("kfac", ["b_output=oo"]),
    "constant damping": ("kfac", ["d_rho_A=0", "d_rho_B=0"]),
    "open damping": ("shampoo", ["d_rho_L=delta", "b_output=beta"]),
    "written rule": ("G @ (A + rho*I)**(-e) + W*fan_in**(-1/2)", ["e=1/3"]),
    "sums": ("G / (sqrt(G*G + norm(G)**2) + eps) - sign(G)*abs(G)**(1/2)", []),
}


@cache
def solve(name: str) -> Derived:
    rule, given = CASES[name]
    known = catalogue()[rule].rule if rule in catalogue() else parse(rule)
    return derive(known, read_settings(given, known, LAYERS), Setting(LAYERS))


@cache
def foresee(name: str) -> Prediction:
    found = solve(name)
    return predict(found.problem, found.exponents, found.bounds)


def contrast(name: str) -> Table:
    found, other = solve(name), solve("sgd")
    right = Exponents(*(getattr(other.exponents, k) for k in "abcd"))
    result = compare(found.problem, found.exponents, other.problem, right)
    return compared_table("left <one>", "right & two", result)


TABLES: dict[str, Callable[[str], Table]] = {
    "derive": lambda name: derived_table(solve(name)),
    "predict": lambda name: predicted_table(foresee(name)),
    "compare": contrast,
}
each_case = pytest.mark.parametrize("name", CASES)


# --- well-formedness, format by format ------------------------------------------------------------


def check_text(text: str, table: Table) -> None:
    lines = text.split("\n")
    start = next(i for i, line in enumerate(lines) if set(line) == {"-", " "}) + 1
    assert lines[: start - 3] == titled(table.title)
    end = lines.index("", start)
    shown = [[str(c) for c in row if c not in (None, "")] for row in table.rows]
    if len(shown) == end - start:
        assert [re.split(r"\s{2,}", line) for line in lines[start:end]] == shown
    else:  # too wide: a row takes several lines
        words = sorted(word for row in shown for cell in row for word in cell.split())
        assert sorted(" ".join(lines[start:end]).split()) == words
    assert lines[end + 1 :] == [line for note in table.notes for line in wrapped(note)]
    assert max(map(len, lines)) <= WIDTH


def check_markdown(text: str, table: Table) -> None:
    rows = [line for line in text.split("\n") if line.startswith("|")]
    assert len(rows) == len(table.rows) + 2
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {len(table.columns) + 1}
    assert all(f"* {note}" in text for note in table.notes)


def check_latex(text: str, table: Table) -> None:
    body = [line for line in text.split("\n") if not line.startswith("%")]
    check_braces("\n".join(body))
    assert body[0] == rf"\begin{{tabular}}{{{'l' * len(table.columns)}}}"
    assert body[-1] == r"\end{tabular}"
    rows = [line for line in body if line.endswith(r"\\")]
    assert len(rows) == len(table.rows) + 1
    for row in rows:
        assert len(re.findall(r"(?<!\\)&", row)) == len(table.columns) - 1
        check_escapes(row)


def check_braces(text: str) -> None:
    depth = 0
    for i, brace in re.findall(r"(?<!\\)()([{}])", text):
        depth += 1 if brace == "{" else -1
        assert depth >= 0, i
    assert depth == 0
    assert text.count(r"\begin") == text.count(r"\end")
    assert text.count(r"\left") == text.count(r"\right")


def check_escapes(row: str) -> None:
    prose = re.sub(r"\$[^$]*\$", "", row)
    assert re.search(r"(?<!\\)[_^#~]", prose) is None, prose
    assert row.count("$") % 2 == 0


def check_html(text: str, table: Table) -> None:
    seen = _Tags()
    seen.feed(text)
    assert seen.open == []
    assert seen.count["tr"] == len(table.rows) + 1
    assert seen.count["td"] == len(table.rows) * len(table.columns)
    assert seen.count["li"] == len(table.notes)
    assert set(seen.count) <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert html.unescape(table.title) in "".join(seen.data)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: Counter[str] = Counter()
        self.data: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert not attrs
        self.open.append(tag)
        self.count[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.data.append(data)


CHECKS: Mapping[Format, Callable[[str, Table], None]] = {
    Format.TEXT: check_text,
    Format.MARKDOWN: check_markdown,
    Format.LATEX: check_latex,
    Format.HTML: check_html,
}


@each_case
@pytest.mark.parametrize("kind", TABLES)
def test_a_table_is_well_formed_and_complete_in_every_format(kind: str, name: str) -> None:
    table = TABLES[kind](name)
    for style in TABULAR:
        CHECKS[style](render(table, style), table)
    assert str(table) == render(table, Format.TEXT)
    assert table._repr_html_() == render(table, Format.HTML)


def test_what_is_special_in_a_format_is_escaped() -> None:
    nasty = "a|b <script>alert(1)</script> & x_1^2 100% #~ \\cmd"
    table = Table(
        nasty, ("one|", "<two>"), ((nasty, S.Half), ("x", Max(0, Symbol("e_A")))), (nasty,)
    )
    for style in TABULAR:
        text = render(table, style)
        if style is Format.HTML:
            check_html(text, table)
            assert "<script>" not in text
        elif style is Format.LATEX:
            check_latex(text, table)
        elif style is Format.MARKDOWN:
            check_markdown(text, table)


@pytest.mark.parametrize("name", ["kfac", "shampoo", "adam"])
def test_a_rule_in_a_markdown_title_is_no_emphasis(name: str) -> None:
    table = derived_table(solve(name))
    title = render(table, Format.MARKDOWN).split("\n")[0]
    prose = re.sub(r"`[^`]*`|\\\*", "", title.removeprefix("**").removesuffix("**"))
    assert "*" not in prose


def test_the_convention_is_printed_under_every_table_of_exponents() -> None:
    for style in TABULAR:
        text = html.unescape(render(derived_table(solve("kfac")), style))
        assert CONVENTION in " ".join(text.split())


def test_the_numbers_of_a_table_are_those_of_the_solution() -> None:
    text = render(derived_table(solve("kfac")), Format.TEXT)
    rows = {line.split()[0]: re.split(r"\s{2,}", line) for line in text.split("\n")[4:10]}
    assert rows["input"] == ["input", "0", "0", "e_B - 1", "1", "0"]
    assert rows["hidden"] == ["hidden", "0", "1/2", "-e_A + e_B", "1", "-1"]
    assert rows["output_bias"] == ["output_bias", "0", "0", "0", "0", "0"]
    assert "$1 - e_{A}$" in render(derived_table(solve("kfac")), Format.LATEX)


def test_a_silent_prediction_says_so() -> None:
    names = [layer.name for layer in mlp(3)]
    zero = dict.fromkeys(names, S.Zero)
    b = dict(zip(names, (S.Zero, S.Half, S.Half), strict=True))
    result = predict(Problem(parse("G")), Exponents(zero, b, zero, {name: {} for name in names}))
    assert "not covered" in render(predicted_table(result), Format.TEXT)
    assert predicted_json(result)["layers"]["output"]["feature"] is None


# --- derivations ----------------------------------------------------------------------------------


def steps_of(name: str) -> list[tuple[str, Step]]:
    return list(solve(name).steps.items())


def derivation(name: str, layer: str) -> Derivation:
    found = solve(name)
    return Derivation(found.problem.rule, layer, found.steps[layer])


@each_case
def test_a_derivation_prints_every_step_once_premises_first(name: str) -> None:
    for layer, step in steps_of(name):
        steps, shown = step.lines(), derivation(name, layer)
        text = render_steps(shown, Format.TEXT)
        assert text.startswith("\n".join(titled(shown.title)) + "\n\n")
        assert max(map(len, text.split("\n"))) <= WIDTH
        line = r"^ *(\d+)  (.*?)\s+~ (\S.*?)\s+(entry|spectral|Frobenius|)\s*\[(.*)\]$"
        printed = re.findall(line, text, re.MULTILINE)
        assert [int(number) for number, *_ in printed] == list(range(1, len(steps) + 1))
        flat = " ".join(text.split())
        for (number, what, size, of, why), x in zip(printed, shown.lines(), strict=True):
            step = steps[int(number) - 1]
            assert x.step == step and (x.subject, str(step.result)) == (what, size), number
            assert of == SIZE_OF[step.result.of], number
            inference, _, inputs = why.partition(" of ")
            assert inference == step.inference.name
            cited = [int(i) for i in inputs.split(", ")] if inputs else []
            assert [steps[i - 1] for i in cited] == list(step.inputs)
            assert all(i < int(number) for i in cited)
            assert x.numbers in flat and x.assuming in flat


def spelt_out(text: str, lines: list[str]) -> str:
    """The text with every [k] replaced by what line k is about, in brackets."""
    while re.search(r"\[(\d+)\]", text):
        text = re.sub(r"\[(\d+)\]", lambda x: f"({lines[int(x[1]) - 1]})", text)
    return text


@each_case
def test_references_and_names_spell_out_to_the_expression_itself(name: str) -> None:
    cited = 0
    for layer, _ in steps_of(name):
        shown = derivation(name, layer)
        _, where, parts = shown.title.partition(" where ")
        subjects = [x.subject for x in shown.lines()]
        for x in shown.lines():
            node = x.step.node
            if isinstance(node, Node) and x.step.subject == str(node):
                text = spelt_out(x.subject, subjects)
                used = _needed(text, parts) if where else ""
                assert parse_formula(f"{text}{used}") == node, (x.subject, str(node))
                cited += text != x.subject
    assert cited or name not in ("h_fac", "sums")


def _needed(text: str, parts: str) -> str:
    """The definitions behind a text: a part that nothing uses is refused."""
    _, defined = split(f"G where {parts}")
    wanted = words(text)
    for part in reversed(defined):
        if part.name in wanted:
            wanted |= words(part.text)
    chosen = [str(part) for part in defined if part.name in wanted]
    return f" where {', '.join(chosen)}" if chosen else ""


@each_case
def test_a_derivation_is_well_formed_in_every_format(name: str) -> None:
    for layer, step in steps_of(name):
        count = len(step.lines())
        shown = derivation(name, layer)
        latex = render_steps(shown, Format.LATEX)
        body = latex.split("\n")[1:]
        assert (body[0], body[-1]) == (r"\begin{align}", r"\end{align}")
        assert len(body) == count + 2
        assert [line.endswith(r" \\") for line in body[1:-1]] == [True] * (count - 1) + [False]
        assert [int(x) for x in re.findall(r"\\tag\{(\d+)\}", latex)] == list(range(1, count + 1))
        for line in body[1:-1]:
            check_braces(line)
            assert len(re.findall(r"(?<!\\)&", line)) == 3
            for prose in re.findall(r"\\text\{((?:[^{}]|\{[^{}]*\})*)\}", line):
                check_escapes(prose)
        seen = _Tags()
        seen.feed(render_steps(shown, Format.HTML))
        assert seen.open == []
        assert seen.count["td"] == 7 * count
        markdown = render_steps(shown, Format.MARKDOWN).split("\n")
        rows = [line for line in markdown if line.startswith("|")]
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {8}
        assert len(rows) == count + 2


# --- JSON -----------------------------------------------------------------------------------------


INTERFACE = {
    "rule", "name", "layers", "free", "assumptions", "regimes", "crossovers", "convention",
}  # fmt: skip


def same(text: str, value: Any) -> bool:
    symbols = {str(x): x for x in value.free_symbols}  # sympify alone reads beta as a function
    return bool(sympify(text, locals=symbols) == value)


@each_case
def test_derive_as_json_has_the_keys_and_values_of_the_interface(name: str) -> None:
    found = solve(name)
    payload = json.loads(to_json(derived_json(found)))
    assert set(payload) >= INTERFACE
    assert set(payload) <= INTERFACE
    assert payload["rule"] == str(found.problem.rule)
    assert parse(payload["rule"]).expression == found.problem.rule.expression
    assert payload["name"] == found.problem.rule.name
    assert payload["convention"] == CONVENTION
    assert payload["free"] == list(found.free)
    assert payload["assumptions"] == list(found.assumptions)
    assert list(payload["layers"]) == [layer.name for layer in LAYERS]
    for layer, row in payload["layers"].items():
        assert set(row) == {"a", "b", "c", "d"}
        for key in "abc":
            value = getattr(found.exponents, key)[layer]
            assert same(row[key], value), (layer, key, row[key], value)
        assert list(row["d"]) == list(found.problem.rule.scaled)
        for rho, text in row["d"].items():
            assert same(text, found.exponents.d[layer][rho]), (layer, rho, text)


def test_derive_as_json_has_no_key_beyond_the_interface() -> None:
    assert set(derived_json(solve("kfac"))) == INTERFACE


@each_case
def test_predict_as_json_has_the_keys_and_values_of_the_interface(name: str) -> None:
    found = foresee(name)
    payload = json.loads(to_json(predicted_json(found)))
    assert {"rule", "layers"} <= set(payload) <= INTERFACE - {"free", "regimes"}
    for layer, row in payload["layers"].items():
        decays = {"shrink"} if found.problem.rule.decays else set()
        decays |= {"ascent"} if found.problem.rule.ascents else set()
        ascents = ["ascent"] if found.problem.rule.ascents else []
        assert set(row) == {"init", "own", "feature", "regime", *decays, *ascents}
        for key in ("init", "own", "feature", *decays):
            assert same(row[key], getattr(found.layers[layer], key)), (layer, key)
        assert row["regime"] == str(found.layers[layer].regime)


@each_case
def test_a_derivation_as_json_holds_the_same_tree(name: str) -> None:
    def check(payload: dict[str, Any], step: Step) -> None:
        assert set(payload) == {
            "inference", "subject", "exponent", "of", "numbers", "assumption", "inputs",
        }  # fmt: skip
        value = -S.Infinity if step.result.is_zero else step.result.width
        assert same(payload["exponent"], value)
        assert (payload["subject"], payload["assumption"]) == (step.subject, step.assumption)
        for one, other in zip(payload["inputs"], step.inputs, strict=True):
            check(one, other)

    for layer, step in steps_of(name):
        payload = json.loads(to_json(steps_json(layer, step)))
        assert payload["title"] == layer
        check(payload["derivation"], step)


def test_compare_as_json_names_each_difference() -> None:
    one, other = solve("kfac"), solve("constant damping")
    result = compare(one.problem, one.exponents, other.problem, other.exponents)
    payload = json.loads(to_json(compared_json("x", "y", result)))
    assert payload["equivalent"] is False
    assert {"layer": "hidden", "exponent": "d_rho_A", "left": "-1", "right": "0"} in (
        payload["differences"]
    )
    assert payload["left"]["name"] == "x"


def test_json_refuses_what_is_no_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"x": float("nan")})
    with pytest.raises(TypeError):
        to_json({"x": S.Half})


def test_the_activation_stands_in_the_derivation_of_a_mean() -> None:
    for activation in (Activation.RELU, Activation.TANH):
        found = derive(parse("row_mean(G) @ col_mean(G*G)"), setting=Setting(activation=activation))
        shown = Derivation(found.problem.rule, "hidden", found.steps["hidden"])
        assert f"activation {activation.label}" in render_steps(shown, Format.TEXT)
