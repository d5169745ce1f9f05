"""Random pairs of rule and setting, calculus against simulator: `make fuzz N=10000`.

Rules have depth 2 to 4 and stand at step 1 or 2, under four activations and both losses, with
dampings that are derived or fixed far from balance, and with fewer and more samples than classes
and features, classes repeated or not. A pair agrees, is refused, or is flagged. What is flagged is
triaged: measured again at larger widths and more seeds, from other constants (`triage`). What
stays is a contradiction, and docs/soundness.md explains every one of a recorded run.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from simulator import Unread
from soundness import Answer, Question, disagreements, practice, theory

WIDTHS, SEEDS = (64, 128, 256, 512), 3
LARGER, MORE = ((256, 512, 1024), (512, 1024, 2048)), 4
LABELS = (
    (0, 1, 2),
    (0, 1, 2, 3, 4, 5),
    (0, 1, 2, 3, 0, 1, 2, 3),
    (1, 6, 0, 0, 4, 3, 5, 9),
    (*range(10), *range(4)),
)
LEFT, RIGHT = ("B", "L", "diag(B)", "block(B, 4)"), ("A", "R", "diag(A)", "block(A, 4)")
ENTRIES = (
    "sign({0})", "{0}/(abs({0}) + eps)", "{0}/(sqrt({0}*{0}) + eps)", "atan({0})", "{0}*abs({0})",
    "{0}/sqrt(row_mean({0}*{0}) + eps)", "{0}/sqrt(col_mean({0}*{0}) + eps)", "clip({0}, 1)",
    "sign({0})*abs({0})**(1/2)", "{0} - row_mean({0})", "orth({0})", "orth({0})",
)  # fmt: skip
SCALARS = (
    "norm(G)", "rms(G)", "norm(W)", "trace(A)", "rms(B)", "fan_in", "specnorm(R)", "norm({0})",
    "max(norm(G), 1)", "inner({0}, {0})", "over_layers(norm(G))",
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What became of one pair."""

    question: Question
    outcome: str
    details: str = ""


def update(draw: random.Random, depth: int) -> str:
    """A random update."""
    if depth == 0:
        return draw.choice(["G", "G", "G", "ema(G, beta)"])
    inner = f"({update(draw, depth - 1)})"
    kind = draw.randrange(7)
    if kind <= 1:
        side = draw.randrange(2)
        matrix = draw.choice((LEFT, RIGHT)[side])
        matrix = f"ema({matrix}, beta)" if draw.random() < 0.1 else matrix
        damping = draw.choice(["rho", "rho", f"rho*trace({matrix})", f"rho*specnorm({matrix})"])
        power = draw.choice(["-1", "-1/2", "-1/4", "-1"])
        square = f"({matrix} + {damping}*I)**({power})"
        return f"{square} @ {inner}" if side == 0 else f"{inner} @ {square}"
    if kind <= 3:
        return draw.choice(ENTRIES).format(inner)
    if kind == 4:
        scalar = draw.choice(SCALARS).format(inner)
        return f"{inner} {draw.choice('*/')} ({scalar}){draw.choice(['', '**(1/2)'])}"
    if kind == 5:
        return f"{inner} {draw.choice('+-')} {draw.choice('23')}*({update(draw, depth - 1)})"
    return draw.choice([f"{inner} @ A", f"L @ {inner}", f"G @ G.T @ {inner}", f"{inner} @ R"])


def question(draw: random.Random) -> Question:
    """A random pair of rule and setting."""
    rule = update(draw, draw.choice([2, 2, 3, 3, 4]))
    if draw.random() < 0.15:
        rule += " + decay*W"
    fixed = []
    for name in ("rho", "eps"):
        if name in rule and draw.random() < 0.5:  # as practice has it, or negligible, or drowning
            d, value = draw.choice([("0", "1/10"), ("2", "1/10000"), ("-1", "10"), ("1", "1/100")])
            fixed += [f"d_{name}={d}", f"{name}={value}"]
    return Question(
        rule, tuple(fixed),
        activation=draw.choice(["relu", "tanh", "gelu", "linear"]),
        loss=draw.choice(["mse", "cross_entropy"]),
        depth=draw.choice([2, 3, 3, 4]),
        step=draw.choice([1, 1, 2]),
        labels=draw.choice(LABELS),
        features=draw.choice([5, 16]),
    )  # fmt: skip


def asked(pair: Question) -> Found:
    """Theory and measurement of one pair."""
    answer = theory(pair)
    if answer.refusal:
        return Found(pair, "refused", answer.refusal)
    assert answer.exponents is not None
    if any(x.free_symbols for x in answer.own.values()):
        return Found(pair, "free")
    try:
        wrong = disagreements(answer, practice(pair, answer.exponents, WIDTHS, SEEDS))
        if not wrong:
            return Found(pair, "agrees")
        return triage(pair, answer, wrong)
    except (Unread, np.linalg.LinAlgError) as error:
        return Found(pair, "not simulated", str(error))


def triage(pair: Question, answer: Answer, wrong: dict[str, str]) -> Found:
    """Larger widths and more seeds: a slope that goes on towards what is predicted agrees."""
    assert answer.exponents is not None
    seen = [str(wrong)]
    free = [name for name in ("rho", "eps") if name in pair.rule and f"d_{name}" not in str(pair)]
    weaker = tuple(f"{name}=1/10000" for name in free)
    tries = [(pair, widths) for widths in LARGER]
    tries += [(replace(pair, fixed=(*pair.fixed, *weaker)), LARGER[-1])] if free else []
    for one, widths in tries:  # the last: dampings that follow a size start far below it
        again = disagreements(answer, practice(one, answer.exponents, widths, MORE))
        again = {name: text for name, text in again.items() if name in wrong}
        if not again:
            return Found(pair, "agrees at larger widths", str(wrong))
        seen.append(str(again))
    return Found(pair, "flagged", " | ".join(seen))


def fuzz(count: int, seed: int, limit: float = float("inf"), log: Path | None = None) -> Counter:
    """So many pairs, or as many as fit into ``limit`` seconds."""
    seen: Counter[str] = Counter()
    end = time.monotonic() + limit
    for i in range(count):
        if time.monotonic() > end:
            break
        found = asked(question(random.Random(f"{seed}/{i}")))
        seen[found.outcome] += 1
        if log is not None:
            row = {"n": i, "outcome": found.outcome, "details": found.details}
            row |= asdict(found.question) if found.outcome != "agrees" else {}
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
        if found.outcome == "flagged":
            print(found.question, found.details, sep="\n    ", flush=True)
    return seen


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    start = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    where = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    print(dict(fuzz(number, start, log=where)))
