"""paper_checks.ipynb runs from top to bottom, and its assertions can fail."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent


def run(notebook: nbformat.NotebookNode) -> None:
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    ).execute()


def load() -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "paper_checks.ipynb", as_version=4)


def test_notebook_runs_and_every_assertion_holds():
    run(load())


def test_notebook_fails_on_a_wrong_published_table():
    notebook = load()
    asserting = "assert same(row(kfac.exponents.c), (e_B - 1, e_B - e_A, 1 - e_A))"
    place = next(i for i, c in enumerate(notebook.cells) if asserting in c.source)
    cell = notebook.cells[place]
    cell.source = cell.source.replace("(e_B - 1, e_B - e_A, 1 - e_A)", "(e_B, e_B - e_A, 1 - e_A)")
    notebook.cells = notebook.cells[: place + 1]
    with pytest.raises(CellExecutionError, match="AssertionError"):
        run(notebook)
