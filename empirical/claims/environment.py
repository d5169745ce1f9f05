"""Where and how large a claim is run: tier, device, threads, and the folder of finished cells.

Three tiers are three sets of sizes for the same checks:

    ci      minutes on one core: widths to 65536 exact in law, small dense networks
    desk    an hour: widths to 2^20, dense networks to 1024, more seeds
    paper   the paper's widths (512 ... 16384 for training), for a GPU

A cell is what is measured in one go: a width and a seed of one configuration. It is on disk when
the next begins, so Ctrl-C and SIGKILL lose one cell at most, and nothing finished is repeated. The
name of a configuration is a hash of all that decides its numbers; a store that was written by
another version of the format is refused (store.py), never mixed in.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from empirical.data.sources import Data, load
from empirical.measure.record import record_store
from empirical.measure.store import Store, fingerprint, prepare_folder
from empirical.verify.campaign import SEED_STRIDE, Experiment, Mode
from empirical.wide import Streaming


class Tier(StrEnum):
    """How much is spent on a claim."""

    ci = "ci"
    desk = "desk"
    paper = "paper"


@dataclass(frozen=True)
class TierSizes:
    """Sizes of one tier.

    ``wide``: widths exact in law, and seeds of each. ``slow``: the same where a parametrization
    is not maximal, so that exponents are reached slowly; narrower ones show how. ``deep``: the
    same where several steps are taken. ``margin``: around an exponent, below half of 1/4, the
    smallest step between exponents that theory knows. ``train``: widths of trained networks;
    ``rates``: learning rates per doubling; ``seeds`` and ``steps`` of training.
    """

    wide: tuple[int, ...]
    wide_seeds: int
    slow: tuple[int, ...]
    deep: tuple[int, ...]
    margin: float
    train: tuple[int, ...]
    rates: int
    seeds: int
    steps: int


def _powers(base: int, first: int, last: int) -> tuple[int, ...]:
    return tuple(base**k for k in range(first, last + 1))


SIZES = {
    Tier.ci: TierSizes(
        _powers(4, 5, 8), 6, _powers(4, 4, 8), _powers(4, 5, 8), 0.12,
        (128, 256, 512), 1, 5, 16,
    ),
    Tier.desk: TierSizes(
        _powers(4, 4, 10), 8, _powers(4, 4, 10), _powers(4, 5, 9), 0.06,
        _powers(2, 6, 10), 2, 8, 100,
    ),
    Tier.paper: TierSizes(
        _powers(4, 4, 11), 16, _powers(4, 4, 11), _powers(4, 5, 9), 0.06,
        _powers(2, 9, 14), 2, 8, 400,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Environment:
    """Tier, device, threads, folder and seed of a claim's run.

    Args:
        tier: how large.
        device: "cpu" or "cuda", for dense networks.
        threads: of BLAS, and workers in wide mode.
        folder: where finished cells are kept; a temporary folder if none is given.
        seed: the base of all others: another one draws other data and other weights.
        tick: called with (what, done, total) after every cell.

    Raises:
        InvalidInput: if the folder cannot be written or holds records of another version.
    """

    tier: Tier = Tier.ci
    device: str = "cpu"
    threads: int = 1
    folder: Path | None = None
    seed: int = 0
    tick: Callable[[str, int, int], None] | None = field(default=None, compare=False)

    @property
    def sizes(self) -> TierSizes:
        """The sizes of the tier."""
        return SIZES[self.tier]

    @cached_property
    def store_folder(self) -> Path:
        """Where cells are kept; shared by check and control, so that neither repeats the other."""
        if self.folder is not None:
            return prepare_folder(self.folder)
        object.__setattr__(self, "_temporary", tempfile.TemporaryDirectory(prefix="claims-"))
        return Path(self.__dict__["_temporary"].name)

    def require(self) -> None:
        """Open both stores, so that what is wrong with them is known before anything is run."""
        _ = self.records, self._cells

    @cached_property
    def _cells(self) -> Store:
        return Store(self.store_folder, "cells.jsonl")

    @cached_property
    def records(self) -> Store:
        """The measurements of campaign.py, read once."""
        return record_store(self.store_folder)

    def cell(
        self,
        configuration: Mapping[str, Any],
        width: int,
        seed: int,
        measure: Callable[[], Mapping[str, Any]],
    ) -> dict[str, Any]:
        """The result of ``measure``, taken from the store if it was measured before."""
        key = fingerprint({**configuration, "context": [self.device, self.seed]})
        found = self._cells.get(key, width, seed)
        if found is None:
            found = dict(measure())
            self._cells.put(key, width, seed, found)
        return found

    def cells(
        self,
        configuration: Mapping[str, Any],
        widths: Sequence[int],
        seeds: int,
        measure: Callable[[int, int], Mapping[str, Any]],
        what: str,
    ) -> list[list[dict[str, Any]]]:
        """Cells by width, then seed; ``measure`` takes a width and a seed."""
        found, done = [], 0
        for width in widths:
            row = []
            for seed in range(seeds):
                one = partial(measure, width, self.seed * SEED_STRIDE + seed)
                row.append(self.cell(configuration, width, seed, one))
                done += 1
                if self.tick is not None:
                    self.tick(what, done, len(widths) * seeds)
            found.append(row)
        return found

    @cached_property
    def _loaded(self) -> dict[tuple[int, int], Data]:
        return {}

    def data(self, samples: int = 8, probe: int = 4) -> Data:
        """Digits: ``samples`` images to train on and ``probe`` others."""
        if (samples, probe) not in self._loaded:
            found = load("digits", samples=samples, probe=probe, seed=self.seed)
            self._loaded[samples, probe] = found
        return self._loaded[samples, probe]

    def wide_experiment(
        self, data: Data | None = None, steps: int = 1, slow: bool = False
    ) -> Experiment:
        """Networks exact in law, at the widths of the tier."""
        sizes = self.sizes
        return Experiment(
            sizes.deep if steps > 1 else sizes.slow if slow else sizes.wide,
            sizes.wide_seeds,
            sizes.margin,
            self.data() if data is None else data,
            "cpu",
            self.threads,
            Mode.WIDE,
            Streaming(workers=self.threads),
            steps,
            base_seed=self.seed,
        )


def describe(tier: Tier) -> str:
    """Widths and seeds of a tier, in words."""
    x = SIZES[tier]
    return (
        f"exact in law to width {x.wide[-1]:,} ({x.wide_seeds} seeds, margin {x.margin:g}); "
        f"trained to width {x.train[-1]:,} ({x.seeds} seeds, {x.steps} steps)"
    )
