"""paper_checks.ipynb runs from top to bottom, and its assertions can fail.

It runs every claim at tier ci, and asserts the verdict of each and that its control is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from empirical.claims import registry

ROOT = Path(__file__).resolve().parent.parent
TABLE = "assert same(row(kfac.exponents.c), (e_B - 1, e_B - e_A, 1 - e_A))"


def run(notebook: nbformat.NotebookNode) -> None:
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    ).execute()


def load() -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "paper_checks.ipynb", as_version=4)


def keep(notebook: nbformat.NotebookNode, wanted: Callable[[str], bool]) -> None:
    """Leave those code cells alone."""
    notebook.cells = [c for c in notebook.cells if c.cell_type == "code" and wanted(c.source)]


def preparing(source: str) -> bool:
    return source.startswith("import sympy") or "context = Environment()" in source


@pytest.mark.slow
def test_notebook_runs_and_every_assertion_holds() -> None:
    run(load())


def test_every_claim_is_run_and_then_asserted() -> None:
    cells = [c.source for c in load().cells if c.cell_type == "code"]
    for name in registry.claims():
        place = cells.index(f'run("{name}")')
        asserting = [s for s in cells[place:] if "assert" in s and f'"{name}"' in s]
        assert any("holds(" in s or ".verdict is Verdict." in s for s in asserting), name


def test_published_exponents_stand_in_asserting_cells_alone() -> None:
    for cell in load().cells:
        if cell.cell_type == "code" and re.search(r"\(e_B - 1|\(e - 1|\(0, -1, -1\)", cell.source):
            assert cell.source.count("assert ") >= 1, cell.source


def test_notebook_fails_on_a_wrong_published_table() -> None:
    notebook = load()
    keep(notebook, lambda s: preparing(s) or s.startswith("kfac = ") or TABLE in s)
    cell = notebook.cells[-1]
    assert TABLE in cell.source
    cell.source = cell.source.replace("(e_B - 1, e_B - e_A, 1 - e_A)", "(e_B, e_B - e_A, 1 - e_A)")
    with pytest.raises(CellExecutionError, match="AssertionError"):
        run(notebook)


@pytest.mark.parametrize(
    ("sabotage", "fails"),
    [("pass", False), ("module._power = lambda matrix, p: matrix.abs()", True)],
    ids=["as it is", "entry by entry, no power of a matrix"],
)
def test_notebook_fails_where_a_claim_does_not_hold(sabotage: str, fails: bool) -> None:
    notebook = load()
    keep(notebook, lambda s: preparing(s) or '"3a"' in s or s == 'run("3b")')
    last = notebook.cells[-1]
    assert last.source == 'assert holds("3a") and holds("3b")'
    planted = f"import empirical.claims.push_through as module\n{sabotage}"
    notebook.cells.insert(2, nbformat.v4.new_code_cell(planted))
    if not fails:
        run(notebook)
        return
    with pytest.raises(CellExecutionError, match="AssertionError"):
        run(notebook)


TOUR = ROOT / "docs" / "tour.ipynb"


def code_of(path: Path) -> list[str]:
    notebook = nbformat.read(path, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_the_tour_runs_in_seconds_and_is_committed_as_a_reader_sees_it() -> None:
    """In this process: a kernel would take longer than the tour."""
    cells = nbformat.read(TOUR, as_version=4).cells
    shown = [cell.outputs for cell in cells if cell.cell_type == "code"]
    assert all(shown) and not [o for x in shown for o in x if o["output_type"] == "error"]
    tables = iter([o["data"]["text/html"] for x in shown for o in x if "data" in o])
    names: dict[str, object] = {}
    for source in code_of(TOUR):
        *_, last = source.rstrip().splitlines()
        exec(source, names)  # our own page
        if last.isidentifier():
            assert names[last]._repr_html_() == next(tables)  # type: ignore[attr-defined]
    assert str(names["powers"].answers[0]) == "e_A = 1, e_B = 1"  # type: ignore[attr-defined]


def test_the_tour_fails_on_a_wrong_exponent() -> None:
    names: dict[str, object] = {}
    *before, last = code_of(TOUR)
    wrong = last.replace('float(signed.exponents.c["hidden"])', "0.5")
    assert wrong != last
    for source in before[:1] + [s for s in before if "signed =" in s]:
        exec(source, names)
    with pytest.raises(AssertionError):
        exec(wrong, names)
