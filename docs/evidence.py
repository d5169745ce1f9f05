"""Print the rules of inference, with what measuring the lines that apply them said.

    python docs/evidence.py RULE...    measure the derivations of these rules, minutes
    python docs/evidence.py            print the table of docs/evidence.json, which that wrote

Every line of each derivation is measured on dense networks, as `scaling explain --measured` does.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from scaling.sizes import derivation
from scaling.sizes.derivation import Inference

KEPT = Path(__file__).with_name("evidence.json")
WIDTHS, SEEDS = (64, 128, 256, 512, 1024), 8


def inferences() -> list[Inference]:
    """The rules of inference of the chain, in the order in which they are written."""
    return [x for x in vars(derivation).values() if isinstance(x, Inference)]


def measured(rules: list[str]) -> dict[str, dict[str, int]]:
    """Inference -> verdict -> how many lines."""
    from empirical.data.sources import load
    from empirical.measure.machine import blas_threads
    from empirical.verify.campaign import RunRequest, deep_experiment, trial_of
    from empirical.verify.derivation_lines import measured_lines
    from scaling.cli.requests import problem_of, solution_of, subject_of

    found: dict[str, Counter[str]] = {}
    data = load("digits", None, samples=4)
    experiment = deep_experiment(RunRequest(data, WIDTHS, SEEDS))
    for rule in rules:
        problem = problem_of(rule, None, practice=True, numbers=data.numbers)
        steps = solution_of(problem).steps
        trial = trial_of(subject_of(rule, problem), experiment)
        with blas_threads(1):
            lines = measured_lines(trial, steps, WIDTHS, SEEDS, experiment.margin)
        for line in (x for several in lines.values() for x in several):
            if line.verdict is not None:
                name = line.step.inference.name
                found.setdefault(name, Counter())[line.verdict.name] += 1
        print(rule, dict(sum(found.values(), Counter())), file=sys.stderr)
    return {name: dict(count) for name, count in found.items()}


def main() -> None:
    """Measure, or print."""
    if rules := sys.argv[1:]:
        kept = {"rules": rules, "widths": WIDTHS, "seeds": SEEDS, "verdicts": measured(rules)}
        KEPT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    told = json.loads(KEPT.read_text(encoding="utf-8"))
    print("| rule of inference | states | source | lines that apply it, measured |")
    print("| --- | --- | --- | --- |")
    for x in inferences():
        verdicts = told["verdicts"].get(x.name, {})
        seen = ", ".join(f"{n} {name}" for name, n in sorted(verdicts.items()))
        statement = x.statement.replace("|", r"\|")
        print(f"| {x.name} | {statement} | {x.reference} | {seen or 'not in these derivations'} |")
    last = told["widths"][-1]
    print(
        f"\nRules: {', '.join(told['rules'])}. Dense networks of {told['widths'][0]} to {last} "
        f"neurons a layer, {told['seeds']} seeds, 4 samples."
    )


if __name__ == "__main__":
    main()
