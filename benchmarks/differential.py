"""Two checkouts of the theory, asked the same questions: where do their answers differ?

    python benchmarks/differential.py OLD NEW [--rules 10000] [--keep FOLDER]

OLD and NEW are checkouts, or files of answers that an earlier run kept. Both derive the rules of
the catalogue and of the bridge (tests/test_bridge.py), at the first and at the second step, and
random rules: half of them drawn from the grammar (tests/fuzzing.py), half bred from the catalogue
and the bridge, with parts of one rule in the place of parts of another. What is compared: exponents
and what one step does, refusals, regimes and assumptions, lines of derivations.

A change that is to leave results alone is checked with it; nothing is said of which side is right.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WIDEST = 1000
PARTS = ("outcome", "exponents", "prediction", "regimes", "assumptions", "derivation")

Question = dict[str, Any]
Answer = dict[str, Any]


# --- questions ----------------------------------------------------------------------------------


def question(rule: str, given: Iterable[str] = (), **options: Any) -> Question:
    """One rule in a setting."""
    return {
        "rule": rule, "given": list(given), "activation": "RELU", "loss": "MSE", "biases": False,
        "sampled": False, "step": 1, **options,
    }  # fmt: skip


def known_questions() -> list[Question]:
    """The catalogue and the bridge, at both steps, with a readout that starts at zero too."""
    from test_bridge import CASES, REFUSED

    from derivations.catalogue import catalogue

    found = []
    for case in CASES:
        text = str(catalogue()[case.rule].rule) if case.rule in catalogue() else case.rule
        for step in (1, 2):
            found.append(
                question(
                    text, case.settings, activation=case.activation.name, loss=case.loss.name,
                    biases=case.biases, sampled=case.sampled, step=step,
                )
            )  # fmt: skip
    for text in (str(one.rule) for one in catalogue().values()):
        for step in (1, 2):
            found.append(question(text, ["b_output=oo"], step=step))
            found.append(question(text, biases=True, activation="TANH", step=step))
    for text in REFUSED:
        rule, *given = text.split("; ")
        found.append(question(rule, given))
    return found


def drawn(count: int) -> list[Question]:
    """Rules from the grammar, always the same."""
    from fuzzing import cases
    from hypothesis import HealthCheck, Phase, given, settings

    found: list[Question] = []

    @settings(
        max_examples=count, deadline=None, database=None, derandomize=True,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(cases())
    def collect(case: Any) -> None:
        fixed = [x for x in case.fixed]
        found.append(question(case.rule, fixed, activation=case.activation.name))

    collect()
    return found


def bred(count: int, parents: Iterable[Question]) -> Iterator[Question]:
    """Rules made of parts of others of the same shape, always the same."""
    from scaling.rules.parser import parse
    from scaling.rules.rewrites import substitute
    from scaling.sizes.errors import ScalingError

    draw = random.Random(0)
    trees = [parse(text).expression for text in dict.fromkeys(q["rule"] for q in parents)]
    parts: dict[str, list[Any]] = {}
    for node in (node for tree in trees for node in tree.walk()):
        parts.setdefault(str(node.shape), []).append(node)
    seen: set[str] = set()
    while len(seen) < count:
        tree = draw.choice(trees)
        for _ in range(draw.randint(1, 2)):
            old = draw.choice(list(tree.walk()))
            new = draw.choice(parts.get(str(old.shape), [old]))
            try:
                tree = parse(str(substitute(tree, {old: new}))).expression
            except ScalingError:
                continue
        if str(tree) in seen or len(list(tree.walk())) > 60:
            continue
        seen.add(str(tree))
        options = {
            "activation": draw.choice(["RELU", "TANH"]), "biases": draw.random() < 0.1,
            "loss": draw.choice(["MSE", "MSE", "CROSS_ENTROPY"]), "sampled": draw.random() < 0.1,
            "step": draw.choice([1, 1, 2]),
        }  # fmt: skip
        given = [[], [], [], ["b_output=oo"], ["b_output=3/4"]][draw.randrange(5)]
        yield question(str(tree), given, **options)


def questions(rules: int) -> list[Question]:
    """All of them, each once."""
    sys.path.insert(0, str(ROOT / "tests"))
    known = known_questions()
    random_ = [*drawn(rules // 2), *bred(rules - rules // 2, known)]
    random.Random(1).shuffle(random_)  # what is done first stands for the whole
    unique = {json.dumps(q, sort_keys=True): q for q in (*known, *random_)}
    return list(unique.values())


# --- answers, in the checkout that is asked -----------------------------------------------------


def answer(asked: Question) -> Answer:
    """What this checkout says, by public names alone."""
    import scaling

    try:
        layers = scaling.mlp(3, asked["biases"])
        setting = scaling.Setting(
            layers, scaling.Activation[asked["activation"]], scaling.Loss[asked["loss"]]
        )
        rule = scaling.parse(asked["rule"])
        chosen = scaling.read_settings(asked["given"], rule, layers)
        found = scaling.derive(
            rule, chosen, setting, sampled_fisher=asked["sampled"], step=asked["step"]
        )
    except scaling.ScalingError as error:
        return {"outcome": [type(error).__name__, error.found, error.needed, error.do_this]}
    except Exception as error:  # a fault, which is an answer too
        return {"outcome": ["fault", type(error).__name__, str(error)]}
    x = found.exponents
    result: Answer = {
        "outcome": "derived",
        "exponents": [_text(x.b), _text(x.c), {k: _text(d) for k, d in x.d.items()}, *found.free],
        "regimes": {k: list(dict.fromkeys(map(str, r))) for k, r in found.regimes.items()},
        "assumptions": list(found.assumptions),
        "derivation": {k: list(map(_line, line.lines())) for k, line in found.steps.items()},
    }
    try:
        one = scaling.predict(found.problem, x, found.bounds)
        result["prediction"] = {
            k: [str(p.init), str(p.own), str(p.feature), str(p.regime), str(p.shrink)]
            for k, p in one.layers.items()
        }
    except scaling.ScalingError as error:
        result["prediction"] = [type(error).__name__, error.found]
    return result


def _text(values: Any) -> dict[str, str]:
    return {key: str(value) for key, value in values.items()}


def _line(step: Any) -> str:
    numbers = f"{step.subject} = {step.result} = {step.numbers}"
    return f"{step.time} {step.inference.name}: {numbers} | {step.assumption}"


def answers(side: str, asked: Path, folder: Path) -> list[Answer]:
    """What a checkout answers, or a file that was kept."""
    if Path(side).is_file():
        return _read(Path(side))
    out = folder / f"{Path(side).resolve().name}.jsonl"
    environment = {**os.environ, "PYTHONPATH": str(Path(side).resolve())}
    subprocess.run(
        [sys.executable, __file__, "--answer", str(asked), str(out)], check=True, env=environment
    )
    return _read(out)


def _read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _write(path: Path, rows: Iterable[Any]) -> None:
    with path.open("w") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
            file.flush()


# --- comparison ---------------------------------------------------------------------------------


def compare(asked: list[Question], old: list[Answer], new: list[Answer], shown: int) -> bool:
    """Print how often each part differs, with examples; whether all is the same."""
    differing: dict[str, list[tuple[Question, Any, Any]]] = {}
    for one, x, y in zip(asked, old, new, strict=True):
        for part in PARTS:
            if x.get(part) != y.get(part):
                differing.setdefault(part, []).append((one, x.get(part), y.get(part)))
                if part == "outcome":  # all else differs with it
                    break
    kinds = Counter(x["outcome"] if isinstance(x["outcome"], str) else x["outcome"][0] for x in old)
    print(f"{len(asked)} questions; the first side's answers: {dict(kinds)}")
    for part in PARTS:
        cases = differing.get(part, [])
        print(f"{part}: {len(cases)} differ")
        for one, x, y in cases[:shown]:
            about = {k: v for k, v in one.items() if k != "rule" and v}
            print(f"  {one['rule']}  {about}")
            print(f"    old {_short(x, y)[:WIDEST]}\n    new {_short(y, x)[:WIDEST]}")
    return not differing


def _short(x: Any, other: Any) -> str:
    """What one side has and the other lacks."""
    if isinstance(x, dict) and isinstance(other, dict):
        return str({k: _short(v, other.get(k)) for k, v in x.items() if v != other.get(k)})
    if isinstance(x, list) and isinstance(other, list):
        missing = [v for v in x if v not in other]
        return str(missing or x)
    return str(x)


def main() -> None:
    """Compare, or answer for a comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sides", nargs=2, metavar=("OLD", "NEW"))
    parser.add_argument("--rules", type=int, default=10_000, help="how many random rules")
    parser.add_argument("--keep", type=Path, help="a folder for questions and answers")
    parser.add_argument("--show", type=int, default=5, help="examples of each kind of difference")
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.answer:
        asked, out = map(Path, chosen.sides)
        _write(out, map(answer, _read(asked)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"questions-{chosen.rules}.jsonl"
        if not path.exists():
            _write(path, questions(chosen.rules))
        old, new = (answers(side, path, folder) for side in chosen.sides)
        sys.exit(not compare(_read(path), old, new, chosen.show))


if __name__ == "__main__":
    main()
