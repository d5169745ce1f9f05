"""Mutation testing of scaling/: of small faults put into the code, how many do the tests notice?

The faults are mutmut's (every operator, number, text, argument, default and branch inside of a
function, changed one at a time). They are put in differently: mutmut compiles all mutants of a file
beside each other behind wrappers, which decorated functions cannot have; here a mutant is the whole
file with one change, so that properties and commands are mutated too. It replaces its module in a
forked process, before scaling is imported there, and never exists as a file.

A random sample of all mutants is run (seeded, without replacement; one process, on one core). Each
meets the tests that run through the lines of its change, as coverage.py tells them apart, from the
shortest on until one fails; what passes has survived. Of lines that every import runs, any test may
be the one that notices. No test that trains networks takes part but those of the commands, and a
mutant gets so many seconds of each kind and no more: what other tests alone would notice counts as
survived, so that the rate is a lower bound.

    pip install mutmut==3.8.1
    python benchmarks/mutation.py --sample 400 --seed 1 --out mutants.jsonl
    python benchmarks/mutation.py --again mutants.jsonl --out again.jsonl    # its survivors only
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.abc
import importlib.util
import json
import math
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import libcst as cst
import pytest
from coverage import Coverage
from libcst.metadata import MetadataWrapper
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

ROOT = Path(__file__).resolve().parent.parent
COMMAND_LINE = {"cli", "claiming", "measuring", "options", "questions"}
LONG = (
    "alike_along_the_symmetry", "follows_the_degrees", "add_and_undo", "maximal_in_every_layer",
    "maximal_at_the_first_step", "depth_changes", "same_tree", "in_every_format",
    "every_step_once", "measured", "contradicted", "train_to", "calibrated", "random_texts",
    "associate", "obey", "distribute", "whatever_the_symbols", "of_one_class",
    "of_the_interface", "one_radius_for_all",
)  # fmt: skip
"""Tests that train networks, or repeat one property for every rule of the catalogue."""
THEORY = (
    "refusals", "language", "calculus", "golden", "bounded_damping", "rotation", "network_norms", "second",
    "solve", "decay", "ascent", "alignment", "symmetry", "render", "scale",
)  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """Tests that are run together: what to collect, and how many seconds of it a mutant gets."""

    collected: tuple[str, ...]
    seconds: float


STAGES: dict[str, Stage] = {
    "surface": Stage(("tests/test_surface.py",), 10),
    "theory": Stage(
        ("scaling", *(f"tests/test_{x}.py" for x in THEORY), "-k", f"not ({' or '.join(LONG)})"), 10
    ),
    "commands": Stage(
        ("tests/test_options.py", "tests/test_cli.py", "tests/test_claims_cli.py"), 60
    ),
}
PYTEST = ["-x", "-q", "-n0", "-p", "no:cacheprovider", "--tb=no"]
CPU_SECONDS = 300
"""After this much a mutant is taken to be caught in a loop, which every test run would notice."""

Covered: TypeAlias = dict[str, dict[str, Any]]
"""By stage: ``seconds`` by test, and ``lines``: by module and line, the tests that run it."""


@dataclass(frozen=True)
class Mutant:
    """A file with one change, by its place in the list of all changes of that file."""

    module: str
    number: int
    function: str
    lines: tuple[int, ...]
    """Of the statement that is changed; of the whole function if that is its head."""
    diff: str
    source: str


@dataclass(frozen=True)
class Outcome:
    """The stage that killed a mutant, or None."""

    module: str
    number: int
    function: str
    lines: tuple[int, ...]
    diff: str
    killed: str | None
    seconds: float


class _Visitor(MutationVisitor):
    """mutmut's, into decorated functions too."""

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef) and node.decorators:
            node = node.with_changes(decorators=())
        return bool(super()._skip_node_and_children(node))


def changes(path: Path) -> tuple[cst.Module, list[tuple[cst.CSTNode, cst.CSTNode]]]:
    """A file as a tree, and every (node, what replaces it) inside of its functions."""
    code = path.read_text()
    wrapper = MetadataWrapper(cst.parse_module(code))
    visitor = _Visitor(mutation_operators, IgnoredCode(set(), set(), set()))
    module = wrapper.visit(visitor)
    inside = [
        x
        for x in visitor.mutations
        if isinstance(x.contained_by_top_level_function, cst.FunctionDef)
    ]
    return module, [(x.original_node, x.mutated_node) for x in inside]


def everything() -> dict[str, int]:
    """How many mutants each module has."""
    files = sorted((ROOT / "scaling").glob("*.py"))
    return {path.stem: count for path in files if (count := len(changes(path)[1]))}


def build(module: str, numbers: Sequence[int]) -> list[Mutant]:
    """Mutants of one module by number."""
    path = ROOT / "scaling" / f"{module}.py"
    tree, found = changes(path)
    mutants = []
    for number in numbers:
        source = tree.deep_replace(*found[number]).code
        lines = list(difflib.unified_diff(tree.code.split("\n"), source.split("\n"), n=0))[2:]
        line = int(lines[0].split()[1].lstrip("-").partition(",")[0])
        function, around = _place(tree.code, line)
        mutants.append(Mutant(module, number, function, around, "\n".join(lines[1:]), source))
    return mutants


def _place(code: str, line: int) -> tuple[str, tuple[int, ...]]:
    """The function at a line, and the lines of the statement there."""
    nodes = (x for x in ast.walk(ast.parse(code)) if isinstance(x, ast.stmt | ast.match_case))
    spans = [(*_span(x), x) for x in nodes]
    around = sorted((x for x in spans if x[0] <= line <= x[1]), key=lambda x: (x[0], -x[1]))
    names = [x.name for *_, x in around if isinstance(x, ast.FunctionDef | ast.ClassDef)]
    first, last, inner = around[-1]
    body = getattr(inner, "body", None)
    if body and not isinstance(inner, ast.FunctionDef):
        last = max(line, _span(body[0])[0] - 1)
    return ".".join(names), tuple(range(first, last + 1))


def _span(node: ast.AST) -> tuple[int, int]:
    if isinstance(node, ast.match_case):
        return node.pattern.lineno, node.body[-1].end_lineno or 0
    assert isinstance(node, ast.stmt)
    return node.lineno, node.end_lineno or 0


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the mutant in place of its module."""

    def __init__(self, mutant: Mutant) -> None:
        package = mutant.module == "__init__"
        self.name = "scaling" if package else f"scaling.{mutant.module}"
        self.folders = [str(ROOT / "scaling")] if package else None
        self.source, self.path = mutant.source, str(ROOT / "scaling" / f"{mutant.module}.py")

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


class _Recorder:
    """Which tests run through which lines, and how long each takes."""

    def __init__(self, coverage: Coverage) -> None:
        self.coverage, self.seconds = coverage, dict[str, float]()

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """A context for what a file of tests runs as it is imported."""
        self.coverage.switch_context(collector.nodeid if isinstance(collector, pytest.File) else "")
        report = yield
        self.coverage.switch_context("")
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, bool, bool]:
        """A context of its own for each test, which starts with the catalogue unread."""
        if "derivations.catalogue" in sys.modules:
            sys.modules["derivations.catalogue"].catalogue.cache_clear()
        self.coverage.switch_context(item.nodeid)
        start = time.perf_counter()
        done = yield
        self.seconds[item.nodeid] = time.perf_counter() - start
        self.coverage.switch_context("")
        return done


class _Chosen:
    """Runs the named tests, in that order."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = {name: i for i, name in enumerate(names)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave the others out."""
        found = [x for x in items if x.nodeid in self.names]
        items[:] = sorted(found, key=lambda x: self.names[x.nodeid])


def in_child(work: Callable[[int], None]) -> tuple[str, int]:
    """What some work writes into its pipe, in a silent process of its own; and how that ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            work(writing)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    return text, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def coverage_of(name: str) -> dict[str, Any]:
    """Run a stage without a mutant; all of it must pass."""

    def work(pipe: int) -> None:
        coverage = Coverage(data_file=None, source=["scaling"])
        recorder = _Recorder(coverage)
        coverage.start()
        code = pytest.main([*STAGES[name].collected, *PYTEST], plugins=[recorder])
        coverage.stop()
        data, lines = coverage.get_data(), {}
        for file in data.measured_files():
            lines[Path(file).stem] = data.contexts_by_lineno(file)
        found = {"failed": int(code), "seconds": recorder.seconds, "lines": lines}
        with os.fdopen(pipe, "w") as out:
            json.dump(found, out)

    found: dict[str, Any] = json.loads(in_child(work)[0])
    assert not found["failed"], f"the tests of '{name}' fail without any mutant"
    return found


def chosen(mutant: Mutant, stage: str, covered: Covered) -> list[str]:
    """The tests of a stage that a mutant meets, the shortest first."""
    seconds, lines = covered[stage]["seconds"], covered[stage]["lines"].get(mutant.module, {})
    through = {test for line in mutant.lines for test in lines.get(str(line), [])}
    order = sorted(through & seconds.keys(), key=lambda test: seconds[test])
    for file in through - seconds.keys() - {""}:  # of which any test tells whether it is imported
        order = [min((x for x in seconds if x.startswith(f"{file}::")), key=seconds.get), *order]
    if "" in through:
        order += sorted(seconds.keys() - through, key=lambda test: seconds[test])
    spent = 0.0
    for i, test in enumerate(order):
        spent += seconds[test]
        if spent > STAGES[stage].seconds:
            return order[: i + 1]
    return order


def run(mutant: Mutant, covered: Covered) -> Outcome:
    """Meet one stage after the other in a process of its own."""
    start = time.perf_counter()
    met = {stage: chosen(mutant, stage, covered) for stage in stages_of(mutant.module)}
    met = {stage: tests for stage, tests in met.items() if tests}

    def work(pipe: int) -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        finder = _Finder(mutant)
        sys.meta_path.insert(0, finder)
        try:  # before pytest, which would import the files that it is given by itself
            importlib.import_module(finder.name)
        except Exception:
            return
        for stage, tests in met.items():
            files = {test.partition("::")[0] for test in tests}
            if pytest.main([*sorted(files), *PYTEST], plugins=[_Chosen(tests)]) != 0:
                return
            os.write(pipe, f"{stage}\n".encode())

    text, status = in_child(work)
    passed = text.split()
    killed = None if len(passed) == len(met) else list(met)[len(passed)]
    if status == -signal.SIGXCPU:
        killed = f"{killed} (timeout)"
    known = {k: v for k, v in asdict(mutant).items() if k != "source"}
    return Outcome(**known, killed=killed, seconds=round(time.perf_counter() - start, 1))


def stages_of(module: str) -> list[str]:
    """Which kinds of tests a mutant of a module meets."""
    return list(STAGES) if module in COMMAND_LINE else ["surface", "theory"]


def interval(hits: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a binomial rate."""
    z, p = 1.959964, hits / trials
    middle = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2)) / (1 + z * z / trials)
    return middle - half, middle + half


def report(outcomes: Sequence[Outcome], population: dict[str, int]) -> str:
    """The rate, by module, and what survived."""
    total, killed = (
        Counter(x.module for x in outcomes),
        Counter(x.module for x in outcomes if x.killed),
    )
    low, high = interval(killed.total(), total.total())
    lines = ["| module | mutants | sampled | killed |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {k} | {n} | {total[k]} | {killed[k]} |" for k, n in population.items()]
    rate = f"{killed.total() / total.total():.1%} [{low:.1%}, {high:.1%}]"
    lines += [
        f"| all | {sum(population.values())} | {total.total()} | {killed.total()} |",
        "",
        rate,
    ]
    for x in outcomes:
        if not x.killed:
            lines += ["", f"{x.module}.{x.function}, line {x.lines[0]} (#{x.number})", x.diff]
    return "\n".join(lines)


def _covered(kept: Path | None) -> Covered:
    if kept and kept.exists():
        known: Covered = json.loads(kept.read_text())
        return known
    found = {stage: coverage_of(stage) for stage in STAGES}
    if kept:
        kept.write_text(json.dumps(found))
    return found


def main() -> None:
    """Draw, run, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sample", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--again", type=Path, help="run the survivors of these outcomes")
    parser.add_argument("--covered", type=Path, help="where to keep what covers what")
    parser.add_argument("--out", type=Path, required=True, help="outcomes, one line of JSON each")
    given = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    population = everything()
    if given.again:
        before = [json.loads(line) for line in given.again.read_text().splitlines()]
        drawn = [(x["module"], x["number"]) for x in before if not x["killed"]]
    else:
        pool = [(module, number) for module, n in population.items() for number in range(n)]
        drawn = random.Random(given.seed).sample(pool, given.sample)
    mutants = {
        (module, x.number): x
        for module in {module for module, _ in drawn}
        for x in build(module, [number for other, number in drawn if other == module])
    }
    for third_party in ("hypothesis", "scipy.stats", "sympy", "torch", "typer.testing"):
        importlib.import_module(third_party)
    covered = _covered(given.covered)
    outcomes = []
    with given.out.open("w") as out:
        for place in drawn:
            mutant = mutants[place]
            outcomes.append(run(mutant, covered))
            out.write(json.dumps(asdict(outcomes[-1])) + "\n")
            out.flush()
    print(report(outcomes, population))


if __name__ == "__main__":
    main()
