"""The README shows what the commands print, and its Python runs."""

import json
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILL = runpy.run_path(str(ROOT / "docs" / "fill.py"))
BLOCKS = FILL["BLOCK"].findall(README)
COMMANDS = [(command, body) for _, command, body, _ in BLOCKS if command.startswith("scaling ")]


@pytest.mark.parametrize(("command", "body"), COMMANDS, ids=[c for c, _ in COMMANDS])
def test_readme_block_is_what_the_command_prints(command, body):
    assert FILL["output"](command).strip() in body, (
        f"make readme: '{command}' prints something else"
    )


def test_readme_check_fails_on_an_edited_block():
    edited = README.replace("-e_A + e_B", "e_A + e_B", 1)
    assert edited != README
    assert FILL["filled"](edited, files=False) != edited


def test_readme_verification_table_has_the_predictions_of_today():
    from derivations.catalogue import find
    from empirical.verify.verification import QUANTITIES, TOUR
    from scaling import Problem, predict
    from scaling.cli.requests import literal_of, problem_of

    table = next(body for _, command, body, _ in BLOCKS if command.endswith("report.md"))
    rows = re.findall(
        r"^\| (\w+) \| wide \| (\w+) \| (\w+) \| `?([^`|]+?)`? \|", table, flags=re.MULTILINE
    )
    rows = [row for row in rows if row[0] != "rule"]
    shown = {(rule, layer, quantity): x for rule, layer, quantity, x in rows}
    assert len(rows) == len(TOUR) * 3 * 3
    for name in TOUR:
        problem: Problem = problem_of(name, None, practice=True)
        assert problem.rule == find(name).rule
        exponents, bounds = literal_of(problem)
        for layer, predicted in predict(problem, exponents, bounds).layers.items():
            for quantity in QUANTITIES:
                assert shown[name, layer, quantity] == str(getattr(predicted, quantity))


def test_readme_figures_exist_and_are_png():
    for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / name).read_bytes().startswith(b"\x89PNG"), name


def test_readme_python_example_runs():
    from torch import nn

    def build(width):
        return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 2))

    names = {"build": build}
    for code in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL):
        exec(code, names)  # our own README
    scales = names["scales"]
    assert set(scales) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert scales["0.weight"].lr == pytest.approx(0.1)  # K-FAC: c = 0 in every layer
    assert scales["2.weight"].dampings["rho_A"] == pytest.approx(1e-2 * 32)  # d_A = -1
    assert {check.layer for check in names["result"].checks} == {"0", "2"}
    assert not [c for c in names["result"].checks if str(c.verdict) == "contradict"]


def test_license_and_changelog_are_there():
    assert "MIT License" in (ROOT / "LICENSE").read_text()
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_notebook_is_committed_with_its_outputs():
    notebook = json.loads((ROOT / "paper_checks.ipynb").read_text(encoding="utf-8"))
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert any("image/png" in o.get("data", {}) for c in cells for o in c["outputs"])
    assert any("text/html" in o.get("data", {}) for c in cells for o in c["outputs"])
    assert not [o for c in cells for o in c["outputs"] if o["output_type"] == "error"]
