"""`scaling transfer`: loss against rate at growing sizes, under the plan and as the user has it."""

import gc
import json
import math
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import chdir, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import pandas as pd
import pytest
import torch
from torch import nn
from typed import Typed, exit_code

from empirical import measure_transfer, plan
from empirical.fit.verdict import Verdict
from empirical.plans.making import plan_of_file
from empirical.plans.planned_axes import derived_axes
from empirical.trace.model_file import read_model
from empirical.transfer import curve_loggers, measuring_transfer, transfer_workers
from empirical.transfer.curve_loggers import loggers_of
from empirical.transfer.exported_runs import export, frame_of
from empirical.transfer.measured_transfer import MeasuredTransfer
from empirical.transfer.measuring_transfer import (
    TransferPlace,
    TransferRequest,
    planned_training,
    sizes_along,
    transfer_of_file,
)
from empirical.transfer.transfer_grid import TransferCell, TransferWay, cells_of, read_rates
from empirical.transfer.transfer_run import (
    CellTraining,
    TrainedCell,
    TransferTraining,
    trained_cell,
)
from empirical.transfer.transfer_store import TransferStore
from empirical.transfer.transfer_workers import TransferBackend, trained_cells
from empirical.transfer.user_optimizer import at_one_rate, at_planned_numbers
from scaling.sizes.errors import InvalidInput

MLP = """
import os
import time

import torch
from torch import nn


def build(width=8):
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4))


def batch(seed=0):
    time.sleep(float(os.environ.get("SLOW", 0)))
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 8, generator=draw)
    return x, x[:, :4] * x[:, 4:]
"""
ADAM = """

def optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=0.01)
"""


def written(folder: Path, text: str = MLP + ADAM) -> Path:
    path = folder / "model.py"
    path.write_text(text)
    return path


# --- the file -----------------------------------------------------------------------------------


def test_a_file_may_have_its_optimizer_and_fresh_batches(tmp_path: Path) -> None:
    file = read_model(str(written(tmp_path)))
    model = file.build({})
    (own,) = file.optimizers(model)
    assert isinstance(own, torch.optim.Adam) and file.draws
    (x,), _ = file.batch({})
    (same,), _ = file.batch({"seed": 0})
    (other,), _ = file.batch({"seed": 1})
    assert torch.equal(x, same) and not torch.equal(x, other)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("return 3", "returns a int"),
        ("return []", "returns a list"),
        ("return nobody", "raises NameError"),
    ],
)
def test_what_is_no_optimizer_is_refused(tmp_path: Path, body: str, found: str) -> None:
    file = read_model(str(written(tmp_path, f"{MLP}\ndef optimizer(model):\n    {body}\n")))
    with pytest.raises(InvalidInput, match=found):
        file.optimizers(file.build({}))


def test_a_seed_is_no_axis(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="axis 'seed'"):
        read_model(str(written(tmp_path))).axis("seed=1,2,3")


# --- what was measured --------------------------------------------------------------------------

DOCS = Path(__file__).resolve().parent.parent / "docs"
SHOWN = next(
    line.removeprefix("$ ")
    for line in (DOCS / "models.md").read_text("utf-8").splitlines()
    if line.startswith("$ scaling transfer ") and "docs/mlp.py" in line
)
"""The command of the page, as a reader would give it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that the command of the page fills, with its exit code and text beside it."""
    path = tmp_path_factory.mktemp("transfer")
    with pytest.MonkeyPatch.context() as patch, chdir(DOCS.parent):
        words = (*shlex.split(SHOWN)[1:], "--out", str(path), "--jobs", "1")
        code = exit_code((*words, "--export", str(path / "all.csv")), patch)
    gc.enable()
    (path / "code").write_text(str(code))
    yield path


def test_the_best_rate_stays_under_the_plan_and_drifts_under_one_rate_for_all(folder: Path) -> None:
    found = json.loads((folder / "report.json").read_text())
    assert (folder / "code").read_text() == "0"
    assert (found["verdict"], found["standard"]["verdict"]) == ("agree", "contradict")
    drift = {way: found[way]["drift"] for way in ("plan", "standard")}
    assert abs(drift["plan"]["value"]) < 0.15
    assert -1.2 < drift["standard"]["high"] < -0.5, "Adam's rates of wide matrices fall as 1/M"
    assert found["standard"]["penalty"]["value"] > 4 * found["plan"]["penalty"]["value"]


def test_the_page_shows_the_file_that_its_command_names() -> None:
    text = (DOCS / "models.md").read_text("utf-8")
    assert f"```python\n{(DOCS / 'mlp.py').read_text('utf-8').partition(chr(10) * 2)[2]}```" in text


def test_the_page_says_what_the_command_found(folder: Path) -> None:
    text = (DOCS / "models.md").read_text("utf-8")
    found = json.loads((folder / "report.json").read_text())
    for way in ("plan", "standard"):
        shown = re.search(rf"^{way}: drift (\S+) \[.*of 0: (\w+)", text, flags=re.MULTILINE)
        assert shown and shown[2] == found[way]["verdict"]
        assert float(shown[1]) == pytest.approx(found[way]["drift"]["value"], abs=0.1)


def test_diverged_runs_are_kept_with_their_step_and_reason(folder: Path) -> None:
    runs = pd.read_csv(folder / "runs.csv", keep_default_na=False, na_values={"loss": [""]})
    ended = runs[runs.diverged != ""]
    assert len(runs) == 2 * 3 * 9 * 3
    assert set(ended.log2_rate[ended.parametrization == "plan"]) == {-1.0}
    assert ended.loss.isna().all() and ended.diverged.str.contains("above|not finite").all()
    assert (ended.at_step < 12).any() and runs.loss[runs.diverged == ""].notna().all()
    table = (folder / "report.md").read_text()
    count = int((ended.parametrization == "standard").sum())
    assert sum(map(int, re.findall(r"standard .*?(\d+) of 27", table))) == count > 9


def test_runs_are_read_back_in_one_line_from_each_file(folder: Path) -> None:
    csv = pd.read_csv(folder / "all.csv")
    store = pd.read_sql("SELECT * FROM runs", sqlite3.connect(folder / "runs.sqlite"))
    keys = ["parametrization", "size", "log2_rate", "seed"]
    both = csv.merge(store, on=keys, suffixes=("", "_stored"), validate="one_to_one")
    assert len(both) == len(csv) == len(store)
    for name in ("start", "loss", "at_step", "seconds"):
        assert both[name].equals(both[f"{name}_stored"]), name
    assert (csv.rate == 2.0**csv.log2_rate).all()


def test_runs_go_through_parquet_unchanged(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    runs = stored(folder)
    export(runs, tmp_path / "runs.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "runs.parquet"), frame_of(runs))


def test_the_figure_shows_both_ways(folder: Path) -> None:
    picture = (folder / "transfer.png").read_bytes()
    width, height = (int.from_bytes(picture[k : k + 4], "big") for k in (16, 20))
    assert picture.startswith(b"\x89PNG") and width > 2 * height
    shown = (DOCS / "transfer.png").read_bytes()
    assert len(shown) > 20_000, "docs/transfer.png is the figure of the command of the page"


def stored(folder: Path) -> dict[TransferCell, TrainedCell]:
    rows = sqlite3.connect(folder / "runs.sqlite").execute("SELECT * FROM runs").fetchall()
    return {
        TransferCell(TransferWay(way), size, rate, seed): TrainedCell(
            start, math.nan if loss is None else loss, *rest
        )
        for way, size, rate, seed, start, loss, *rest in rows
    }


# --- what a kill leaves -------------------------------------------------------------------------

ASKED = TransferRequest(sizes_along("width=8,16,32"), read_rates("2^-6:2^-4"), steps=3, seeds=2)
GRID = ("--axis", "width=8,16,32", "--lr", "2^-6:2^-4", "--steps", "3", "--seeds", "2")
CELLS = cells_of(ASKED.axis.sizes, ASKED.rates, ASKED.seeds)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def whole(model: Path) -> MeasuredTransfer:
    """The transfer that nothing interrupts, in this process."""
    return transfer_of_file(str(model), "adam", ASKED, TransferPlace(jobs=1))


def rows(folder: Path) -> int:
    path = folder / "runs.sqlite"
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path, timeout=30)) as store:
        return int(store.execute("SELECT count(*) FROM runs").fetchone()[0])


def timeless(found: MeasuredTransfer) -> pd.DataFrame:
    return found.frame().drop(columns="seconds")


def test_sigkill_loses_the_running_cells_alone_and_the_rest_is_not_run_again(
    model: Path, whole: MeasuredTransfer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from scaling.cli.main import main; main()"
    words = (
        "transfer",
        "adam",
        "--model",
        str(model),
        *GRID,
        "--jobs",
        "1",
        "--out",
        str(tmp_path),
    )
    killed = subprocess.Popen(
        [sys.executable, "-c", code, *words], env={**os.environ, "SLOW": "0.05"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until = time.monotonic() + 120
    while rows(tmp_path) < 3:
        assert killed.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    kept = rows(tmp_path)
    assert 3 <= kept < len(CELLS)
    run: list[TransferCell] = []

    def counted(training: Any, cell: TransferCell) -> TrainedCell:
        run.append(cell)
        return trained_cell(training, cell)

    monkeypatch.setattr(transfer_workers, "trained_cell", counted)
    place = TransferPlace(tmp_path, jobs=1)
    found = transfer_of_file(str(model), "adam", ASKED, place)
    assert len(run) == len(CELLS) - kept
    pd.testing.assert_frame_equal(timeless(found), timeless(whole))
    assert str(found.table()) == str(whole.table())
    transfer_of_file(str(model), "adam", ASKED, place)
    assert len(run) == len(CELLS) - kept


@pytest.mark.parametrize("committed", [False, True])
def test_a_kill_in_the_middle_of_a_transaction_leaves_all_of_it_or_nothing(
    tmp_path: Path, committed: bool
) -> None:
    first, second = CELLS[:2]
    with TransferStore(tmp_path, {"steps": 3}) as store:
        store.put(first, TrainedCell(1.0, 0.5, "", 3, 0.1))
    child = os.fork()
    if not child:
        store = TransferStore(tmp_path, {"steps": 3})
        assert store._connection is not None
        store._connection.execute("PRAGMA cache_size = 1")  # pages go to the file at once
        store._connection.execute("BEGIN IMMEDIATE")
        many = [(str(second.way), k, 0.0, 0, 1.0, 0.5, "x" * 500, 3, 0.1) for k in range(100, 900)]
        store._connection.executemany("INSERT INTO runs VALUES (?,?,?,?,?,?,?,?,?)", many)
        if committed:
            store._connection.execute("COMMIT")
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert (tmp_path / "runs.sqlite-journal").exists() is not committed
    with TransferStore(tmp_path, {"steps": 3}) as store:
        assert store.get(first) == TrainedCell(1.0, 0.5, "", 3, 0.1)
        store.put(second, TrainedCell(1.0, math.nan, "a loss of nan", 1, 0.1))
    assert rows(tmp_path) == 2 + 800 * committed


def test_one_process_writes_and_others_read(tmp_path: Path) -> None:
    with TransferStore(tmp_path, {}) as store:
        with pytest.raises(InvalidInput, match="another run is writing"):
            TransferStore(tmp_path, {})
        store.put(CELLS[0], TrainedCell(1.0, 0.5, "", 3, 0.1))
        assert rows(tmp_path) == 1
    with TransferStore(tmp_path, {}) as again:
        assert again.get(CELLS[0]) is not None


# --- who trains ---------------------------------------------------------------------------------


def test_a_dask_worker_that_dies_loses_nothing(
    model: Path, whole: MeasuredTransfer, tmp_path: Path
) -> None:
    """The only worker sleeps at each batch, so that it is at work when it is killed."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0",
            silence_logs=50, env={"SLOW": "0.01"},
        ) as cluster,
        Client(cluster.scheduler_address, set_as_default=False) as client,
    ):  # fmt: skip
        client.wait_for_workers(1)
        (before,) = client.run(os.getpid).values()

        def kill() -> None:
            while rows(tmp_path) < 3:
                time.sleep(0.01)
            os.kill(before, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        place = TransferPlace(tmp_path, TransferBackend.dask, cluster.scheduler_address)
        found = transfer_of_file(str(model), "adam", ASKED, place)
        killer.join(timeout=30)
        assert not killer.is_alive() and before not in client.run(os.getpid).values()
    pd.testing.assert_frame_equal(timeless(found), timeless(whole))
    assert rows(tmp_path) == len(CELLS)


def of_tensor(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, dict[str, Any]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: {k: x for k, x in group.items() if k != "params"}
        for group in optimizer.param_groups for p in group["params"]
    }  # fmt: skip


def test_the_users_optimizer_gets_the_numbers_of_the_plan_and_keeps_the_rest(model: Path) -> None:
    """Beside `plan` for numbers that were tuned to those of the optimizer."""
    file, sizes = read_model(str(model)), {"width": 64}
    tuned = {"lr": 0.25, "eps": 1e-6, "decay": 0.1}
    expected = plan(file.builder, file.batcher, "adamw", {"width": 8}, sizes, tuned)
    ones = dict.fromkeys(tuned, 1.0)
    factors = plan(file.builder, file.batcher, "adamw", {"width": 8}, sizes, ones)
    net = file.build(sizes)
    own = torch.optim.AdamW(
        net.parameters(), lr=0.003, eps=1e-6, weight_decay=0.1, betas=(0.8, 0.9)
    )
    at_planned_numbers([own], net, factors.tensors, 0.25)
    found = of_tensor(own, net)
    for name, x in expected.tensors.items():
        assert found[name]["lr"] == pytest.approx(x.lr), name
        assert found[name]["eps"] == pytest.approx(x.dampings["eps"]), name
        assert found[name]["weight_decay"] == pytest.approx(x.decays["decay"]), name
        assert found[name]["betas"] == (0.8, 0.9)
    assert len({x["lr"] for x in found.values()}) > 1 and len(own.param_groups) < 5
    assert {x.lr for x in expected.tensors.values()} != {0.25}


def test_groups_of_several_optimizers_keep_the_ratios_of_their_rates() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    one = torch.optim.SGD([{"params": net[0].weight, "lr": 0.4}, {"params": net[0].bias}], lr=0.1)
    other = torch.optim.Adam(net[1].parameters(), lr=0.02)
    at_one_rate([one, other], 2.0)
    rates = [group["lr"] for group in (*one.param_groups, *other.param_groups)]
    assert rates == pytest.approx([2.0, 0.5, 0.1])


def test_a_rule_without_an_optimizer_trains_as_torch_does(tmp_path: Path) -> None:
    sgd = "\ndef optimizer(model):\n    return torch.optim.SGD(model.parameters(), lr=1.0)\n"
    losses = []
    for name, text in (("rule.py", MLP), ("torch.py", MLP + sgd)):
        (tmp_path / name).write_text(text)
        training, notes = planned_training(
            read_model(str(tmp_path / name)), str(tmp_path / name), "sgd", ASKED
        )
        cells = [TransferCell(way, 32, -4.0, 1) for way in TransferWay]
        losses.append([run.loss for _, run in trained_cells(training, cells, jobs=1)])
        assert any("SGD of torch.py" in note for note in notes) is (name == "torch.py")
        there = cloudpickle.loads(cloudpickle.dumps(training))  # as it goes to another process
        assert trained_cell(there, cells[0]).loss == losses[-1][0]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][0] != pytest.approx(losses[0][1], rel=1e-3)


def test_a_recipe_of_several_rules_trains_each_group_by_its_own(tmp_path: Path) -> None:
    """Where one group has the rate zero, the tensors of the other have moved alone."""
    path = written(tmp_path, MLP)
    moved = {}
    for frozen in ("0.*", "2.*"):
        rest = "2.*" if frozen == "0.*" else "0.*"
        recipe = f"{frozen}: sgd with lr=0; {rest}: sign(G) with lr=1"
        training, _ = planned_training(read_model(str(path)), str(path), recipe, ASKED)
        run = CellTraining(training, TransferCell(TransferWay.plan, 32, -4.0, 0))
        before = {n: p.detach().clone() for n, p in run.model.named_parameters()}
        run.step(0, 100.0)
        moved[frozen] = {
            n: float((p.detach() - before[n]).abs().max()) for n, p in run.model.named_parameters()
        }
    assert moved["0.*"]["0.weight"] == moved["2.*"]["2.weight"] == 0
    assert moved["2.*"]["0.weight"] == pytest.approx(2**-4, rel=1e-4)
    assert moved["0.*"]["2.weight"] == pytest.approx(2**-4 / 4, rel=1e-4), "32/8 the width"


def test_functions_and_one_batch_are_measured_in_python() -> None:
    """Along an axis that changes nothing, every size is the base: no rate drifts."""

    def build(width: int = 4) -> nn.Module:
        return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4))

    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    found = measure_transfer(
        build, (x, x[:, :4]), "sgd", "width=4,8,16", lr=(-4, -3, -2), steps=2, seeds=2
    )
    assert len(found.frame()) == 3 * 3 * 2 * 2
    assert any("the one batch of batch()" in text for text in found.assumptions)
    first = found.runs[TransferCell(TransferWay.standard, 4, -4.0, 0)]
    torch.manual_seed(0)
    net = build(4)
    loss = nn.functional.mse_loss(net(x), x[:, :4])
    assert first.start == pytest.approx(float(loss.detach()))
    assert first.curve[0] == first.start and first.loss < first.start


# --- devices ------------------------------------------------------------------------------------


def placed(folder: Path, text: str, device: str = "meta", recipe: str = "adam") -> TransferTraining:
    path = written(folder, text)
    training, _ = planned_training(read_model(str(path)), str(path), recipe, ASKED)
    return replace(training, device=device)


def test_everything_that_a_run_holds_is_on_its_device(tmp_path: Path) -> None:
    """The device "meta" stands for one that this machine lacks: it takes all but numbers."""
    training = placed(tmp_path, MLP + ADAM)
    run, here = (
        CellTraining(one, TransferCell(TransferWay.plan, 32, -4.0, 1))
        for one in (training, replace(training, device="cpu"))
    )
    found = [*run.model.parameters(), *(x for (inputs, y) in run.held_out for x in (*inputs, y))]
    for optimizer in run.optimizers:
        found += [p for group in optimizer.param_groups for p in group["params"]]
    assert len(found) == 4 + 16 + 4 and {x.device.type for x in found} == {"meta"}
    assert run.loss_on(run._batch(7)).device.type == "meta"
    assert {p.device.type for p in here.model.parameters()} == {"cpu"}


def test_a_model_that_does_not_go_where_it_is_sent_is_refused_by_name(tmp_path: Path) -> None:
    kept = MLP.replace("return nn.Sequential(", "return Kept(").replace("def build", """class Kept(
    nn.Sequential
):
    def __init__(self, *layers):
        super().__init__(*layers)
        self.kept = [torch.ones(8)]

    def forward(self, x):
        return super().forward(x * self.kept[0])


def build""") + ADAM  # fmt: skip
    cell = TransferCell(TransferWay.plan, 8, -4.0, 1)
    with pytest.raises(InvalidInput, match=r"(?s)does not run on meta: .*device.*--device cpu"):
        trained_cell(placed(tmp_path, kept), cell)
    assert trained_cell(placed(tmp_path, kept, "cpu"), cell).loss > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused_and_auto_takes_what_there_is(
    typed: Typed, model: Path
) -> None:
    words = ("transfer", "adam", "--model", str(model), *GRID, "--jobs", "1", "--device")
    done = typed(*words, "cuda")
    assert done.code == 2 and "found: --device cuda, but torch sees no CUDA device" in done.err
    file = read_model(str(model))
    auto, _ = planned_training(file, str(model), "adam", replace(ASKED, device="auto"))
    assert auto.device == "cpu"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_run_on_cuda_has_the_losses_of_one_on_the_cpu(tmp_path: Path) -> None:
    cell = TransferCell(TransferWay.plan, 32, -4.0, 1)
    losses = [trained_cell(placed(tmp_path, MLP + ADAM, x), cell).loss for x in ("cpu", "cuda")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


# --- depth --------------------------------------------------------------------------------------


def test_the_best_rate_stays_along_the_depth_and_drifts_under_one_rate_for_all() -> None:
    """Blocks that add up without a multiplier, which the plan changes by hooks."""
    file = read_model(str(DOCS / "deep.py"))
    (x,), y = file.batch({})
    found = measure_transfer(
        file.builder, (x, y), "adam", "depth=2,4,8", "2^-9:2^-5", optimizer=file.optimizer_of,
        steps=8, seeds=5, change_code=True,
    )  # fmt: skip
    assert found.axis == "depth" and found.verdict() is Verdict.agree, found.measures
    assert found.verdict(TransferWay.standard) is Verdict.contradict, found.measures
    (line,) = found.changes
    assert line.startswith("made: ") and "depth^(-1) is needed" in line


# --- loggers ------------------------------------------------------------------------------------


class Events:
    """Stands for the writer of TensorBoard and for a run of Weights & Biases."""

    def __init__(self, *place: str, **about: Any) -> None:
        self.place, self.about, self.seen = place, about, list[Any]()
        self.summary: dict[str, Any] = {}
        self.add_scalar = lambda name, value, step: self.seen.append((name, value, step))
        self.log = lambda values, step: self.seen.append(("loss", values["loss"], step))
        self.close = self.finish = lambda: self.seen.append("end")


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_logger_gets_the_curve_of_every_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Events] = []

    def make(*place: str, **about: Any) -> Events:
        made.append(Events(*place, **about))
        return made[-1]

    package = type(sys)(name)
    package.SummaryWriter = package.init = make  # type: ignore[attr-defined]
    monkeypatch.setattr(curve_loggers.importlib, "import_module", lambda _: package)
    (logger,) = loggers_of([name, name], tmp_path, "adam")
    cell = TransferCell(TransferWay.plan, 64, -3.0, 1)
    logger.log(cell, TrainedCell(1.0, 0.25, "", 2, 0.1, (1.0, 0.5)))
    logger.close()
    (events,) = made
    assert events.seen[:2] == [("loss", 1.0, 0), ("loss", 0.5, 1)] and events.seen[-1] == "end"
    shown = f"{events.place} {events.about}"
    assert "plan-64-2^-3-1" in shown and str(tmp_path) in shown
    assert 0.25 in (events.seen[2][1], events.summary.get("final"))


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (logger,) = loggers_of(["tensorboard"], tmp_path, "adam")
    logger.log(CELLS[0], TrainedCell(1.0, 0.25, "", 2, 0.1, (1.0, 0.5)))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard" / str(CELLS[0])))
    events.Reload()
    assert [x.value for x in events.Scalars("loss")] == [1.0, 0.5]


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"--lr": "1e-3:1"}, "the rates '1e-3:1'"),
        ({"--lr": "2^0:2^-3"}, "the rates '2^0:2^-3', which are 0"),
        ({"--lr": "2^-1:2^0"}, "the rates '2^-1:2^0', which are 2"),
        ({"--axis": "width=64"}, "--axis width=64"),
        ({"--axis": "width"}, "--axis width without sizes"),
        ({"--seeds": "1"}, "seeds=1"),
        ({"--axis": "breadth=8,16,32"}, "axis 'breadth'"),
        ({"--base": "width=64"}, "width=64 at the base, larger than 8"),
        ({"--eps": "1e-8"}, "eps beside optimizer(model) in"),
        ({"--export": "runs.xlsx"}, "--export runs.xlsx"),
        ({"--export": "nowhere/runs.csv"}, "in a folder that is not there"),
        ({"--log": "tensorboard"}, "--log tensorboard without a folder"),
        ({"--margin": "0"}, "a margin of 0"),
        ({"--diverged": "0.5"}, "diverged=0.5"),
        ({"--scheduler": "tcp://127.0.0.1:9"}, "--scheduler tcp://127.0.0.1:9"),
        ({"--lr": "2^40:2^42"}, "width=8 under the plan, where every run diverged: a loss of"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_code_2(
    typed: Typed, model: Path, change: dict[str, str], found: str
) -> None:
    options = dict(zip(GRID[::2], GRID[1::2], strict=True)) | {"--jobs": "1"} | change
    words = [word for pair in options.items() for word in pair]
    done = typed("transfer", "adam", "--model", str(model), *words)
    assert done.code == 2 and done.err.count("\n") == 3, done.err
    assert f"found: {found}" in done.err or found in done.err.splitlines()[0]


@pytest.mark.parametrize("package", ["pyarrow", "tensorboard", "wandb"])
def test_a_missing_package_is_named_with_its_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InvalidInput, match=rf"(?s)no package '{package}'.*pip install 'scaling\["):
        if package == "pyarrow":
            export({}, tmp_path / "runs.parquet")
        else:
            loggers_of([package], tmp_path, "adam")


def other_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as store:
        store.execute("CREATE TABLE mine (x)")


def other_version(path: Path) -> None:
    TransferStore(path.parent, {}).close()
    with closing(sqlite3.connect(path)) as store:
        store.execute("PRAGMA user_version = 2")


def other_tables(path: Path) -> None:
    TransferStore(path.parent, {}).close()
    with closing(sqlite3.connect(path)) as store:
        store.execute("ALTER TABLE runs ADD COLUMN mine")


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda path: path.write_text("notes"), "this command did not write"),
        (lambda path: path.touch(), "this command did not write"),
        (other_database, "this command did not write"),
        (other_version, "of version 2, not 1"),
        (other_tables, "whose tables are"),
        (lambda path: path.symlink_to("elsewhere"), "which is a link"),
        (lambda path: path.mkdir(), "which is no plain file"),
    ],
)
def test_a_file_that_is_no_store_is_refused_untouched(
    tmp_path: Path, make: Any, found: str
) -> None:
    path = tmp_path / "runs.sqlite"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(InvalidInput, match=found):
        TransferStore(tmp_path, {})
    assert before is None or path.read_bytes() == before
    assert not (tmp_path / "elsewhere").exists()


def test_settings_that_differ_are_refused_by_name_and_more_cells_are_not(
    model: Path, tmp_path: Path
) -> None:
    place = TransferPlace(tmp_path, jobs=1)
    transfer_of_file(str(model), "adam", ASKED, place)
    before = (tmp_path / "runs.sqlite").read_bytes()
    other = tmp_path / "other.py"
    other.write_text(model.read_text().replace("x[:, :4] *", "2 * x[:, :4] *"))
    longer = TransferRequest(ASKED.axis, ASKED.rates, steps=4, seeds=2)
    for file, recipe, asked, found in (
        (model, "adam", longer, "steps = 3 in"),
        (model, "sign(G)", ASKED, "recipe = "),
        (other, "adam", ASKED, "model = "),
    ):
        with pytest.raises(InvalidInput, match=found):
            transfer_of_file(str(file), recipe, asked, place)
    assert (tmp_path / "runs.sqlite").read_bytes() == before
    more = TransferRequest(ASKED.axis, read_rates("2^-6:2^-3"), steps=3, seeds=2)
    assert len(transfer_of_file(str(model), "adam", more, place).frame()) == 48


@pytest.mark.parametrize(
    ("optimizer", "recipe", "found"),
    [
        ("torch.optim.AdamW(model.parameters())", "adam", "weight_decay = 0.01 of '0.weight'"),
        ("torch.optim.SGD(model.parameters(), lr=1.0)", "adam", "SGD, which has no eps"),
        ("torch.optim.Adam(model[0].parameters())", "adam", "does not train '2.weight'"),
        ("torch.optim.Adam(model.parameters(), lr=0.0)", "adam", "the learning rates [0.0]"),
        ("", "0.weight: adam; rest: sgd", "no eps for the group '0.weight: adam"),
        ("", "adam", "no eps for the group"),
    ],
)
def test_an_optimizer_that_is_not_what_the_recipe_says_is_refused(
    tmp_path: Path, optimizer: str, recipe: str, found: str
) -> None:
    own = f"\ndef optimizer(model):\n    return {optimizer}\n" if optimizer else ""
    path = written(tmp_path, MLP + own)
    with pytest.raises(InvalidInput, match=re.escape(found)):
        planned_training(read_model(str(path)), str(path), recipe, ASKED)


def test_a_loss_that_is_not_positive_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, MLP + ADAM + "\ndef loss(f, y):\n    return (f * y).mean() - 9\n")
    place = TransferPlace(tmp_path / "out", jobs=1)
    with pytest.raises(InvalidInput, match=r"a loss of -\S+ before training, at width=8"):
        transfer_of_file(str(path), "adam", ASKED, place)
    few = TransferRequest(ASKED.axis, ASKED.rates[:3], steps=1, seeds=2)
    path = written(tmp_path, MLP + ADAM)  # mended, and the folder is bound to nothing
    assert len(transfer_of_file(str(path), "adam", few, place).frame()) > 0


def test_plans_of_many_sizes_are_those_of_each_alone_and_the_model_is_read_once(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, read = read_model(str(model)), list[int]()

    def counted(*given: Any) -> Any:
        read.append(1)
        return derived_axes(*given)

    monkeypatch.setattr(measuring_transfer, "derived_axes", counted)
    monkeypatch.setattr("empirical.plans.making.derived_axes", counted)
    training, _ = planned_training(file, str(model), "adam", ASKED)
    assert len(read) == 1
    ones = {"lr": 1.0, "eps": 1.0}
    for size, found in training.factors.items():
        alone = plan_of_file(file, "adam", {"width": 8}, {"width": size}, ones)
        assert found.tensors == alone.tensors and found.at == alone.at


def test_factors_of_the_code_are_named_and_changed_by_hooks_if_asked(tmp_path: Path) -> None:
    """The root of the head size in docs/small_gpt.py, which is trained on its one batch."""
    path = written(tmp_path, (DOCS / "small_gpt.py").read_text("utf-8") + ADAM)
    runs = {}
    for changed in (False, True):
        asked = TransferRequest(
            sizes_along("width=16,32,64"), read_rates("2^-7:2^-5"), 2, 2, change_code=changed
        )
        found = transfer_of_file(str(path), "adam", asked, TransferPlace(jobs=1))
        (line,) = found.changes
        assert line.startswith("made: " if changed else "change ") and "M^(-1) is needed" in line
        assert any("the one batch of batch()" in text for text in found.assumptions)
        runs[changed] = found.runs
    plan, standard = (TransferCell(way, 64, -6.0, 0) for way in TransferWay)
    assert runs[True][standard].loss == runs[False][standard].loss
    assert runs[True][plan].loss != runs[False][plan].loss
    assert runs[True][plan].loss < runs[True][plan].start
