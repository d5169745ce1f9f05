"""Finished runs of a transfer, as rows of a file of SQLite (run_store.py).

runs(parametrization, size, log2_rate, seed, start, loss, diverged, at_step, seconds)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from empirical.transfer.run_store import RunLayout, RunStore
from empirical.transfer.transfer_grid import TransferCell, TransferWay
from empirical.transfer.transfer_run import TrainedCell

TABLE = (
    "CREATE TABLE runs (parametrization TEXT NOT NULL, size INTEGER NOT NULL, "
    "log2_rate REAL NOT NULL, seed INTEGER NOT NULL, start REAL NOT NULL, loss REAL, "
    "diverged TEXT NOT NULL, at_step INTEGER NOT NULL, seconds REAL NOT NULL, "
    "PRIMARY KEY (parametrization, size, log2_rate, seed)) WITHOUT ROWID"
)


def _row(cell: TransferCell, run: TrainedCell) -> tuple[Any, ...]:
    return (
        str(cell.way), cell.size, cell.log2_rate, cell.seed, run.start,
        None if math.isnan(run.loss) else run.loss, run.diverged, run.at_step, run.seconds,
    )  # fmt: skip


def _run(
    way: str, size: int, rate: float, seed: int, start: float, loss: float | None, diverged: str,
    at_step: int, seconds: float,
) -> tuple[TransferCell, TrainedCell]:  # fmt: skip
    cell = TransferCell(TransferWay(way), size, rate, seed)
    return cell, TrainedCell(start, math.nan if loss is None else loss, diverged, at_step, seconds)


TRANSFER_RUNS = RunLayout("runs", "transfer", ("runs", TABLE), _row, _run)


class TransferStore(RunStore[TransferCell, TrainedCell]):
    """The runs of one transfer; see `RunStore`."""

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        super().__init__(TRANSFER_RUNS, folder, settings)
