"""Wide mode on a Dask cluster: the same numbers, also when a worker dies in the middle."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client, LocalCluster
from wide_trials import trial

from empirical.measure.calibration import calibrate
from empirical.measure.measured_sizes import Measurement
from empirical.verify.cluster import workers_of
from empirical.wide import Streaming, measure_wide, tiles
from empirical.wide.noise import ROWS
from empirical.wide.passes import mapped
from scaling.sizes.errors import InvalidInput

KFAC, SIGN = trial("kfac"), trial("sign")
TASKS = Streaming(task=ROWS)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A scheduler and two workers, each a process of its own, that are replaced when they die."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    ) as cluster:
        yield cluster


def pids(client: Client) -> set[int]:
    return set(client.run(os.getpid).values())


def sizes(m: Measurement) -> object:
    return m.sizes, m.sums


def test_a_cluster_gives_the_numbers_of_one_process(cluster: LocalCluster) -> None:
    constants = calibrate(KFAC, 64)
    alone = measure_wide(KFAC, constants, 5 * ROWS, 1, 2, TASKS)
    with workers_of("dask", cluster.scheduler_address):
        there = measure_wide(KFAC, constants, 5 * ROWS, 1, 2, TASKS)
    assert sizes(there) == sizes(alone)


def test_rows_are_shared_as_well(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TASK", 2**16)
    constants = calibrate(SIGN, 64)
    alone = measure_wide(SIGN, constants, 1000, 1)
    with workers_of("dask", cluster.scheduler_address):
        there = measure_wide(SIGN, constants, 1000, 1)
    assert sizes(there) == sizes(alone)


class Fatal:
    """A task that takes its worker with it the first time that it meets one of the slices."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __call__(self, piece: slice) -> tuple[int, int]:
        if piece.start == 3 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return piece.start, os.getpid()


def test_the_task_of_a_worker_that_dies_is_run_again(cluster: LocalCluster, tmp_path: Path) -> None:
    marker = tmp_path / "died"
    pieces = [slice(i, i + 1) for i in range(8)]
    with workers_of("dask", cluster.scheduler_address):
        found = list(mapped(Fatal(marker), pieces, 2))
    assert marker.exists()
    assert [start for start, _ in found] == list(range(8))
    assert os.getpid() not in {pid for _, pid in found}


def test_a_measurement_survives_the_death_of_a_worker(cluster: LocalCluster) -> None:
    constants = calibrate(KFAC, 64)
    width = 64 * ROWS
    alone = measure_wide(KFAC, constants, width, 1, 1, TASKS)
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        client.wait_for_workers(2)
        before = pids(client)

        def kill_one() -> None:
            while not any(client.processing().values()):
                time.sleep(0.01)
            os.kill(min(before), signal.SIGKILL)

        killer = threading.Thread(target=kill_one)
        killer.start()
        with workers_of("dask", cluster.scheduler_address):
            there = measure_wide(KFAC, constants, width, 1, 1, TASKS)
        killer.join(timeout=30)
        assert not killer.is_alive()
        client.wait_for_workers(2)
        assert min(before) not in pids(client)
    assert sizes(there) == sizes(alone)


# --- refusals -----------------------------------------------------------------------------------


def scaling(*words: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from scaling.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )


def test_the_command_line_reaches_a_cluster(cluster: LocalCluster) -> None:
    words = ("measure", "sgd", "--mode", "wide", "--width", "3e5", "--samples", "2", "--threads")
    there = scaling(*words, "1", "--backend", "dask", "--scheduler", cluster.scheduler_address)
    alone = scaling(*words, "1")
    assert there.returncode == alone.returncode == 0, there.stderr

    def numbers(text: str) -> str:
        return text.split("seed 0")[0]

    assert numbers(there.stdout) == numbers(alone.stdout)


NOWHERE = "tcp://127.0.0.1:9"


@pytest.mark.parametrize(
    ("address", "backend", "message"),
    [
        (None, "dask", "found: --backend dask without the address"),
        (NOWHERE, "dask", f"found: no Dask scheduler at '{NOWHERE}'"),
        ("nonsense://x", "dask", "found: no Dask scheduler at 'nonsense://x'"),
        (NOWHERE, "local", f"found: --scheduler {NOWHERE} with the backend"),
    ],
)
def test_what_cannot_be_reached_is_named(address: str | None, backend: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message), workers_of(backend, address):
        pytest.fail("no workers, no work")


def test_a_scheduler_without_workers_is_refused() -> None:
    with (
        LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=50) as empty,
        pytest.raises(InvalidInput, match="without workers"),
        workers_of("dask", empty.scheduler_address),
    ):
        pytest.fail("no workers, no work")


def test_an_unreachable_scheduler_exits_with_2() -> None:
    found = scaling("verify", "sgd", "--backend", "dask", "--scheduler", NOWHERE)
    assert found.returncode == 2
    assert found.stderr.count("\n") == 3 and found.stderr.startswith("found: no Dask scheduler")
