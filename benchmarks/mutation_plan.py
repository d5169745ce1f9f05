"""What a mutant of scaling/ is, how it takes the place of its module, and which tests it meets.

A module goes by its dotted name below scaling (`rules.tree`, `calculus.read`, `__init__`). Nothing
here needs mutmut or coverage, so tests/test_benchmarks.py can hold these names against the files.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
SCALING = ROOT / "scaling"
COMMAND_LINE = "cli"
"""The folder whose mutants meet the tests of the commands too."""
LONG = (
    "alike_along_the_symmetry", "follows_the_degrees", "add_and_undo", "maximal_in_every_layer",
    "maximal_at_the_first_step", "depth_changes", "same_tree", "in_every_format",
    "every_step_once", "measured", "contradicted", "train_to", "calibrated", "random_texts",
    "associate", "obey", "distribute", "whatever_the_symbols", "of_one_class",
    "of_the_interface", "one_radius_for_all",
)  # fmt: skip
"""Tests that train networks, or repeat one property for every rule of the catalogue."""
THEORY = (
    "refusals", "language", "calculus", "golden", "bounded_damping", "rotation", "network_norms",
    "second", "solve", "decay", "ascent", "alignment", "symmetry", "render", "scale",
)  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """Tests that are run together: what to collect, and how many seconds of it a mutant gets."""

    collected: tuple[str, ...]
    seconds: float


STAGES: dict[str, Stage] = {
    "surface": Stage(("tests/test_surface.py",), 20),
    "theory": Stage(
        ("scaling", *(f"tests/test_{x}.py" for x in THEORY), "-k", f"not ({' or '.join(LONG)})"), 20
    ),
    "commands": Stage(
        ("tests/test_options.py", "tests/test_cli.py", "tests/test_claims_cli.py"), 60
    ),
}


def modules() -> list[str]:
    """Every module of scaling."""
    return [module_of(path) for path in sorted(SCALING.rglob("*.py"))]


def module_of(path: Path) -> str:
    """The name of a file."""
    return ".".join(path.relative_to(SCALING).with_suffix("").parts)


def file_of(module: str) -> Path:
    """The file of a module."""
    return SCALING.joinpath(*module.split(".")).with_suffix(".py")


def stages_of(module: str) -> list[str]:
    """Which kinds of tests a mutant of a module meets."""
    return list(STAGES) if module.split(".")[0] == COMMAND_LINE else ["surface", "theory"]


@dataclass(frozen=True)
class Mutant:
    """A file with one change, by its place in the list of all changes of that file."""

    module: str
    number: int
    function: str
    lines: tuple[int, ...]
    """Of the statement that is changed; of the whole function if that is its head."""
    line: int
    """Of these, the first that is changed."""
    diff: str
    source: str


class Importer(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the mutant in place of its module."""

    def __init__(self, mutant: Mutant) -> None:
        path, names = file_of(mutant.module), ["scaling", *mutant.module.split(".")]
        package = names[-1] == "__init__"
        self.name = ".".join(names[:-1] if package else names)
        self.folders = [str(path.parent)] if package else None
        self.source, self.path = mutant.source, str(path)

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Only this one module."""
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(
            name, self.path, loader=self, submodule_search_locations=self.folders
        )

    def exec_module(self, module: ModuleType) -> None:
        """Run the mutant's source as the module."""
        exec(compile(self.source, self.path, "exec"), vars(module))
