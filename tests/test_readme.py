"""README and the pages of docs show what the commands print, and their Python runs."""

import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typed import Typed

from scaling.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
FILL = runpy.run_path(str(ROOT / "docs" / "fill.py"))
PAGES = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in FILL["pages"]()}
README = PAGES["README.md"]
BLOCKS = [(page, *block[1:3]) for page, x in PAGES.items() for block in FILL["BLOCK"].findall(x)]
PRINTED = {command: (page, body) for page, command, body in BLOCKS if command[:8] == "scaling "}


@pytest.mark.parametrize("command", PRINTED)
def test_a_block_is_what_its_command_prints(
    command: str, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    done = typed(*shlex.split(command)[1:])
    found = (done.out or done.err).strip()
    for page, other, body in BLOCKS:
        if other == command:
            assert found in body, f"{page}: python docs/fill.py --printed"


def test_the_check_fails_on_an_edited_block() -> None:
    head, _, end = PAGES["docs/deriving.md"].partition("## Explain")
    block = re.search(r"<!-- made by: scaling derive kfac -->.*?<!-- end -->", head, re.DOTALL)
    assert block and end
    edited = block[0].replace("-e_A + e_B", "e_A + e_B", 1)
    assert edited != block[0]
    assert FILL["filled"](edited, files=False) == block[0]


# --- commands that are shown, and not run: they take minutes --------------------------------------


def shown() -> Iterator[tuple[str, str]]:
    """(page, command) of every command in a block of a shell, a table or a line of its own."""
    for page, text in PAGES.items():
        for line in re.findall(r"^(?:\$ |    )(scaling .*|make .*)$", text, flags=re.MULTILINE):
            yield page, re.split(r" {2,}|\s#", line)[0]
        for command in re.findall(r"`(scaling [a-z][^`]*|make [a-z-]+)`", text):
            yield page, " ".join(command.split())  # a line of text may end within one


COMMANDS = sorted(set(shown()))


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_that_is_shown_is_one(page: str, command: str) -> None:
    program, verb, *words = shlex.split(re.sub(r"\[[^]]*\]…?|…", "", command))
    if program == "make":
        assert re.search(rf"^{verb}: ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        return
    verbs: Any = typer.main.get_command(app)
    verbs.commands[verb].make_context(verb, list(words))


def test_a_command_that_is_none_is_seen() -> None:
    assert {
        "make verify",
        "scaling verify kfac --mode wide --widths 1e3:1e8",
        "scaling derive adam --alignment measured",
    } <= {command for _, command in COMMANDS}
    for wrong, told in (
        ("scaling derive kfac --wide", "No such option"),
        ("scaling verify --seeds x", "not a valid int"),
        ("scaling derive", "Missing parameter"),
    ):
        with pytest.raises(Exception, match=told):
            test_a_command_that_is_shown_is_one("", wrong)
    with pytest.raises(KeyError):
        test_a_command_that_is_shown_is_one("", "scaling deriv kfac")


# --- what was measured ----------------------------------------------------------------------------


def test_the_verification_table_has_the_predictions_of_today() -> None:
    from derivations.catalogue import find
    from empirical.verify.verification import QUANTITIES, TOUR
    from scaling import Problem, predict
    from scaling.cli.requests import literal_of, problem_of

    (table,) = (body for _, command, body in BLOCKS if command.endswith("report.md"))
    rows = re.findall(
        r"^\| (\w+) \| wide \| (\w+) \| (\w+) \| `?([^`|]+?)`? \|", table, flags=re.MULTILINE
    )
    rows = [row for row in rows if row[0] != "rule"]
    told = {(rule, layer, quantity): x for rule, layer, quantity, x in rows}
    assert len(rows) == len(TOUR) * 3 * 3
    for name in TOUR:
        problem: Problem = problem_of(name, None, practice=True)
        assert problem.rule == find(name).rule
        exponents, bounds = literal_of(problem)
        for layer, predicted in predict(problem, exponents, bounds).layers.items():
            for quantity in QUANTITIES:
                assert told[name, layer, quantity] == str(getattr(predicted, quantity))


@pytest.mark.parametrize("page", PAGES)
def test_figures_exist_and_links_lead_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    for picture, name in re.findall(r"(!?)\[[^]]*\]\(([^)#]+)[^)]*\)", PAGES[page]):
        if "://" not in name:
            assert (folder / name).exists(), name
            assert not picture or (folder / name).read_bytes().startswith(b"\x89PNG"), name


# --- Python ---------------------------------------------------------------------------------------


def python_of(page: str) -> dict[str, object]:
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGES[page], flags=re.DOTALL):
        exec(code, names)  # our own page
    return names


def test_the_model_of_the_readme_runs_and_is_the_file_that_its_commands_name() -> None:
    assert (ROOT / "docs" / "small_gpt.py").read_text("utf-8").strip() in README
    scales = python_of("README.md")["scales"]
    rates = {name: scale.lr for name, scale in scales.items()}  # type: ignore[attr-defined]
    assert rates["head.weight"] == pytest.approx(1e-3 / 64)  # Adam: c = 1
    assert rates["qkv.weight"] == pytest.approx(1e-3 / 64**1.5)  # bound by 1/sqrt(head size)


def test_the_three_lines_of_the_readme_agree_and_defaults_do_not() -> None:
    """At narrower widths the slope of one tensor's own update still drifts, and stays open."""
    from empirical import check

    names: Any = python_of("README.md")
    build, batch, made = (names[name] for name in ("build", "batch", "numbers"))

    def adamw(model: Any, groups: Any = None) -> Any:
        return type(names["optimizer"])(groups or model.parameters(), lr=3e-3)

    rates = {x.lr for x in made.tensors.values()}
    assert {group["lr"] for group in names["optimizer"].param_groups} == rates
    wide = {"plan": made, "optimizer": adamw, "seeds": range(8)}
    planned = check(build, batch, "adamw", "width=128:1024", **wide)
    assert planned.verdict == "agree", [x for x in planned.checks if x.verdict != "agree"]
    usual = {"as_is": True, "optimizer": adamw, "seeds": range(2)}
    found = check(build, batch, "adamw", "width=64:256", **usual)
    assert found.verdict == "contradict" and found.to_change


def test_the_planted_faults_of_the_readme_are_found_and_named(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    model = ("adam", "--model", "docs/small_gpt.py")
    text = " ".join(typed("derive", *model).out.split())
    line = (ROOT / "docs" / "small_gpt.py").read_text("utf-8").splitlines()[15]
    assert "** 0.5" in line and "change docs/small_gpt.py:16: a factor M^(-1/2)" in text
    planted = typed("predict", *model, "--set", "c_places=1").out
    assert re.search(r"^places .* sub-maximal$", planted, flags=re.MULTILINE)
    assert "c = 1 is given where the largest stable rate has 1/2: places" in planted
    assert '"c = 1 is given where the largest stable rate has 1/2: places"' in README


def test_the_python_of_your_own_model_runs() -> None:
    names = python_of("docs/models.md")
    scales, result = names["scales"], names["result"]
    assert set(scales) == {"0.weight", "0.bias", "2.weight", "2.bias"}  # type: ignore[call-overload]
    assert scales["0.weight"].lr == pytest.approx(0.1)  # type: ignore[index]  # K-FAC: c = 0
    assert scales["2.weight"].dampings["rho_A"] == pytest.approx(1e-2 * 32)  # type: ignore[index]
    updates = names["optimizer"].updates()  # type: ignore[attr-defined]
    assert updates["blocks.0.qkv[2]"].dense().shape == (32, 32)  # a third of the packed projection
    checks = result.checks  # type: ignore[attr-defined]
    assert {check.layer for check in checks} == {"0", "2"}
    assert not [c for c in checks if str(c.verdict) == "contradict"]


def test_the_declaration_of_the_recipe_is_found_as_a_file_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import derivations
    from derivations.catalogue import catalogue, families

    (code,) = re.findall(r"```python\n(.*?)```", PAGES["CONTRIBUTING.md"], flags=re.DOTALL)
    assert catalogue()["signum"].update == "sign(ema(G, beta))"  # the one that is shown
    (tmp_path / "of_a_reader.py").write_text(code.replace('"signum"', '"signum_again"'))
    monkeypatch.setattr(derivations, "__path__", [*derivations.__path__, str(tmp_path)])
    families.cache_clear()
    catalogue.cache_clear()
    try:
        assert catalogue()["signum_again"].update == catalogue()["signum"].update
    finally:
        families.cache_clear()
        catalogue.cache_clear()
        sys.modules.pop("derivations.of_a_reader", None)


# --- size, and the rest ---------------------------------------------------------------------------


def test_the_readme_is_short_and_every_page_is_linked() -> None:
    """From here, or from the navigation of the site, which begins with a page that is linked."""
    assert len(README.splitlines()) <= 230
    site = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    linked = {"README.md", *(f"docs/{name}" for name in site)}
    linked |= set(re.findall(r"\]\(([^)#]+)", README))
    assert "docs/index.md" in re.findall(r"\]\(([^)#]+)", README) and site[0] == "index.md"
    assert not set(PAGES) - linked
    assert {f"docs/{name}" for name in site} == {x for x in PAGES if x.startswith("docs/")}


def test_the_first_screen_installs_derives_and_explains_the_letters() -> None:
    heads = re.findall(r"^## (.*)$", README, flags=re.MULTILINE)
    assert heads[:4] == ["Install", "One derivation", "Your model", "Measured"]
    first = README.partition("## Your model")[0]
    assert {"M", "b", "c", "d"} <= set(re.findall(r"\*\*(\w)\*\*", first))
    assert {"G", "A", "B", "L", "R"} <= set(re.findall(r"\*\*(\w)\*\*", first))
    assert "make verify" in first and "make test" in first and "pip install" in first


def test_license_and_changelog_are_there() -> None:
    assert "MIT License" in (ROOT / "LICENSE").read_text()
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_notebook_is_committed_with_its_outputs() -> None:
    notebook = json.loads((ROOT / "paper_checks.ipynb").read_text(encoding="utf-8"))
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert any("image/png" in o.get("data", {}) for c in cells for o in c["outputs"])
    assert any("text/html" in o.get("data", {}) for c in cells for o in c["outputs"])
    assert not [o for c in cells for o in c["outputs"] if o["output_type"] == "error"]
