"""Files, folders and modules that a text names are there: in pages, docstrings and comments.

A path is read from the root or from the folder of the text, or by its end (`wide/method.py`,
`fill.py`) where some file of the repository ends so. A dotted name below one of the packages is a
module, or what it holds; so is one in backticks that begins with the name of a module.
"""

import ast
import importlib
import io
import json
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("scaling", "derivations", "empirical")
SOURCES = (*PACKAGES, "tests", "benchmarks", "docs", "examples", ".ci")
PAGES = ("*.md", "*.toml", "Makefile", "constraints.txt", "*.ipynb")
FILE = re.compile(r"(?<![\w/.*}-])((?:[\w-]+/|\.\./)*[\w-]+\.(?:py|md|ipynb|toml|png))\b(?!/)")
FOLDER = re.compile(
    r"(?<![\w/.<>-])((?:scaling|derivations|empirical|tests|benchmarks)/(?:\w+/)*\w*)(?![\w{.%])"
)
DOTTED = re.compile(r"(?<![\w/.-])((?:scaling|derivations|empirical)(?:\.[A-Za-z_]\w*)+)")
IN_A_MODULE = re.compile(r"`([a-z]\w*(?:\.\w+)+)(?=[`(])")
WRITTEN = {"report.md", "summary.md"}
"""Files that commands write."""
NO_FILES = {"coverage.py", "file.py", "FILE.py", "FILE.toml"}
"""Another project, and what stands for any file."""


def texts() -> list[Path]:
    """Every page and source."""
    found = [path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")]
    found += [
        path for pattern in PAGES for path in (*ROOT.glob(pattern), *(ROOT / "docs").rglob(pattern))
    ]
    found += [
        *(ROOT / "benchmarks").glob("*.md"),
        *(ROOT / "examples").glob("*.md"),
        ROOT / ".ci" / "run",
    ]
    return sorted({path for path in found if "snapshots" not in path.parts})


@cache
def files() -> set[str]:
    """Every file that is there, from the root."""
    kept = (ROOT / name for name in (*SOURCES, "paper_checks.ipynb"))
    inside = [x for path in kept for x in ([path] if path.is_file() else path.rglob("*"))]
    inside += [path for path in ROOT.iterdir() if path.is_file()]
    return {str(path.relative_to(ROOT)) for path in inside if "__pycache__" not in path.parts}


def read(path: Path) -> str:
    """A page, the comments and docstrings of a source, or the cells of a notebook."""
    text = path.read_text(encoding="utf-8")
    match path.suffix:
        case ".ipynb":
            return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
        case ".py":
            return "\n".join(words(text))
        case ".md":
            return without_the_past(text)
    return text


def without_the_past(text: str) -> str:
    """A page without the columns of its tables that are headed "before"."""
    kept, past = [], None
    for line in text.splitlines():
        cells = line.split("|")
        if len(cells) < 3:
            past = None
        elif "before" in (heads := [cell.strip() for cell in cells]):
            past = heads.index("before")
        kept.append("|".join(x for i, x in enumerate(cells) if i != past) if past else line)
    return "\n".join(kept)


def words(source: str) -> Iterator[str]:
    """Comments, and every string that stands alone: a docstring, of a field too."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield text


def is_there(name: str, path: Path) -> bool:
    """Whether a file that a text names exists."""
    if (path.parent / name).exists():
        return True
    return any(known == name or known.endswith(f"/{name}") for known in files())


def is_importable(name: str) -> bool:
    """Whether a dotted name is a module, or is found in one; or in one whose library is missing."""
    parts = name.split(".")
    module = importlib.import_module(parts[0])
    for i in range(2, len(parts) + 1):
        try:
            module = importlib.import_module(".".join(parts[:i]))
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != parts[0]:
                return True
            found = module
            for rest in parts[i - 1 :]:
                if not hasattr(found, rest):
                    return False
                found = getattr(found, rest)
            return True
    return True


@cache
def stems() -> dict[str, list[str]]:
    """The modules and folders of the packages, by the last part of their names."""
    found: dict[str, list[str]] = {}
    for name in files():
        parts = name.removesuffix(".py").removesuffix("/__init__").split("/")
        if name.endswith(".py") and parts[0] in PACKAGES and "__main__" not in parts:
            found.setdefault(parts[-1], []).append(".".join(parts))
    return found


def is_held(name: str) -> bool:
    """Whether a dotted name, as far as it begins with a module of ours, is one that it holds."""
    first, _, rest = name.partition(".")
    modules = [*stems().get(first, []), *([first] if first in PACKAGES else [])]
    return not modules or any(is_importable(f"{module}.{rest}") for module in modules)


def missing(text: str, path: Path) -> Iterator[str]:
    """The names in a text of what is not there."""
    for name in FILE.findall(text):
        made = name in WRITTEN or name.startswith("results/")
        if not made and name not in NO_FILES and not is_there(name, path):
            yield name
    for name in FOLDER.findall(text):
        if not (ROOT / name).exists() and not (ROOT / f"{name}.py").exists():
            yield name
    for name in DOTTED.findall(text):
        if not name.endswith((".py", ".toml")) and not is_importable(name):
            yield name
    for name in IN_A_MODULE.findall(text):
        if not name.endswith((".py", ".md")) and not is_held(name):
            yield name


@pytest.mark.parametrize("path", texts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_text_names_exists(path: Path) -> None:
    assert not sorted(set(missing(read(path), path)))


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("see scaling/sizes/scale.py, calculus/read.py, scale.py and scaling/rules/", set()),
        ("see scaling/scale.py, empirical/networks.py, wide/paths.py and uphill.py",
         {"scaling/scale.py", "empirical/networks.py", "wide/paths.py", "uphill.py"}),
        ("the folders scaling/ledger and empirical/measuring/",
         {"scaling/ledger", "empirical/measuring/"}),
        ("scaling.derive, scaling.sizes.scale.Scale.plus and empirical.wide", set()),
        ("scaling.interface, scaling.sizes.scale.Size.plus and empirical.numbers.update",
         {"scaling.interface", "scaling.sizes.scale.Size.plus", "empirical.numbers.update"}),
        ("`noise.ROWS`, `calculus.read`, `numpy.savez` and `scale.Scale.plus`", set()),
        ("`noise.LINES` and `calculus.paths`", {"noise.LINES", "calculus.paths"}),
    ],
)  # fmt: skip
def test_a_name_that_is_gone_is_seen(text: str, gone: set[str]) -> None:
    assert set(missing(text, ROOT / "README.md")) == gone


def test_code_is_not_read_and_comments_and_docstrings_are() -> None:
    source = '''"""Of gone.py."""\nx = "other.py"  # lost.py\n"""A field: absent.py."""\n'''
    assert set(missing("\n".join(words(source)), ROOT / "x.py")) == {
        "gone.py",
        "lost.py",
        "absent.py",
    }


def test_what_a_table_says_was_before_is_not_read() -> None:
    page = "|what|before|now|\n|---|---|---|\n|sizes|gone.py|lost.py|\n\nof absent.py"
    assert set(missing(without_the_past(page), ROOT / "x.md")) == {"lost.py", "absent.py"}
