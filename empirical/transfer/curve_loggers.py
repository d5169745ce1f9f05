"""Loss curves of runs for those who look at them in TensorBoard or Weights & Biases.

A logger has two methods, ``log`` and ``close``; each of these two is thin, and its package belongs
to an extra of its own. The numbers themselves are in the store, logged or not.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from empirical.transfer.transfer_grid import TransferCell
from empirical.transfer.transfer_run import TrainedCell
from scaling.sizes.errors import InvalidInput, unknown


class CurveLogger(Protocol):
    """Takes the loss curve of each run as it is finished."""

    def log(self, cell: TransferCell, run: TrainedCell) -> None:
        """The curve of a run."""

    def close(self) -> None:
        """No more follow."""


class LoggerName(StrEnum):
    """The loggers that there are; each is the name of its extra."""

    tensorboard = "tensorboard"
    wandb = "wandb"


class TensorBoardLogger:
    """A folder of events a run: FOLDER/tensorboard/plan-64-2^-3-0."""

    def __init__(self, folder: Path, title: str) -> None:
        del title
        self._folder = folder / "tensorboard"
        self._writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter

    def log(self, cell: TransferCell, run: TrainedCell) -> None:
        """``loss`` at every step, and ``final`` behind the last one."""
        writer = self._writer(str(self._folder / str(cell)))
        for step, loss in enumerate(run.curve):
            writer.add_scalar("loss", loss, step)
        if math.isfinite(run.loss):
            writer.add_scalar("final", run.loss, len(run.curve))
        writer.close()

    def close(self) -> None:
        """Nothing is left open."""


class WandbLogger:
    """A run of Weights & Biases each, in one group of the project ``scaling-transfer``."""

    def __init__(self, folder: Path, title: str) -> None:
        self._folder, self._title = folder, title
        self._init = importlib.import_module("wandb").init

    def log(self, cell: TransferCell, run: TrainedCell) -> None:
        """``loss`` at every step; the rest is the summary."""
        config = {"way": str(cell.way), "size": cell.size, "seed": cell.seed}
        there = self._init(
            project="scaling-transfer", group=self._title, name=str(cell), dir=str(self._folder),
            config={**config, "lr": 2.0**cell.log2_rate}, reinit=True,
        )  # fmt: skip
        for step, loss in enumerate(run.curve):
            there.log({"loss": loss}, step=step)
        there.summary.update({"final": run.loss, "diverged": run.diverged, "start": run.start})
        there.finish()

    def close(self) -> None:
        """Nothing is left open."""


_LOGGERS: Mapping[LoggerName, tuple[Callable[[Path, str], CurveLogger], str]] = {
    LoggerName.tensorboard: (TensorBoardLogger, "tensorboard"),
    LoggerName.wandb: (WandbLogger, "wandb"),
}
"""The logger, and the package that it needs."""


def loggers_of(names: Sequence[str], folder: Path | None, title: str) -> list[CurveLogger]:
    """The loggers of these names.

    Raises:
        InvalidInput: for an unknown name, no folder, or a package that is missing.
    """
    found: list[CurveLogger] = []
    for name in dict.fromkeys(names):
        if name not in list(LoggerName):
            raise unknown("logger", name, list(LoggerName))
        if folder is None:
            raise InvalidInput(f"--log {name} without a folder", "a place for it", "add --out DIR")
        make, package = _LOGGERS[LoggerName(name)]
        require_package(package, name, f"--log {name}")
        found.append(make(folder, title))
    return found


def require_package(package: str, extra: str, wanted_by: str) -> Any:
    """Import a package that an extra brings.

    Raises:
        InvalidInput: naming the package and the extra.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        raise InvalidInput(
            f"no package '{package}', which {wanted_by} needs",
            f"the extra '{extra}' of this package",
            f"pip install 'scaling[{extra}]'",
        ) from None
