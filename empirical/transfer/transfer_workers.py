"""Who trains the runs of a transfer: processes of this machine, or workers of Dask.

Runs come back as they are finished, one by one, and nobody but the caller writes them down. A run
is a function of its description, so one whose Dask worker dies is given to another, with the same
result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum

from joblib import Parallel, delayed

from empirical.measure.machine import cores
from empirical.transfer.transfer_grid import TransferCell
from empirical.transfer.transfer_run import TrainedCell, TransferTraining, trained_cell
from empirical.verify.cluster import Backend, workers_of


class TransferBackend(StrEnum):
    """Who does the work."""

    joblib = "joblib"
    dask = "dask"


def trained_cells(
    training: TransferTraining,
    cells: Sequence[TransferCell],
    backend: TransferBackend = TransferBackend.joblib,
    scheduler: str | None = None,
    jobs: int = 0,
) -> Iterator[tuple[TransferCell, TrainedCell]]:
    """The runs of some cells, in the order in which they are finished.

    Args:
        training: what is common to them.
        cells: those to run.
        backend: who trains.
        scheduler: the address of a Dask cluster; without one, Dask has workers here.
        jobs: processes here; 0: as many as there are cores, or one where all share a CUDA device.

    Raises:
        InvalidInput: for a scheduler that does not answer or has no workers, or a worker that has
            another text of the model's file.
    """
    most = 1 if training.device == "cuda" else cores()
    count = min(jobs or most, max(1, len(cells)))
    with _workers(backend, scheduler, count):
        here = count if backend is TransferBackend.joblib else None
        run = Parallel(here, return_as="generator_unordered", batch_size=1)
        yield from run(delayed(_one)(training, cell) for cell in cells)


def _one(training: TransferTraining, cell: TransferCell) -> tuple[TransferCell, TrainedCell]:
    return cell, trained_cell(training, cell)


@contextmanager
def _workers(backend: TransferBackend, scheduler: str | None, count: int) -> Iterator[None]:
    if backend is TransferBackend.dask and scheduler is None:
        from distributed import LocalCluster  # one of the packages of the extra 'cluster'

        with (
            LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=count, threads_per_worker=1, processes=True, dashboard_address=":0",
                silence_logs=50,
            ) as cluster,
            workers_of(Backend.DASK, cluster.scheduler_address),
        ):  # fmt: skip
            yield
        return
    with workers_of(Backend.DASK if backend is TransferBackend.dask else Backend.LOCAL, scheduler):
        yield
