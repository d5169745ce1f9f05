"""Own updates at growing batches of one width, beside the powers of n that are derived.

Samples are drawn anew for every seed: inputs are a shared direction and noise, h_0 = (m + z)/sqrt2,
so that features overlap by order one; targets of 4 outputs are signs, drawn for every sample
(independent) or 1 for all (aligned). The width is far beyond the batch, n = 8 ... 64 at 131072, and
measured exactly in law (empirical/wide). Constants are calibrated once, in the middle of the
batches, and dampings are then as large as what they are added to; they follow the powers of n that
are derived, and learning rates stay. A power is the slope of log size over log n by least squares,
one a seed, with Student's interval; its bias, from corrections by 1/n, is within the margin. Seeds
are doubled while noise leaves a verdict open. Of rules that look at single entries SAMPLED_ROWS of
a layer are looked at: the draw of samples scatters powers more than these rows do.

Rules that no wide measurement covers, and those that the calculus refuses under a batch that grows,
have a line that says so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from sympy import Expr

from empirical.data.sources import Data
from empirical.fit.exponent import straight_slope
from empirical.fit.verdict import Verdict, judge_interval, overall
from empirical.measure.calibration import calibrate
from empirical.measure.measured_sizes import Quantity
from empirical.measure.trial import Constants, Trial
from empirical.verify.campaign import Experiment, Tick, trial_of
from empirical.verify.subject import Subject
from empirical.wide import Streaming, measure_wide
from empirical.wide.method import refuse_unless_wide
from scaling.models.batch import BatchGrowth
from scaling.sizes.errors import InvalidInput, NotCovered
from scaling.solve.batch_rule import GROWTHS, BatchRule, batch_rule

WIDTH, BASE = 2**17, 512
BATCHES = (8, 16, 32, 64)
SEEDS, MOST_SEEDS, MARGIN = 4, 32, 0.15
FEATURES, OUTPUTS, PROBE = 8, 4, 8
SAMPLED_ROWS = 64
CONFIDENCE = 0.95
FELT = 10.0
"""Dampings in units of a tenth of what they are added to: as large as that. Smaller ones let weak
directions of single samples through, whose eigenvalues fall as 1/n, until n is in the hundreds."""


@dataclass(frozen=True)
class MeasuredPower:
    """A measured power of n, with the interval that noise over seeds leaves."""

    slope: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class BatchCheck:
    """One power of n, derived and measured."""

    rule: str
    layer: str
    growth: BatchGrowth
    predicted: Expr
    measured: MeasuredPower
    verdict: Verdict


@dataclass(frozen=True)
class BatchSweep:
    """All checks of a run; ``left_out`` says of which rules there are none, and why.

    ``seeds``: the fewest that a check took; each has its own number.
    """

    checks: tuple[BatchCheck, ...]
    left_out: Mapping[str, str]
    derived: Mapping[str, BatchRule]
    width: int
    batches: tuple[int, ...]
    seeds: int
    margin: float
    seconds: float

    @property
    def verdict(self) -> Verdict:
        """Of all checks together; inconclusive without any."""
        return overall([x.verdict for x in self.checks] or [Verdict.inconclusive])


def samples(count: int, growth: BatchGrowth, seed: int) -> Data:
    """So many samples to train on, the first ones of the draw of a seed.

    >>> samples(4, BatchGrowth.ALIGNED, 0).targets.unique()
    tensor([1.], dtype=torch.float64)
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*sides: int) -> torch.Tensor:
        return torch.randn(*sides, generator=generator, dtype=torch.float64)

    most = max(count, BATCHES[-1])
    shared, probe = normal(1, FEATURES), normal(PROBE, FEATURES)
    shared *= FEATURES**0.5 / shared.norm()
    inputs, signs = normal(most, FEATURES), normal(most, OUTPUTS)
    aligned = growth is BatchGrowth.ALIGNED
    targets = torch.ones_like(signs) if aligned else torch.where(signs > 0, 1.0, -1.0).double()
    return Data(
        ((shared + inputs) / 2**0.5)[:count], targets[:count], (shared + probe) / 2**0.5,
        torch.ones(PROBE, OUTPUTS, dtype=torch.float64), f"{growth} samples",
    )  # fmt: skip


def sweep(
    subjects: Sequence[Subject],
    batches: Sequence[int] = BATCHES,
    width: int = WIDTH,
    seeds: int = SEEDS,
    margin: float = MARGIN,
    streaming: Streaming | None = None,
    first_seed: int = 0,
    tick: Tick | None = None,
    most: int = MOST_SEEDS,
) -> BatchSweep:
    """Measure own updates of every rule at every batch, and judge their powers of n.

    ``most``: seeds at which a verdict that noise leaves open stays open.

    Raises:
        InvalidInput: for batches that the width does not exceed by far, or a rule without numbers.
    """
    start = time.perf_counter()
    if 64 * batches[-1] > width:
        raise InvalidInput(
            f"a batch of {batches[-1]} at width {width}",
            f"a width of at least 64 times the batch, {64 * batches[-1]}",
            "take smaller batches: --axis batch=4:64",
        )
    checks: list[BatchCheck] = []
    left_out: dict[str, str] = {}
    derived: dict[str, BatchRule] = {}
    for done, subject in enumerate(subjects):
        problem = subject.problem
        try:
            found = batch_rule(problem.rule, problem.settings, problem.setting)
            refuse_unless_wide(problem.rule, width, own_only=True)
            sweeps = [
                _Sweep(subject, found, growth, tuple(batches), width, streaming, most)
                for growth in GROWTHS
            ]
            checks += [x for at in sweeps for x in at.checks(first_seed, seeds, margin)]
        except (NotCovered, InvalidInput) as error:
            left_out[subject.name] = error.found
            continue
        derived[subject.name] = found
        if tick is not None:
            tick(subject.name, done + 1, len(subjects))
    seconds = time.perf_counter() - start
    return BatchSweep(
        tuple(checks), left_out, derived, width, tuple(batches), seeds, margin, seconds
    )


@dataclass(frozen=True)
class _Sweep:
    """One rule on samples of one kind."""

    subject: Subject
    found: BatchRule
    growth: BatchGrowth
    batches: tuple[int, ...]
    width: int
    streaming: Streaming | None
    most: int

    @property
    def middle(self) -> int:
        """The batch of the calibration."""
        return self.batches[len(self.batches) // 2]

    def trial(self, count: int, seed: int) -> Trial:
        """The rule on so many samples."""
        data = samples(count, self.growth, seed)
        return trial_of(self.subject.on(data), Experiment((self.width,), 1, MARGIN, data))

    def sizes(self, constants: Constants, seed: int) -> dict[str, list[float]]:
        """Own updates by layer, at every batch."""
        row: dict[str, list[float]] = {}
        for count in self.batches:
            at = _followed(constants, self.found, self.growth, count / self.middle)
            measured = measure_wide(
                self.trial(count, seed), at, self.width, seed, streaming=self.streaming,
                quantity=Quantity.OWN, sampled_rows=SAMPLED_ROWS,
            )  # fmt: skip
            for layer, x in measured.sizes.items():
                row.setdefault(layer, []).append(x.own)
        return row

    def checks(self, first_seed: int, seeds: int, margin: float) -> list[BatchCheck]:
        """A verdict on every layer, from twice as many seeds while noise leaves one open."""
        constants = _felt(calibrate(self.trial(self.middle, first_seed), BASE), self.subject)
        rows: list[dict[str, list[float]]] = []
        while True:
            rows += [self.sizes(constants, first_seed + i) for i in range(len(rows), seeds)]
            checks = [self._check(layer, [row[layer] for row in rows], margin) for layer in rows[0]]
            if all(x.verdict is not Verdict.inconclusive for x in checks) or seeds >= self.most:
                return checks
            seeds *= 2

    def _check(self, layer: str, table: list[list[float]], margin: float) -> BatchCheck:
        fit, power = power_of(self.batches, table), self.found.own(layer, self.growth)
        verdict = judge_interval(fit.low, fit.high, float(power), margin)
        return BatchCheck(self.subject.name, layer, self.growth, power, fit, verdict)


def power_of(batches: Sequence[int], table: Sequence[Sequence[float]]) -> MeasuredPower:
    """The power of n of sizes, an array (seeds, batches).

    >>> power_of((8, 16, 32), [[8.0, 16.0, 32.0], [1.0, 2.0, 4.0]]).slope
    1.0
    """
    slope, low, high = straight_slope(batches, table, CONFIDENCE)
    return MeasuredPower(round(slope, 9), round(low, 9), round(high, 9), len(table))


def _felt(constants: Constants, subject: Subject) -> Constants:
    """The same with dampings as large as what they are added to; those that are given stay."""
    rule = subject.problem.rule
    given = {*rule.decays, *rule.radii, *subject.problem.settings.values, *subject.declared.values}
    rho = {
        layer: {k: x if k in given else FELT * x for k, x in values.items()}
        for layer, values in constants.rho.items()
    }
    return replace(constants, rho=rho)


def _followed(
    constants: Constants, found: BatchRule, growth: BatchGrowth, times: float
) -> Constants:
    """The constants at a batch that is so many times as large, at the same learning rates."""
    rho = {
        layer: {
            k: x * times ** float(found.at_one_rate(layer, growth)[k]) for k, x in values.items()
        }
        for layer, values in constants.rho.items()
    }
    return replace(constants, rho=rho)
