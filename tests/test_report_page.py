"""The page of `scaling report`: valid, self-contained, complete, and readable in a browser."""

import gc
import html
import json
import re
import shutil
import subprocess
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import html5lib
import pytest
from sympy import Rational, S
from typed import Typed, exit_code

from empirical.data.sources import load
from empirical.fit.verdict import Verdict
from empirical.report.html_page import page
from empirical.report.inline_plots import plots_of_model
from empirical.report.page_sections import (
    Section,
    beside_line,
    chain_section,
    model_section,
    moved_by,
)
from empirical.verify.campaign import RunRequest, lines_experiment, trial_of
from empirical.verify.graph_verification import answer_starts
from scaling.cli.modelling import answer_of, measured_models
from scaling.cli.options import ModelOptions, SweepRun
from scaling.cli.reporting import lines_or_why
from scaling.cli.requests import problem_of, solution_of, subject_of
from scaling.report.drawn_graph import drawings, size_text
from scaling.report.graph_tables import tensor_steps
from scaling.states.moved_state import two_states

ROOT = Path(__file__).resolve().parent.parent
MODEL = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mix, self.norm = nn.Linear(width, width, bias=False), nn.LayerNorm(width)

    def forward(self, x):
        return x + torch.relu(self.mix(self.norm(x)))

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.read, self.block = nn.Linear(6, width, bias=False), Block(width)
        self.out = nn.Linear(width, 2, bias=False)

    def forward(self, x):
        return self.out(self.block(self.read(x)))

def build(width=16):
    return Net(width)

def batch():
    torch.manual_seed(0)
    return torch.randn(8, 6), torch.randn(8, 2)
"""


class Pages(NamedTuple):
    chain: str
    model: str
    found: Any
    """Of the model: the answer, what was measured, the section."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    folder = tmp_path_factory.mktemp("pages")
    out, file = folder / "kfac.html", folder / "net.py"
    sweep = ("--widths", "32,64,128", "--seeds", "2", "--samples", "4", "--threads", "1")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as told:
        code = exit_code(("report", "kfac", *sweep, "--out", str(out)), patch)
    gc.enable()  # `main` switches it off
    assert code in (0, 1, 3) and f"written: {out}" in told.getvalue()
    file.write_text(MODEL)
    model = ModelOptions(str(file), ["width=16,32,64"])
    answer, notes = answer_of("sign(G)", model, None)
    measured = measured_models("sign(G)", model, SweepRun(seeds=2), None)[0]
    section = model_section(answer, notes, measured)
    text = page([section], "scaling report 'sign(G)'", "width", "<b>net</b>.py")
    return Pages(out.read_text(), text, (answer, measured, section))


# --- the file -------------------------------------------------------------------------------------


def faults(text: str) -> list[str]:
    """Errors of HTML5, names used twice, references to nothing, and what needs a network."""
    parser = html5lib.HTMLParser()
    tree = parser.parse(text)
    found = [f"{error[1]} at {error[0]}" for error in parser.errors]
    elements = list(tree.iter())
    names = Counter(x.attrib["id"] for x in elements if "id" in x.attrib)
    found += [f"id {name} twice" for name, n in names.items() if n > 1]
    for x in elements:
        for key, value in x.attrib.items():
            refers = re.findall(r"url\(#([^)]*)\)", value)
            if str(key).endswith("href") and value.startswith("#"):
                refers.append(value[1:])
            found += [f"#{name} is nothing" for name in refers if name not in names]
            outside = re.search(r"https?:|//|\bfile:", value)
            if outside and str(key) not in ("d",):
                found.append(f"{key}={value[:40]}")
        loads = str(x.tag).rpartition("}")[2] in ("script", "img", "iframe", "link")
        if loads and x.attrib.get("href") != "data:,":
            found.append(f"a {x.tag}")
    return found + re.findall(r"@import[^;]*|url\((?!#)[^)]*\)", text)


def test_a_page_is_valid_html_that_needs_no_network(pages: Pages) -> None:
    assert faults(pages.chain) == [] and faults(pages.model) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("</main>", ""),
        ("<h3>Derivations</h3>", '<p id="main"></p>'),
        ('href="#main"', 'href="#nowhere"'),
        ("<h3>Derivations</h3>", '<img src="https://example.org/a.png" alt="">'),
    ],
    ids=["unclosed", "id twice", "link to nothing", "network"],
)
def test_the_check_of_pages_sees_a_fault(pages: Pages, old: str, new: str) -> None:
    assert old in pages.chain
    assert faults(pages.chain.replace(old, new, 1))


def test_names_that_others_chose_are_escaped(pages: Pages) -> None:
    assert "<b>net" not in pages.model and "&lt;b&gt;net&lt;/b&gt;.py" in pages.model


# --- what is in it --------------------------------------------------------------------------------


def cells(text: str) -> list[list[str]]:
    """The rows of all tables."""
    rows = re.findall(r"<tr>(.*?)</tr>", text, flags=re.DOTALL)
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, flags=re.DOTALL) for row in rows]
    return [[html.unescape(cell) for cell in row] for row in found]


def test_the_page_of_a_rule_holds_answer_derivation_measurement_and_environment(
    pages: Pages,
) -> None:
    text, rows = pages.chain, cells(pages.chain)
    head = re.search(r"<header>.*?<p>(.*?)</p>", text, flags=re.DOTALL)
    assert head and len(re.findall(r"[.?](?: |$)", head[1])) == 2, "two sentences"
    exponents = solution_of(problem_of("kfac", None)).exponents
    for layer, c in exponents.c.items():
        d = exponents.d[layer]
        assert [layer, "0", str(exponents.b[layer]), str(c), *map(str, d.values())] in rows
    derived = solution_of(problem_of("kfac", None, practice=True)).steps
    lines = [row for row in rows if len(row) == 7 and row[0].isdigit()]
    assert len(lines) == sum(len(step.lines()) for step in derived.values())
    beside = [row for row in lines if re.fullmatch(r"[+-]\d\.\d\d \[.*\]", row[3])]
    assert len(beside) > len(lines) * 3 // 4
    assert {row[4] for row in beside} <= {"agree", "contradict", "crossover", "inconclusive"}
    assert len(re.findall('<svg [^>]*class="plot"', text)) == 6  # wide and dense: three quantities
    assert len(re.findall(r"hidden: 0 \| [+-]0\.\d+ \| \w+", text)) >= 4
    assert "Local slopes" in text and ["layer", "size", "limit", "ratio"] in rows
    assert [row for row in rows if row[0] == "torch" and re.match(r"\d", row[1])]
    assert "scaling report kfac --widths 32,64,128" in text


def test_the_page_of_a_model_holds_every_check_tensor_and_drawing(pages: Pages) -> None:
    answer, measured, section = pages.found
    rows = cells(pages.model)
    for check in measured.checks:
        assert any(row[:2] == [check.name, check.quantity] for row in rows), check.name
    assert {x.place for x in section.derivations} == set(answer.tensors)
    own = next(c for c in measured.checks if (c.name, c.quantity) == ("out.weight", "own"))
    fit = moved_by(own.fit, float(answer.tensors["out.weight"].c))
    told = f"{fit.slope:+.2f} [{fit.low:+.2f}, {fit.high:+.2f}]"
    assert ["dW h per learning rate", "M^(1)", told, own.verdict.name] in [r[1:5] for r in rows]
    for unfolded in section.derivations:
        for line in unfolded.lines:
            if line.measured and line.verdict == "agree":
                slope = float(line.measured.partition(" ")[0])
                assert slope == pytest.approx(float(line.printed.step.result.width), abs=0.25)


def test_the_gravest_verdicts_have_a_colour_where_there_are_more_checks_than_colours(
    pages: Pages,
) -> None:
    """In the order of a model the last node would have none."""
    _, measured, _ = pages.found
    nodes = [c for c in measured.checks if c.quantity == "init"] * 9
    checks = [replace(c, name=f"n{i}", verdict=Verdict.inconclusive) for i, c in enumerate(nodes)]
    checks[-1] = replace(checks[-1], name="the last", verdict=Verdict.contradict)
    ((caption, svg),) = plots_of_model(replace(measured, checks=tuple(checks)), "sgd")
    assert f"of {len(checks)}, the table below has all" in caption and "the last" in svg


def test_a_line_has_no_measurement_beside_it_that_is_of_something_else(pages: Pages) -> None:
    answer, measured, _ = pages.found

    x = answer.tensors["out.weight"]
    steps = tensor_steps(answer, "out.weight").lines()

    def beside(**changed: Any) -> int:
        checks = {(c.node, c.quantity): replace(c, **changed) for c in measured.checks}
        return sum(beside_line(checks, x, step)[0] is not None for step in steps)

    assert beside() > 2
    assert beside(at_most=True) == beside(predicted=Rational(7, 3)) == 0


def test_lines_that_cannot_be_measured_leave_the_rest_of_a_page() -> None:
    data = load("digits", None, samples=2)
    problem = problem_of("sam", None, practice=True, numbers=data.numbers)
    subject, answer = subject_of("sam", problem), solution_of(problem)
    at = lines_experiment(RunRequest(data, (16, 32, 64), 2))
    lines, why = lines_or_why(trial_of(subject, at), answer, at)
    assert not lines and why.startswith("not measured: lines of a derivation that speak of 'asc")
    text = page([chain_section(answer, None, lines, answer, why)], "scaling report sam")
    assert f"<p>Lines are {html.escape(why)}" in text.replace("&#39;", "&#x27;")


def test_theory_alone_measures_nothing() -> None:
    section = chain_section(solution_of(problem_of("shampoo", None)))
    text = page([section], "scaling report shampoo --theory")
    assert "nothing is measured" in text and faults(text) == []
    assert not section.plots and not any(x.is_measured for x in section.derivations)


# --- drawings -------------------------------------------------------------------------------------

BOX = re.compile(r'<rect class="(\w+)" x="(-?\d+)" y="(\d+)" width="(\d+)" height="(\d+)"')


def test_every_operation_is_drawn_once_with_sizes_on_its_edges(pages: Pages) -> None:
    answer, _, section = pages.found
    start, _ = two_states(answer.graph, answer_starts(answer))
    overview, *parts = section.drawings
    assert overview.title == "overview" and len(parts) > 3
    heads = Counter(x for part in parts for x in named(part.svg, inside=True))
    assert heads == Counter(node.name for node in answer.graph.nodes)
    sizes = {name: value.size for name, value in start.values.items()}
    (out,) = (x for x in parts if x.title.startswith("out: "))
    assert out.svg.rindex('class="edge"') < out.svg.index('class="size"'), "none crosses a size"
    labels = Counter(re.findall(r'<text class="size"[^>]*>([^<]*)</text>', out.svg))
    node = next(n for n in answer.graph.nodes if "out.weight" in n.inputs)
    expected = [size_text(sizes[x], "M") for x in (*node.inputs, node.name)]
    assert labels == Counter(expected) and "M^(-1)" in labels
    assert out.where.endswith("net.py:20")


def named(svg: str, inside: bool) -> list[str]:
    pairs = re.findall(r'<rect class="(\w+)"[^>]*/><text class="head"[^>]*>([^<]*)</text>', svg)
    return [name for kind, name in pairs if (kind != "outside") == inside]


def test_boxes_do_not_overlap_and_edges_go_down(pages: Pages) -> None:
    _, _, section = pages.found
    for part in section.drawings:
        boxes = [tuple(map(int, x[1:])) for x in BOX.findall(part.svg)]
        assert boxes
        for (x, y, w, h), (u, v, p, q) in combinations(boxes, 2):
            assert x + w <= u or u + p <= x or y + h <= v or v + q <= y, part.title
        for path in re.findall(r'class="edge" d="M\S+ (\d+) .*? (\d+)"', part.svg):
            assert int(path[0]) < int(path[1]), part.title


def test_a_block_that_is_repeated_has_a_drawing_of_its_own() -> None:
    from scaling.models.architectures import plain

    found = drawings(plain(), {}, "L")
    assert [x.title for x in found if "repeated L times" in x.title]
    assert size_text(S.NegativeInfinity, "M") == "0" and size_text(S.One, "L") == "L"


# --- colours --------------------------------------------------------------------------------------


def test_text_has_contrast_in_both_schemes_and_verdicts_have_marks() -> None:
    style = (ROOT / "empirical" / "report" / "page.html").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)[:2]
    for scheme in (light, dark):
        colour = dict(re.findall(r"--(\w+): (#\w{6})", scheme))
        for name in ("ink", "faint", "link", "good", "bad", "open"):
            assert contrast(colour[name], colour["paper"]) >= 4.5, name
        assert contrast(colour["ink"], colour["tensor"]) >= 4.5
    for verdict in ("agree", "contradict", "crossover", "inconclusive"):
        assert re.search(rf"\.{verdict}::before", style), verdict


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2."""

    def luminance(colour: str) -> float:
        parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        r, g, b = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


# --- a browser ------------------------------------------------------------------------------------

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
WIDE = "<!DOCTYPE html><p style='width:3000px'>wide</p><script>console.error('planted')</script>"
LOOK = """
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.documentElement;
    const folded = [...page.querySelectorAll("details:not([open])")];
    const shown = folded.filter(x => x.clientHeight > 2 * x.firstElementChild.offsetHeight);
    const stuck = [...page.querySelectorAll("*")].filter(x => x.scrollWidth > x.clientWidth + 1 &&
      getComputedStyle(x).overflowX == "auto" && x.tabIndex < 0);
    const cut = [...page.querySelectorAll(".lines")].filter(x => x.scrollWidth > x.clientWidth);
    const closed = folded[0];
    if (closed) closed.querySelector("summary").click();
    return {folded: folded.length, shown: shown.length, stuck: stuck.length, cut: cut.length,
            width: root.clientWidth, needed: root.scrollWidth, opened: closed ? closed.open : null,
            focus: (page.querySelector("a, summary, [tabindex]") || {}).className,
            drawn: [...page.querySelectorAll("svg.plot")].every(x => x.clientWidth > 200)};
  });
  document.getElementById("found").textContent = JSON.stringify(found);
});
"""


PAPER = 640
"""Pixels between the margins of a sheet of A4."""
UNFOLDS = "details::details-content { content-visibility: visible; block-size: auto; }"


def printed(text: str) -> str:
    """The page with the style that paper gets."""
    assert text.count("@media print {") == 1 and UNFOLDS in text
    return text.replace("@media print {", "@media all {")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
def test_a_browser_shows_it_at_phone_and_desk_width_without_an_error(
    pages: Pages, tmp_path: Path
) -> None:
    paper = [printed(x) for x in (pages.chain, pages.model)]
    frames = [(380, pages.chain), (1400, pages.chain), (380, pages.model)]
    frames += [(PAPER, paper[0]), (PAPER, paper[1]), (PAPER, paper[0].replace(UNFOLDS, ""))]
    table = re.search(r"@media screen and \(max-width: [\d.]+rem\)", pages.chain)
    assert table
    frames += [(380, pages.chain.replace(table[0], "@media print")), (380, WIDE)]
    body = "".join(
        f'<iframe style="width:{width}px;border:0" srcdoc="{html.escape(text)}"></iframe>'
        for width, text in frames
    )
    file = tmp_path / "frames.html"
    file.write_text(
        f"<!DOCTYPE html><meta charset=utf-8><pre id=found></pre>{body}<script>{LOOK}</script>"
    )
    words = [
        str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1600,900", "--dump-dom",
        file.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    told = re.search(r'<pre id="found">(\[.*?\])</pre>', done.stdout)
    assert told, done.stderr[-2000:]
    *found, unfolded, rows, control = json.loads(html.unescape(told[1]))
    for (width, _), one in zip(frames, found, strict=False):
        assert one["width"] == width >= one["needed"], one
        assert one["opened"] and one["drawn"] and one["focus"] == "skip"
        assert one["stuck"] == 0 and one["folded"] > 1, "a key reaches all that scrolls"
        assert one["cut"] == 0, "what is measured stands in view beside each line"
        assert one["shown"] == (one["folded"] if width == PAPER else 0), "paper cannot be clicked"
    assert unfolded["folded"] > 1 and unfolded["shown"] == 0 < rows["cut"]
    assert control["needed"] > control["width"]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert [line for line in console if "planted" not in line] == [] and console


# --- the command ----------------------------------------------------------------------------------


def test_a_page_without_a_name_is_refused(typed: Typed, tmp_path: Path) -> None:
    for words in ((), ("--out", str(tmp_path / "report.pdf"))):
        done = typed("report", "kfac", *words)
        assert done.code == 2 and "ends in .html" in done.err
    nowhere = str(tmp_path / "no" / "folder.html")
    done = typed("report", "sgd", "--theory", "--out", nowhere)
    assert done.code == 2 and "cannot be written" in done.err


def test_sections_are_one_for_each_rule(typed: Typed, tmp_path: Path) -> None:
    out = tmp_path / "two.html"
    done = typed("report", "sgd", "orth(G)", "--theory", "--out", str(out))
    assert done.code == 0 and done.out.splitlines()[:2] == ["sgd: derived", "orth(G): derived"]
    assert len(re.findall(r'<section id="section-\d"', out.read_text())) == 2
    assert isinstance(Section.__doc__, str)
