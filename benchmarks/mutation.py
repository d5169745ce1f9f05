"""Mutation testing of scaling/: of small faults put into the code, how many do the tests notice?

A fault is a mutant (mutants.py), a file of scaling/ with one change. It replaces its module in a
forked process, before scaling is imported there, and never exists as a file.

A random sample of all mutants is run (seeded, without replacement; one process, on one core). Each
meets the tests (mutation_plan.py) that run through the lines of its change, as coverage.py tells
them apart, from the shortest on until one fails; what passes has survived. Of lines that every
import runs, any test may be the one that notices. No test that trains networks takes part but those
of the commands, and a mutant gets so many seconds of each kind and no more: what other tests alone
would notice counts as survived, so that the rate is a lower bound.

    pip install mutmut==3.8.1
    python benchmarks/mutation.py --sample 400 --seed 1 --out mutants.jsonl
    python benchmarks/mutation.py --again mutants.jsonl --out again.jsonl    # its survivors only
"""

from __future__ import annotations

import argparse
import importlib
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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from coverage import Coverage
from mutants import build, everything
from mutation_plan import ROOT, SCALING, STAGES, Importer, Mutant, file_of, module_of, stages_of

PYTEST = ["-x", "-q", "-n0", "-p", "no:cacheprovider", "--tb=no"]
CPU_SECONDS = 300
"""After this much a mutant is taken to be caught in a loop, which every test run would notice."""

Covered: TypeAlias = dict[str, dict[str, Any]]
"""By stage: ``seconds`` by test, and ``lines``: by module and line, the tests that run it."""


@dataclass(frozen=True)
class Outcome:
    """The stage that killed a mutant, or None."""

    module: str
    number: int
    function: str
    lines: tuple[int, ...]
    line: int
    diff: str
    killed: str | None
    seconds: float


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
            if SCALING in (path := Path(file)).parents:
                lines[module_of(path)] = data.contexts_by_lineno(file)
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
    here = set(lines.get(str(mutant.line), []))  # before those through the statement elsewhere
    order = sorted(through & seconds.keys(), key=lambda test: (test not in here, seconds[test]))
    for file in through - seconds.keys() - {""}:  # of which any test tells whether it is imported
        inside = [test for test in seconds if test.startswith(f"{file}::")]
        order = [*sorted(inside, key=lambda test: seconds[test])[:1], *order]
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
        importer = Importer(mutant)
        sys.meta_path.insert(0, importer)
        try:  # before pytest, which would import the files that it is given by itself
            importlib.import_module(importer.name)
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
            lines += ["", f"{x.module}.{x.function}, line {x.line} (#{x.number})", x.diff]
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
    parser.add_argument(
        "--control",
        action="store_true",
        help="leave the change out: what is killed then is no kill",
    )
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
            if given.control:
                mutant = replace(mutant, source=file_of(mutant.module).read_text())
            outcomes.append(run(mutant, covered))
            out.write(json.dumps(asdict(outcomes[-1])) + "\n")
            out.flush()
    print(report(outcomes, population))


if __name__ == "__main__":
    main()
