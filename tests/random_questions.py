"""Random pairs of rule and setting, calculus against simulator: `make fuzz N=10000`.

Rules have depth 2 to 4 and stand at step 1 or 2, under four activations and both losses, with
dampings that are derived or fixed far from balance, and with fewer and more samples than classes
and features, classes repeated or not. Constants are such that in every sum that term leads which
grows faster (settled_terms.py), so that no width is needed at which it overtakes the other. What no
name of the rule weighs, outputs against their targets, is measured with two factors of the readout.

A pair is refused, or judged on rungs of growing widths: it `agrees` where all slopes lie within the
tolerance and their intervals are narrower; it is `noisy` where an interval stays wide and holds the
prediction; where it does not, the next rung judges (`crossover` if that agrees). What the last one
contradicts is `flagged`, and docs/soundness.md explains every one of a recorded run. The log is
appended to, so that a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from settled_terms import Sights
from simulator import Slope, Unread, own, slope
from soundness import TOLERANCE, Answer, Question, disagreements, network, theory

FADED, FELT = 0.01, 0.3
"""Factors of the readout at the smallest width: outputs are far below their targets, or near."""


@dataclass(frozen=True)
class Rung:
    """Widths of one slope, seeds that are doubled while noise decides, and where terms compare."""

    widths: tuple[int, ...]
    seeds: tuple[int, ...]
    sights: Sights
    readout: float = FADED


LADDER = (
    Rung((64, 256), (2, 4, 8, 16, 32), Sights((64, 256), (3, 12))),
    Rung((128, 512), (4, 8, 16), Sights((128, 512), (4, 16, 48))),
    Rung((128, 512), (4, 8, 16), Sights((128, 512), (4, 16, 48)), FELT),
    Rung((256, 1024), (4, 8, 16), Sights((256, 1024), lead=1e4)),
    Rung((512, 2048), (4, 8), Sights((256, 1024), (16, 48), lead=1e4)),
    Rung((1024, 4096), (3, 6), Sights((256, 1024), (16, 48), lead=1e4)),
    Rung((2**16, 2**18), (4, 8), Sights((256, 1024), (16, 48), lead=1e9)),
    Rung((2**16, 2**18), (4, 8), Sights((256, 1024), (16, 48), lead=30)),
)
"""Terms are compared at widths of a rung: what happens at width 64 misleads no later one.

On the last two, weights are known by what they do, in law. Of terms of which one leads by a lot,
what is raised is felt early; of terms of which it leads by little, what is left of a dominated one.
A layer whose rule asks for single entries of M x M is not read there: the rung before stands.
"""
SURE = 8
"""Seeds from which on a standard error is believed that contradicts."""
PATIENCE = 60.0
"""Seconds that the seeds of one rung may take, the first number of them aside."""
SHOWN = 50
"""Pairs of a short run, which are all printed."""
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
LARGER = (
    "{0}/(sqrt(running_max({0}*{0}, 1)) + {eps})", "{0}/(sqrt(yogi({0}*{0}, beta)) + {eps})",
    "{0}/(sqrt(running_sum({0}*{0})) + {eps})", "{0}/max(abs({0}), {eps})",
    "{0}*min(abs({0}), {eps})", "{0}/(sqrt(min(row_mean({0}*{0}), col_mean({0}*{0}))) + {eps})",
    "spectral_map({0}, min(sigma, {eps}))", "spectral_map({0}, sigma/sqrt(sigma**2 + {eps}))",
    "spectral_map({0}, sigma**(1/2))", "project({0}, 2)", "orth(project({0}, 2))",
    "inner(orth({0}), {0})*orth({0})", "{0} + {k}*previous({0})", "max(abs(G), {k}*abs({0}))*{0}",
    "agree({0}, G)*{0}",
)  # fmt: skip
"""Functions that came later: seeds from a thousand on draw them too."""


@dataclass(frozen=True)
class Found:
    """What became of one pair."""

    question: Question
    outcome: str
    details: str = ""


class Drawn(random.Random):
    """Random choices, and new names: a sixth of the dampings shares one."""

    count = 0
    entries: tuple[str, ...] = ENTRIES

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
        return draw.choice(draw.entries).format(inner, eps=draw.name("eps"), k=draw.name("k"))
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
        settled=tuple(names),
    )  # fmt: skip


def drawn(name: str) -> Question:
    """The pair of that name; seeds from a thousand on know more functions."""
    draw = Drawn(name)
    if int(name.partition("/")[0]) >= 1000:
        draw.entries = (*ENTRIES, *LARGER)
    return question(draw)


def asked(pair: Question, rungs: int = len(LADDER)) -> Found:
    """Theory and measurement of one pair, on so many rungs of the ladder."""
    answer = theory(pair)
    if answer.refusal:
        return Found(pair, "refused", answer.refusal)
    assert answer.exponents is not None
    if any(x.free_symbols for x in answer.own.values()):
        return Found(pair, "free")
    try:
        with np.errstate(all="ignore"):
            return climbed(pair, answer, rungs)
    except (Unread, np.linalg.LinAlgError) as error:
        return Found(pair, "not simulated", str(error))


def climbed(pair: Question, answer: Answer, rungs: int) -> Found:
    """Up the ladder as long as the slopes contradict the answer."""
    said, agreed = [], "agrees"
    slopes: dict[str, Slope] = {}
    for number, rung in enumerate(LADDER[:rungs]):
        try:
            verdict, slopes = judged(pair, answer, rung, slopes)
        except Unread as error:
            if not number:
                raise
            said.append(f"not read at {rung.widths}: {error}")
            break
        said.append(f"{verdict} at {rung.widths}: " + ", ".join(map(str, slopes.values())))
        if verdict == "agrees":
            return Found(pair, agreed, "; ".join(said))
        if verdict == "noisy" and number:  # draws scatter as much at any width
            return Found(pair, verdict, "; ".join(said))
        agreed = "crossover" if verdict == "contradicted" else agreed
    return Found(pair, "flagged" if rungs == len(LADDER) else "suspicious", "; ".join(said))


def judged(
    pair: Question, answer: Answer, rung: Rung, before: Mapping[str, Slope] = MappingProxyType({})
) -> tuple[str, dict[str, Slope]]:
    """agrees, noisy (an interval is wide and holds the prediction), open or contradicted.

    ``before``: the slopes on an earlier rung, for layers that are not read on this one.
    """
    assert answer.exponents is not None
    started, runs, slopes = time.process_time(), [], {}
    net = network(replace(pair, sights=rung.sights, readout=rung.readout), answer.exponents)
    verdict = "open"
    for count in rung.seeds:
        for seed in range(len(runs), count):
            runs.append([own(pair.rule, net, m, seed, pair.step).held for m in rung.widths])
        sizes = np.array(runs)
        slopes = {
            k: before[k]
            if k in before and np.isnan(sizes[..., i]).all()
            else slope(rung.widths, sizes[:, :, i])
            for i, k in enumerate(net.names)
        }
        wide = any(2 * x.error > TOLERANCE for x in slopes.values())
        if not wide and not disagreements(answer, slopes, errors=0.0):
            return "agrees", slopes
        far = disagreements(answer, slopes)
        verdict = "contradicted" if far else "noisy" if wide else "open"
        if (far and not wide and count >= SURE) or time.process_time() - started > PATIENCE:
            break
    return verdict, slopes


def recorded(log: Path) -> list[dict[str, Any]]:
    """The pairs of a log; a line that a kill left unfinished is cut off."""
    if not log.exists():
        return []
    text = log.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        log.write_text(whole)
    return [json.loads(line) for line in whole.splitlines()]


def named(count: int, seed: int) -> list[str]:
    """The first pairs of a seed. A name is all that a pair is drawn from."""
    return [f"{seed}/{i}" for i in range(count)]


def fuzz(names: list[str], rungs: int = len(LADDER), log: Path | None = None) -> Counter[str]:
    """What became of these pairs; those that the log holds are not asked again."""
    rows = recorded(log) if log is not None else []
    known = {row["pair"]: row["outcome"] for row in rows}
    seen: Counter[str] = Counter()
    for name in names:
        started = time.process_time()
        if name in known:
            seen[known[name]] += 1
            continue
        found = asked(drawn(name), rungs)
        seen[found.outcome] += 1
        if log is not None:
            row = {"pair": name, "outcome": found.outcome, "details": found.details}
            row |= {
                "seconds": round(time.process_time() - started, 2),
                "asked": str(found.question),
            }
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
        if found.outcome in ("flagged", "suspicious") or len(names) <= SHOWN:
            print(f"{name} {found.outcome}: {found.question}", found.details, sep="\n    ")
    return seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("--pairs", nargs="*", help="these alone, as 3/271: seed and number")
    parser.add_argument("--rungs", type=int, default=len(LADDER), help="stop below, as suspicious")
    parser.add_argument("--log", type=Path, help="a line of JSON for every pair; taken up again")
    asked_for = parser.parse_args()
    if asked_for.log is not None:
        asked_for.log.parent.mkdir(parents=True, exist_ok=True)
    names = asked_for.pairs or named(asked_for.count, asked_for.seed)
    seen = fuzz(names, asked_for.rungs, asked_for.log)
    print(
        f"{sum(seen.values())} pairs, {time.process_time() / len(names):.2f} s each: {dict(seen)}"
    )
