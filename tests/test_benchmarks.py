"""Benchmarks are run by hand, so what they name is held against the files here."""

import ast
import importlib
import json
import re
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from empirical.data.sources import load
from empirical.verify.campaign import RunRequest, plan
from empirical.verify.verification import verify_all
from scaling.cli.requests import problem_of, subject_of

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
PLAN = runpy.run_path(str(ROOT / "benchmarks" / "mutation_plan.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.name)
def test_a_benchmark_imports_names_that_exist(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in (
            "scaling", "derivations", "empirical",
        ):  # fmt: skip
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


@pytest.mark.parametrize(("name", "rule"), [("batch", "sign"), ("verified", "sgd")])
def test_a_page_is_made_of_its_records(
    name: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And counts a line that contradicts what is derived as one that does."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    table = runpy.run_path(str(ROOT / "benchmarks" / f"{name}_table.py"))
    records = json.loads((ROOT / "docs" / f"{name}.json").read_text())
    text = (ROOT / "docs" / f"{name}.md").read_text()
    assert table["page"](records) == text
    assert set(records) <= set(table["names"]())
    records[rule]["checks"][0]["verdict"] = "contradict"
    lines = [x for x in table["page"](records).splitlines() if x.startswith(f"* **{rule}**: ")]
    assert lines and all(x.endswith("not explained: a known limit") for x in lines)
    assert not set(lines) & set(text.splitlines())


def test_records_are_kept_as_they_come_and_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("records")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    mine, others = (module.Records("rules", lambda x: f"{len(x)} rules") for _ in range(2))
    assert mine.read() == {}
    mine.add("sgd", {"checks": [1]})
    others.add("adam", {"checks": []})
    mine.add("sgd", {"checks": [2]})
    assert mine.read() == {"sgd": {"checks": [2]}, "adam": {"checks": []}}
    assert (tmp_path / "rules.md").read_text() == "2 rules"
    assert mine.wanted([], ["lion", "sgd", "adam"]) == ["lion"]
    assert mine.wanted(["sgd"], ["lion", "sgd"]) == ["sgd"]
    known = ["lion", "sgd", "tiger"]
    mine.measure([], known, lambda name: {"checks": [name], "left_out": ""}, lambda x: "measured")
    assert {name: mine.read()[name]["checks"] for name in known} == {
        "lion": ["lion"], "sgd": [2], "tiger": ["tiger"],
    }  # fmt: skip
    assert (tmp_path / "rules.md").read_text() == "4 rules"


def test_a_rule_is_measured_as_verify_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("verified_table")
    few = {"widths": (64, 128, 256), "seeds": 2}
    monkeypatch.setattr(module, "RunRequest", partial(RunRequest, **few))
    record = module.measured("sgd")
    data = load("digits", samples=16)
    subject = subject_of("sgd", problem_of("sgd", None, practice=True, numbers=data.numbers))
    found = verify_all(plan([subject], RunRequest(data, threads=1, **few)))
    assert [x["mode"] for x in record["series"]] == ["wide", "dense"]
    assert record["series"][0] == {"mode": "wide", "widths": [64, 256], "seeds": 2}
    assert [(x["mode"], x["layer"], x["quantity"], x["verdict"]) for x in record["checks"]] == [
        (x.mode, x.layer, x.quantity, x.verdict) for x in found.checks
    ]
    assert [x["measured"] for x in record["checks"]] == pytest.approx(
        [x.measured.slope for x in found.checks], abs=1e-3
    )


def test_mutation_testing_finds_every_module_of_scaling() -> None:
    files = sorted((ROOT / "scaling").rglob("*.py"))
    found = PLAN["modules"]()
    assert [PLAN["file_of"](module) for module in found] == files
    assert {"rules.tree", "calculus.read", "cli.main", "cli.__init__", "__init__"} <= set(found)


def test_mutants_of_the_command_line_alone_meet_the_tests_of_commands() -> None:
    of_commands = {x for x in PLAN["modules"]() if "commands" in PLAN["stages_of"](x)}
    inside = {path.stem for path in (ROOT / "scaling" / "cli").glob("*.py")}
    assert of_commands == {f"cli.{name}" for name in inside}


def test_what_mutants_meet_exists() -> None:
    stages = PLAN["STAGES"]
    for stage in stages.values():
        for word in stage.collected:
            assert " " in word or word == "-k" or (ROOT / word).exists(), word
    files = [word for word in stages["theory"].collected if word.endswith(".py")]
    tests = {x for file in files for x in re.findall(r"def (test_\w+)", (ROOT / file).read_text())}
    unknown = [word for word in PLAN["LONG"] if not any(word in test for test in tests)]
    assert tests and not unknown, f"no test of the theory is named {unknown}"


@pytest.mark.parametrize(
    ("module", "name"),
    [("sizes.errors", "scaling.sizes.errors"), ("sizes.__init__", "scaling.sizes")],
)
@pytest.mark.parametrize("planted", [True, False])
def test_a_mutant_takes_the_place_of_its_module(module: str, name: str, planted: bool) -> None:
    code = f"""
import importlib, runpy, sys
plan = runpy.run_path("benchmarks/mutation_plan.py")
source = plan["file_of"]({module!r}).read_text() + "\\nPLANTED = True\\n"
mutant = plan["Mutant"]({module!r}, 0, "", (), 0, "", source)
if {planted}:
    sys.meta_path.insert(0, plan["Importer"](mutant))
import scaling.sizes.errors  # through the package and its neighbours
print(hasattr(sys.modules[{name!r}], "PLANTED"))
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == str(planted), run.stderr


def test_a_cold_start_takes_little_beside_that_of_sympy() -> None:
    """The benchmark asks for 1.4; what an import too many costs is counted in test_imports.py.

    A busy machine adds 0.05 at times, so it is one of four medians that has to be below.
    """
    cold = runpy.run_path(str(ROOT / "benchmarks" / "cold_start.py"))
    assert any(cold["ratio"](cold["measured"](5), 1) < 1.4 for _ in range(4))


WALKS = {
    "derivation": ["derive", "kfac"],
    "measurement": ["verify", "adam", "--mode", "wide", "--widths", "64,128,256", "--seeds", "2",
                    "--threads", "1"],
}  # fmt: skip
DECLARATIONS = {"derivations/kfac.py"}
"""Opened by a reader; nothing in them runs but what an import runs."""


@pytest.mark.parametrize("name", [pytest.param(x, marks=pytest.mark.slow) for x in WALKS])
def test_a_walk_of_a_reader_is_what_the_command_runs_through(name: str) -> None:
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    part = page.partition(f"### Follow a {name}")[2].partition("\n##")[0]
    part = "\n".join(line for line in part.splitlines() if line.startswith("|"))
    opened = set(re.findall(r"`((?:scaling|empirical|derivations)/[\w/]+\.py)`", part))
    (row,) = re.findall(r"files that are opened \| \d+ \| (\d+) \|", part)
    assert len(opened) == int(row)
    run = subprocess.run(
        [sys.executable, "benchmarks/walk.py", "--names", *WALKS[name]],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    ran = run.stdout.split()
    assert opened - set(ran) <= DECLARATIONS
    ((said, lines),) = re.findall(r"their lines \| .* \| (\d+) of ([\d,]+) \|", part)
    assert len(ran) == pytest.approx(int(said), rel=0.1)
    counted = sum(len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in ran)
    assert counted == pytest.approx(int(lines.replace(",", "")), rel=0.1)
