"""Finished runs of a tuning, as rows of a file of SQLite (../transfer/run_store.py).

    tunings(run, start, loss, diverged, at_step, seconds, cost, found)    run: its description

A strategy is a function of its seed and of the outcomes of its runs, so a tuning that was killed is
taken up by running it again: what the store has is not trained again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from empirical.transfer.run_store import RunLayout, RunStore
from empirical.tuning.tuning_run import TunedRun

TABLE = (
    "CREATE TABLE tunings (run TEXT PRIMARY KEY, start REAL NOT NULL, loss REAL, "
    "diverged TEXT NOT NULL, at_step INTEGER NOT NULL, seconds REAL NOT NULL, "
    "cost REAL NOT NULL, found TEXT NOT NULL) WITHOUT ROWID"
)


def _row(run: str, done: TunedRun) -> tuple[Any, ...]:
    loss = None if math.isnan(done.loss) else done.loss
    return (
        run, done.start, loss, done.diverged, done.at_step, done.seconds, done.cost,
        json.dumps(dict(done.found), sort_keys=True),
    )  # fmt: skip


def _run(
    run: str, start: float, loss: float | None, diverged: str, at_step: int, seconds: float,
    cost: float, found: str,
) -> tuple[str, TunedRun]:  # fmt: skip
    value = math.nan if loss is None else loss
    return run, TunedRun(start, value, diverged, at_step, seconds, cost, json.loads(found))


TUNED_RUNS = RunLayout("tunings", "tune", ("tunings", TABLE), _row, _run)


class TuningStore(RunStore[str, TunedRun]):
    """The runs of one tuning, by description; see `RunStore`."""

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        super().__init__(TUNED_RUNS, folder, settings)
