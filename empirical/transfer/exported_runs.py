"""The runs of a transfer as a table, and in a file that others read.

pandas.read_csv("runs.csv")        pandas.read_parquet("runs.parquet")
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from empirical.measure.store import write_or_refuse
from empirical.transfer.curve_loggers import require_package
from empirical.transfer.transfer_grid import TransferCell
from empirical.transfer.transfer_run import TrainedCell
from scaling.sizes.errors import InvalidInput

ENDINGS = (".csv", ".parquet")
ENGINE = "pyarrow"


def frame_of(runs: Mapping[TransferCell, TrainedCell]) -> pd.DataFrame:
    """One row a run, by way, size, rate and seed; the loss of a run that diverged is missing."""
    rows = [
        (
            str(cell.way), cell.size, cell.log2_rate, 2.0**cell.log2_rate, cell.seed, run.start,
            run.loss, run.diverged, run.at_step, run.seconds,
        )
        for cell, run in runs.items()
    ]  # fmt: skip
    columns = (
        "parametrization", "size", "log2_rate", "rate", "seed", "start", "loss", "diverged",
        "at_step", "seconds",
    )  # fmt: skip
    found = pd.DataFrame(rows, columns=columns)
    return found.sort_values(list(columns[:5]), ignore_index=True)


def require_exporter(path: Path) -> None:
    """Refuse a file that could not be written, before anything is trained.

    Raises:
        InvalidInput: for another ending, a folder that is not there, or a package that is missing.
    """
    if path.suffix not in ENDINGS:
        raise InvalidInput(
            f"--export {path}",
            f"a file that ends in {' or '.join(ENDINGS)}",
            f"write --export {path.with_suffix('.csv').name}",
        )
    if not path.parent.is_dir():
        raise InvalidInput(
            f"--export {path}, in a folder that is not there",
            "a folder",
            f"make it: mkdir -p {path.parent}",
        )
    if path.suffix == ".parquet":
        require_package(ENGINE, "parquet", f"--export {path}")


def export(runs: Mapping[TransferCell, TrainedCell], path: Path) -> None:
    """Write the table, whole or not at all; see `require_exporter`."""
    require_exporter(path)
    table, buffer = frame_of(runs), io.BytesIO()
    if path.suffix == ".csv":
        table.to_csv(buffer, index=False, float_format="%.17g")
    else:
        table.to_parquet(buffer, index=False, engine=ENGINE)
    write_or_refuse(path, buffer.getvalue(), "--export")
