"""Random pairs of rule and setting, calculus against simulator: `make fuzz N=10000`.

Rules have depth 2 to 4 and stand at step 1 or 2, under four activations and both losses, with
dampings that are derived or fixed far from balance, and with fewer and more samples than classes
and features, classes repeated or not. A pair agrees, is refused, or is suspicious and goes up a
ladder of widths and seeds (`LADDER`). What the last rung contradicts is measured from constants
that lie far apart (`apart`): a crossover agrees there, and its slope at the constants that were
drawn moves towards what is predicted. What stays is flagged, and docs/soundness.md explains every
one of a recorded run.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from simulator import Slope, Unread
from soundness import Answer, Question, disagreements, practice, theory

LADDER = (((128, 512), 2), ((256, 1024), 3), ((512, 1024, 2048), 6))
"""Widths and seeds: the last rung is the upper half of 128 .. 2048."""
DEAR, SMALLER = 3.0, (256, 512, 1024)
"""Beyond so many seconds of the rung below, the last one has these widths."""
CLOSE = 0.25
"""On the first rung, the distance between prediction and slope, however noisy, that is accepted."""
LABELS = (
    (0, 1, 2),
    (0, 1, 2, 3, 4, 5),
    (0, 1, 2, 3, 0, 1, 2, 3),
    (1, 6, 0, 0, 4, 3, 5, 9),
    (*range(10), *range(4)),
)
LEFT, RIGHT = ("B", "L", "diag(B)", "block(B, 4)"), ("A", "R", "diag(A)", "block(A, 4)")
ENTRIES = (
    "sign({0})", "{0}/(abs({0}) + {eps})", "{0}/(sqrt({0}*{0}) + {eps})", "atan({k}*{0})",
    "{0}*abs({0})", "{0}/sqrt(row_mean({0}*{0}) + {eps})", "{0}/sqrt(col_mean({0}*{0}) + {eps})",
    "clip({k}*{0}, 1)", "sign({0})*abs({0})**(1/2)", "{0} - row_mean({0})", "orth({0})",
    "orth({0})",
)  # fmt: skip
SCALARS = (
    "norm(G)", "rms(G)", "norm(W)", "trace(A)", "rms(B)", "fan_in", "specnorm(R)", "norm({0})",
    "max(norm(G), {k})", "inner({0}, {0})", "over_layers(norm(G))",
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What became of one pair."""

    question: Question
    outcome: str
    details: str = ""


class Drawn(random.Random):
    """Random choices, and new names: a sixth of the dampings shares one."""

    count = 0

    def name(self, kind: str) -> str:
        self.count += 1
        is_own = kind == "k" or self.random() < 5 / 6
        return f"{kind}_{self.count if is_own else 0}"


def update(draw: Drawn, depth: int) -> str:
    """A random update."""
    if depth == 0:
        return draw.choice(["G", "G", "G", "ema(G, beta)"])
    inner = f"({update(draw, depth - 1)})"
    kind = draw.randrange(7)
    if kind <= 1:
        side = draw.randrange(2)
        matrix = draw.choice((LEFT, RIGHT)[side])
        matrix = f"ema({matrix}, beta)" if draw.random() < 0.1 else matrix
        rho = draw.name("rho")
        damping = draw.choice([rho, rho, f"{rho}*trace({matrix})", f"{rho}*specnorm({matrix})"])
        power = draw.choice(["-1", "-1/2", "-1/4", "-1"])
        square = f"({matrix} + {damping}*I)**({power})"
        return f"{square} @ {inner}" if side == 0 else f"{inner} @ {square}"
    if kind <= 3:
        return draw.choice(ENTRIES).format(inner, eps=draw.name("eps"), k=draw.name("k"))
    if kind == 4:
        scalar = draw.choice(SCALARS).format(inner, k=draw.name("k"))
        return f"{inner} {draw.choice('*/')} ({scalar}){draw.choice(['', '**(1/2)'])}"
    if kind == 5:
        other = update(draw, depth - 1)
        return f"{inner} {draw.choice('+-')} {draw.name('k')}*({other})"
    return draw.choice([f"{inner} @ A", f"L @ {inner}", f"G @ G.T @ {inner}", f"{inner} @ R"])


def question(draw: Drawn) -> Question:
    """A random pair of rule and setting."""
    rule = update(draw, draw.choice([2, 2, 3, 3, 4]))
    if draw.random() < 0.15:
        rule += " + decay*W"
    names = sorted(set(re.findall(r"\b(?:(?:rho|eps|k)_\d+|decay)\b", rule)))
    fixed = [
        f"d_{name}={draw.choice(['0', '2', '-1', '1', '1/2'])}"  # far from balance, most of them
        for name in names
        if name[:2] in ("rh", "ep") and draw.random() < 0.4
    ]
    fixed += [f"{name}=2" for name in names if name[0] == "k"]  # twice: equal terms do not cancel
    return Question(
        rule, tuple(fixed),
        activation=draw.choice(["relu", "tanh", "gelu", "linear"]),
        loss=draw.choice(["mse", "cross_entropy"]),
        depth=draw.choice([2, 3, 3, 4]),
        step=draw.choice([1, 1, 2]),
        labels=draw.choice(LABELS),
        features=draw.choice([5, 16]),
        readout=0.1,
        balanced=tuple(names),
    )  # fmt: skip


def asked(pair: Question, rungs: int = len(LADDER)) -> Found:
    """Theory and measurement of one pair, on so many rungs of the ladder."""
    answer = theory(pair)
    if answer.refusal:
        return Found(pair, "refused", answer.refusal)
    assert answer.exponents is not None
    if any(x.free_symbols for x in answer.own.values()):
        return Found(pair, "free")
    try:
        return climbed(pair, answer, rungs)
    except (Unread, np.linalg.LinAlgError) as error:
        return Found(pair, "not simulated", str(error))


def climbed(pair: Question, answer: Answer, rungs: int) -> Found:
    """Up the ladder as long as the slopes contradict the answer, or are too noisy to tell."""
    assert answer.exponents is not None
    took, seen = 0.0, []
    for rung, (widths, seeds) in enumerate(LADDER[:rungs]):
        started = time.monotonic()
        slopes = practice(pair, answer.exponents, SMALLER if took > DEAR else widths, seeds)
        seen.append(slopes)
        took = time.monotonic() - started
        wrong = disagreements(answer, slopes, *((CLOSE, 0.0) if rung == 0 else ()))
        if not wrong:
            return Found(pair, "agrees", f"at {widths}" if rung else "")
        if rung == 1 and is_crossover(pair, answer, wrong, seen):
            return Found(pair, "crossover", str(wrong))
    return Found(pair, "suspicious" if rungs < len(LADDER) else "flagged", str(wrong))


def is_crossover(
    pair: Question, answer: Answer, wrong: dict[str, str], seen: list[dict[str, Slope]]
) -> bool:
    """Whether constants decide: slopes go on towards the prediction, and from others it holds."""
    assert answer.exponents is not None
    for name in wrong:
        x = answer.own[name]
        if not x.is_finite:
            return False
        early, late = (abs(slopes[name].exponent - float(x)) for slopes in seen[:2])
        if late > early + 2 * seen[1][name].error:
            return False
    for other in apart(pair):
        slopes = practice(other, answer.exponents, *LADDER[0])
        if not set(wrong) & set(disagreements(answer, slopes, CLOSE, 0.0)):
            return True
    return False


def apart(pair: Question) -> Iterator[Question]:
    """The same pair with terms far from alike at the smallest width, each way and name by name."""
    for value in ("1/1000", "1000"):
        for name in pair.balanced:
            yield replace(pair, fixed=(*pair.fixed, f"{name}={value}"))


def fuzz(
    count: int, seed: int, rungs: int = len(LADDER), log: Path | None = None, first: int = 0
) -> Counter[str]:
    """What became of so many pairs."""
    seen: Counter[str] = Counter()
    for i in range(first, first + count):
        started = time.monotonic()
        found = asked(question(Drawn(f"{seed}/{i}")), rungs)
        seen[found.outcome] += 1
        if log is not None:
            row = {"pair": f"{seed}/{i}", "outcome": found.outcome, "details": found.details}
            row |= {"seconds": round(time.monotonic() - started, 2)}
            with log.open("a") as file:
                file.write(json.dumps(row | asdict(found.question)) + "\n")
        if found.outcome in ("flagged", "crossover"):
            print(f"{seed}/{i} {found.outcome}: {found.question}", found.details, sep="\n    ")
    return seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first pair of the seed")
    parser.add_argument("--rungs", type=int, default=len(LADDER), help="stop below, as suspicious")
    parser.add_argument("--log", type=Path, help="a line of JSON for every pair")
    asked_for = parser.parse_args()
    print(dict(fuzz(**vars(asked_for))))
