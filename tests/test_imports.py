"""Who imports whom: scaling <- derivations <- empirical, and deriving never costs torch.

The command line is the composition root: it may reach the other two, inside functions only.
"""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("scaling", "derivations", "empirical")
HEAVY = {"torch", "scipy", "sklearn", "matplotlib", "pandas", "joblib", "torchvision"}
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
COMPOSITION_ROOT = ROOT / "scaling" / "cli"
ORDER = {
    "scaling": ("sizes", "rules", "models", "calculus", "states", "solve", "report", "cli"),
    "empirical": (
        "numbers", "data", "networks", "measure", "trace", "wide", "fit", "limits", "black_box",
        "verify", "your_model", "plans", "checks", "transfer", "tuning", "report", "claims",
    ),
}  # fmt: skip


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(top-level package, whether inside a function) of each import, annotations' own apart."""

    def walk(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.Import(names=names):
                    yield from ((alias.name.split(".")[0], inside) for alias in names)
                case ast.ImportFrom(module=str(module), level=0):
                    yield module.split(".")[0], inside
                case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=orelse):
                    for branch in orelse:
                        yield from walk(branch, inside)
                case _:
                    function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                    yield from walk(child, inside or function)

    yield from walk(ast.parse(path.read_text()), False)


def full_imports(path: Path) -> Iterator[str]:
    """The full name of each module that is imported, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    above = set(PACKAGES[PACKAGES.index(package) + 1 :])
    for name, inside in imports(path):
        if path.parent == COMPOSITION_ROOT and inside:
            continue
        assert name not in above, f"{name_of(path)} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_measuring_imports_what_is_heavy(path: Path) -> None:
    if path.relative_to(ROOT).parts[0] != "empirical":
        assert not {name for name, _ in imports(path)} & HEAVY


def test_no_import_is_relative_or_starred() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, name_of(path)
                assert "*" not in {alias.name for alias in node.names}, name_of(path)


def test_this_test_sees_an_import_that_runs_the_wrong_way(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from empirical import fit\n"
        "import empirical.fit.exponent\n"
        "class C:\n    def f(self):\n        from derivations.catalogue import find\n"
    )
    assert list(imports(path)) == [("typing", False), ("empirical", False), ("derivations", True)]


def modules(package: str) -> list[str]:
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in FILES]
    return [n.removesuffix(".__init__") for n in names if n.split(".")[0] == package]


FOLDERS = [path.parent for path in FILES if path.name == "__init__.py"]


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_a_folder_is_the_map_of_what_is_in_it(folder: Path) -> None:
    about = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    own = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    own |= {path.parent.name for path in folder.glob("*/__init__.py")}
    assert own <= set(re.findall(r"\w+", about)), f"place {sorted(own)} on {name_of(folder)}"


def test_no_folder_is_without_a_map() -> None:
    assert {path.parent for path in FILES} == set(FOLDERS)


HALVES = ["scaling/rules/operators.py", "empirical/numbers/operators.py"]
"""The table of the rule language and its rows in numbers, held together by test_operators.py."""


def test_no_two_files_share_a_name_but_the_two_halves_of_a_row() -> None:
    paths = [path for path in FILES if not path.name.startswith("__")]
    names = Counter(path.name for path in paths)
    assert [name_of(path) for path in paths if names[path.name] > 1] == HALVES


def test_no_two_public_classes_share_a_name() -> None:
    trees = [ast.parse(path.read_text()) for path in FILES]
    found = Counter(n.name for tree in trees for n in tree.body if isinstance(n, ast.ClassDef))
    assert not {name for name, count in found.items() if count > 1 and name[0] != "_"}


def runs_upwards(path: Path, name: str) -> bool:
    """Whether an import leads from a folder to one that is built on it."""
    package, folder, *_ = path.relative_to(ROOT).parts
    parts = name.split(".")
    order = ORDER.get(package, ())
    if parts[0] != package or len(parts) < 2 or not {folder, parts[1]} <= set(order):
        return False
    return order.index(parts[1]) > order.index(folder)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_folders_import_one_way(path: Path) -> None:
    above = [name for name in full_imports(path) if runs_upwards(path, name)]
    assert not above, f"{name_of(path)} imports {above}"


def test_an_import_of_a_folder_above_is_seen() -> None:
    path = ROOT / "scaling" / "rules" / "tree.py"
    assert runs_upwards(path, "scaling.calculus.read")
    assert not runs_upwards(path, "scaling.sizes.errors")


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Ways that lead from a file back to itself."""
    found: list[list[str]] = []
    done: set[str] = set()

    def go(name: str, way: list[str]) -> None:
        if name in way:
            found.append([*way[way.index(name) :], name])
        elif name not in done:
            for other in sorted(edges.get(name, set())):
                go(other, [*way, name])
            done.add(name)

    for name in sorted(edges):
        go(name, [])
    return found


def test_no_files_import_each_other_not_even_for_their_types() -> None:
    names = {n for package in PACKAGES for n in modules(package)}
    edges: dict[str, set[str]] = {}
    for path in FILES:
        own = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        edges[own] = {n if n in names else n.rpartition(".")[0] for n in full_imports(path)} & names
    assert not circles(edges)


def test_a_circle_of_imports_is_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"]]


@pytest.mark.parametrize("package", ORDER)
def test_every_folder_has_its_place_in_the_order(package: str) -> None:
    folders = {folder.name for folder in FOLDERS if folder.parent == ROOT / package}
    assert folders == set(ORDER[package])


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after some code."""
    return {name.split(".")[0] for name in all_loaded_after(code)}


def all_loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after some code."""
    report = r"""
import sys
loaded = sorted(sys.modules)
import json
print("\n" + json.dumps(loaded))
"""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


RUN = """
import sys
from scaling.cli.main import main
sys.argv = ["scaling", {words}]
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
"""
COMMANDS = [
    ["--help"],
    ["list"],
    ["derive", "kfac"],
    ["derive", "kfac", "--format", "json"],
    ["derive", "orth(G)", "--format", "latex"],
    ["predict", "shampoo", "--set", "b_output=1/2"],
    ["explain", "adam"],
    ["compare", "sgd", "shampoo; e=0"],
]


@pytest.mark.parametrize("package", ["scaling", "derivations"])
def test_importing_the_theory_loads_nothing_heavy(package: str) -> None:
    loaded = loaded_after("\n".join(f"import {name}" for name in modules(package)))
    assert package in loaded
    assert not loaded & (HEAVY | {"empirical"})


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_deriving_from_the_command_line_loads_nothing_heavy(words: list[str]) -> None:
    loaded = loaded_after(RUN.format(words=", ".join(map(repr, words))))
    assert not loaded & (HEAVY | {"empirical"})
    assert ("sympy" in loaded) is (words != ["--help"])


def test_deriving_loads_the_packages_that_it_needs_and_no_others() -> None:
    """What is not of Python, sympy or typer costs the start of every command."""
    needed = loaded_after("import sympy, typer")
    found = loaded_after(RUN.format(words="'derive', 'kfac'"))
    assert found - needed - set(sys.stdlib_module_names) == {"scaling", "derivations"}


FOR_OTHER_FORMATS = {"json", "scaling.report.as_json", "scaling.report.step_lines"}
FOR_OTHER_VERBS = {"scaling.solve.predict", "scaling.solve.symmetry", "scaling.solve.equivalence"}
MOST_MODULES = 135
"""Each costs half a thousandth of a second and more, at the start of every command."""


def test_deriving_loads_few_modules_and_none_of_other_verbs_and_formats() -> None:
    """What a cold start may cost, in a number that no load of the machine changes."""
    found = all_loaded_after(RUN.format(words="'derive', 'kfac'"))
    assert not found & (FOR_OTHER_FORMATS | FOR_OTHER_VERBS)
    assert len([x for x in found if x.split(".")[0] in ("scaling", "derivations")]) <= MOST_MODULES


def test_the_other_format_and_the_other_verb_do_load_theirs() -> None:
    found = all_loaded_after(RUN.format(words="'derive', 'kfac', '--format', 'json'"))
    assert found >= FOR_OTHER_FORMATS
    assert "scaling.solve.predict" in all_loaded_after(RUN.format(words="'predict', 'kfac'"))


def test_a_command_that_derives_leaves_nothing_to_the_collector() -> None:
    """The search for cycles at exit takes a quarter of the time of all."""
    words = RUN.format(words="'derive', 'kfac'")
    loaded_after(f"{words}\nimport gc\nassert gc.get_freeze_count() > 100_000")
    loaded_after("import gc, sympy\nassert not gc.get_freeze_count()")


def test_importing_scaling_alone_does_not_even_load_sympy() -> None:
    assert "sympy" not in loaded_after("import scaling")
    assert "sympy" in loaded_after("import scaling; scaling.derive")


def test_the_probe_sees_a_heavy_module() -> None:
    assert "torch" in loaded_after("import empirical.numbers.layer_matrices")
