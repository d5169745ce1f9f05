"""The documentation site: every public name has an example, every link an end."""

import ast
import doctest
import inspect
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import empirical
import scaling
from scaling.sizes import derivation
from scaling.sizes.derivation import Inference

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = {path.name: path.read_text("utf-8") for path in sorted(DOCS.glob("*.md"))}
NAMES = [(package, name) for package in (scaling, empirical) for name in package.__all__]


@pytest.mark.parametrize(("package", "name"), NAMES, ids=[name for _, name in NAMES])
def test_a_public_name_has_an_example_that_can_fail(package: ModuleType, name: str) -> None:
    """The examples of all docstrings are run as tests of their modules."""
    text = vars(getattr(package, name)).get("__doc__") or inspect.getdoc(getattr(package, name))
    examples = doctest.DocTestParser().get_examples(text or "")
    assert any(example.want for example in examples), f"{package.__name__}.{name}"
    assert not any("SKIP" in example.source for example in examples)


def test_a_name_without_an_example_is_seen() -> None:
    class Bare:
        """Something."""

    package = ModuleType("package")
    package.Bare = Bare  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match=r"package\.Bare"):
        test_a_public_name_has_an_example_that_can_fail(package, "Bare")


LIBRARIES = {"torch", "nn", "np", "sympy"}


def taken_from_its_file(text: str) -> set[str]:
    """Libraries that an example uses and that only the file around it imports."""
    examples = doctest.DocTestParser().get_examples(text)
    found = list(ast.walk(ast.parse("".join(example.source for example in examples))))
    imported = {
        alias.asname or alias.name
        for node in found
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    return LIBRARIES & {node.id for node in found if isinstance(node, ast.Name)} - imported


@pytest.mark.parametrize("package", ["scaling", "derivations", "empirical"])
def test_an_example_runs_where_it_is_pasted(package: str) -> None:
    """It imports the libraries that it uses; else it ends with an import of its file."""
    missing = {
        f"{path.relative_to(ROOT)}: {getattr(node, 'name', 'the file')}": names
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if (names := taken_from_its_file(ast.get_docstring(node) or ""))
    }
    assert not missing


def test_an_example_without_its_import_is_seen() -> None:
    assert taken_from_its_file(">>> torch.ones(2)") == {"torch"}
    assert not taken_from_its_file(">>> import torch\n>>> torch.ones(2)")


def made_by(script: str, page: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """The block that a script makes, as it stands on the page and as the script prints it now."""
    stands = re.search(
        rf"<!-- made by: python docs/{script} -->\n(.*?)<!-- end -->", PAGES[page], re.DOTALL
    )
    assert stands
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script])
        runpy.run_path(str(DOCS / script))["main"]()
    return stands[1].strip(), capsys.readouterr().out.strip()


def test_the_reference_has_every_public_name(capsys: pytest.CaptureFixture[str]) -> None:
    stands, now = made_by("read_names.py", "reference.md", capsys)
    assert stands == now
    assert len(re.findall(r"^::: ", stands, flags=re.MULTILINE)) == len(NAMES)


def test_the_rules_of_inference_stand_as_the_calculus_states_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stands, now = made_by("evidence.py", "inferences.md", capsys)
    assert stands == now
    rows = [line for line in stands.splitlines() if re.match(r"\| [^-]", line)][1:]
    assert len(rows) == sum(isinstance(x, Inference) for x in vars(derivation).values())
    assert sum("agree" in row for row in rows) > 15 and not re.search(r"\d contradict", stands)


# --- links ----------------------------------------------------------------------------------------


def broken(page: str, text: str) -> Iterator[str]:
    """Links of a page to a file or a heading that is not there; the site has docs/ alone."""
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = not name or (not name.startswith("..") and (DOCS / name).exists())
        if not there or (anchor and anchor not in anchors(PAGES.get(name or page, ""))):
            yield f"{page}: {target}"


def anchors(text: str) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_end_somewhere(page: str) -> None:
    assert list(broken(page, PAGES[page])) == []


def test_a_link_to_nowhere_is_seen() -> None:
    assert list(
        broken(
            "index.md",
            "[a](nowhere.md) [b](ideas.md#nothing) [c](ideas.md#refusals) [d](../README.md)",
        )
    ) == ["index.md: nowhere.md", "index.md: ideas.md#nothing", "index.md: ../README.md"]


def test_examples_become_blocks_of_code_on_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = ModuleType("griffe")
    fake.Extension = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "griffe", fake)
    fenced = runpy.run_path(str(DOCS / "doctest_blocks.py"))["fenced"]
    text = inspect.getdoc(scaling.derive) or ""
    shown = fenced(text)
    assert shown.count("```") == 2 * shown.count("```pycon") > 0
    assert shown.replace("```pycon\n", "").replace("\n```", "") == text


def built(folder: Path, pages: Path) -> subprocess.CompletedProcess[str]:
    """`make docs` of other pages, into a folder."""
    settings = (
        (ROOT / "mkdocs.yml").read_text("utf-8").replace("docs_dir: docs", f"docs_dir: {pages}")
    )
    settings = settings.replace("paths: [.]", f"paths: [{ROOT}]").replace(
        "extensions: [docs/", f"extensions: [{DOCS}/"
    )
    (folder / "mkdocs.yml").write_text(settings)
    words = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(folder / "site"),
    ]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra dev")
    done = built(tmp_path, DOCS)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "scaling.solve.derive.derive" in (tmp_path / "site" / "reference.html").read_text()


def test_a_page_that_the_site_leaves_out_and_a_link_to_nowhere_stop_it(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra dev")
    pages = tmp_path / "pages"
    pages.mkdir()
    for name, text in PAGES.items():
        head = re.match(r"# .*\n", text)
        (pages / name).write_text(head[0] if head else "# Page\n")
    (pages / "index.md").write_text("# Start\n\n[lost](nowhere.md)\n")
    (pages / "left.md").write_text("# Left out\n")
    done = built(tmp_path, pages)
    assert done.returncode != 0 and "nowhere.md" in done.stderr and "left.md" in done.stderr
