"""`scaling tune`: regret of tuning small, on a tiny network."""

import json
import os
import pickle
import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention
from typed import Typed

from derivations.recipes import in_practice, recipe_of
from empirical import tune
from empirical.data import text as texts
from empirical.data.image_files import FOLDERS
from empirical.report.measured_tables import progress
from empirical.trace.given_model import model_of
from empirical.trace.model_file import ModelFile, read_model
from empirical.transfer.measuring_transfer import planned_training
from empirical.transfer.transfer_grid import TransferWay
from empirical.tuning import tuning_workers
from empirical.tuning.measured_tuning import MeasuredTuning
from empirical.tuning.measuring_tuning import TuningRequest, chosen, tune_of_file
from empirical.tuning.search_space import read_space
from empirical.tuning.second_derivatives import gradients, hessian_vector
from empirical.tuning.tuning_loop import tuned_run
from empirical.tuning.tuning_run import TunedPoint, TuningRun
from empirical.tuning.tuning_strategy import TuningTask
from scaling.sizes.errors import InvalidInput

ROOT = Path(__file__).resolve().parent.parent
MODEL = """
import torch
from torch import nn


def build(width=4):
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4))


def batch(seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 8, generator=draw)
    return x, x[:, :4] * x[:, 4:]


def tasks(inputs, targets):
    return (inputs[:, 0] > 0).long()
"""
SGD = """

def optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)
"""
NAMES = ("grid", "hozog", "oho", "oho-layer", "filter", "morl", "opt-laws", "pretraining")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("model") / "model.py"
    found.write_text(MODEL + SGD)
    return found


def request(names: tuple[str, ...] = NAMES, runs: int = 7, **wishes: Any) -> TuningRequest:
    space = read_space("lr=2^-6:2^3")
    return TuningRequest(
        "width", 4, 32, runs * 6, names, space, **{"steps": 6, "seeds": 2, **wishes}
    )


@pytest.fixture(scope="module")
def found(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    out = tmp_path_factory.mktemp("out")
    yield tune_of_file(str(path), "sgd", request(), out, 1), out


def test_a_tournament_has_a_regret_for_every_strategy_and_way(
    found: tuple[MeasuredTuning, Path],
) -> None:
    result, _ = found
    assert set(result.strategies) == set(NAMES) and not result.skipped
    for name in NAMES:
        assert 6 <= result.cost(name) <= 42, name
        for way in TransferWay:
            regret = result.regret(name, way)
            assert regret.low <= regret.value <= regret.high and regret.value > -0.9
    best = result.best[TransferWay.plan][1]
    one = result.strategies["grid"]
    by_hand = sum(
        x.target[TransferWay.plan][-1].value - y.value for x, y in zip(one, best, strict=True)
    )
    assert result.regret("grid", TransferWay.plan).value == pytest.approx(
        float(torch.tensor(by_hand / 2).double().expm1()), rel=1e-5
    )
    rates = [x.point.rates for x in result.strategies["oho-layer"]]
    assert all(set(x) <= {"0.weight", "0.bias", "2.weight", "2.bias"} for x in rates)
    assert result.strategies["morl"][0].point.schedule.startswith("recurring:")


def test_it_is_taken_up_from_its_store(
    found: tuple[MeasuredTuning, Path], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, out = found

    def trained(*_: Any) -> Any:
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(tuning_workers, "tuned_run", trained)
    again = tune_of_file(str(path), "sgd", request(), out, 1)
    told = [json.dumps(x.as_json(), sort_keys=True) for x in (again, result)]
    assert told[0] == told[1]
    with pytest.raises(AssertionError, match="trained again"):
        tune_of_file(str(path), "sgd", request(runs=8), out, 1)
    with pytest.raises(InvalidInput, match="steps = 6"):
        tune_of_file(str(path), "sgd", request(steps=5), out, 1)


def test_a_process_that_is_killed_loses_the_run_under_way_alone(path: Path, tmp_path: Path) -> None:
    asked, store = request(("grid",), runs=10), tmp_path / "tunings.sqlite"
    child = os.fork()
    if child == 0:  # a process of its own, which is killed
        tune_of_file(str(path), "sgd", asked, tmp_path, 1)
        os._exit(0)
    kept, until = 0, time.monotonic() + 60
    while kept < 3 and time.monotonic() < until:
        time.sleep(0.01)
        if store.exists():
            with closing(sqlite3.connect(store, timeout=30)) as there:
                kept = there.execute("SELECT count(*) FROM tunings").fetchone()[0]
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert kept >= 3 and (os.WIFSIGNALED(status) or kept > 3)
    before = rows(store)
    result = tune_of_file(str(path), "sgd", asked, tmp_path, 1)
    assert before.items() <= rows(store).items()
    assert len(result.strategies["grid"]) == 2


def rows(store: Path) -> dict[str, float]:
    with closing(sqlite3.connect(store)) as there:
        return dict(there.execute("SELECT run, seconds FROM tunings").fetchall())


def test_plan_and_standard_are_trained_with_their_own_numbers(
    found: tuple[MeasuredTuning, Path], path: Path
) -> None:
    """The run of the store is that of plain torch, by hand."""
    result, _ = found
    one = result.strategies["grid"][0]
    module: dict[str, Any] = {}
    exec(path.read_text(), module)
    losses = {}
    rate = 2.0 ** one.point.numbers["lr"]
    torch.manual_seed(0)
    model = module["build"](width=32)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for step in range(6):
        x, y = module["batch"](8 + step)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        held = [nn.functional.mse_loss(model(x), y) for x, y in map(module["batch"], range(8))]
    losses["standard"] = float(torch.stack(held).mean())
    run = one.target[TransferWay.standard][-1]
    assert run.loss == pytest.approx(losses["standard"], rel=1e-5)
    assert one.target[TransferWay.plan][-1].loss != pytest.approx(losses["standard"], rel=1e-5)


def test_the_verb_prints_a_table_writes_a_folder_and_takes_it_up(
    found: tuple[MeasuredTuning, Path], path: Path, typed: Typed
) -> None:
    result, out = found
    words = (
        "tune", "sgd", "--model", str(path), "--axis", "width=4", "--at", "width=32", "--strategy",
        ",".join(NAMES), "--budget", "7runs", "--space", "lr=2^-6:2^3", "--steps", "6", "--seeds",
        "2", "--jobs", "1", "--out", str(out),
    )  # fmt: skip
    done = typed(*words)
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= 100
    for name in NAMES:
        assert re.search(rf"^{name} ", done.out, re.MULTILINE), name
    assert "tuned at width 32 itself, on a grid of 10" in done.out
    assert (out / "tuning.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((out / "report.json").read_text())
    assert report == json.loads(json.dumps(result.as_json()))
    assert set(report["strategies"]["oho"]["plan"]) >= {"regret", "loss", "diverged", "curve"}


ASKED = ("--axis", "width=4", "--at", "width=32", "--budget", "3runs", "--steps", "2")


@pytest.mark.parametrize(
    ("recipe", "words", "found", "do_this"),
    [
        ("sgd", ("--budget", "1steps"), "less than one run", "--budget 2steps"),
        ("sgd", ("--space", ""), "an empty space", "--space lr=2^-12:2^0"),
        ("sgd", ("--space", "rho_A=1:2"), "number 'rho_A'", "lr"),
        ("sgd", ("--space", "lr=1:2,rho_A=1:2"), "number 'rho_A'", "pass --space lr=2^0:2^1"),
        ("adam", ("--space", "lr=1:2,eps=1e-8:1e-4"), "which has no eps", "leave eps out"),
        ("sgd", ("--strategy", "anneal"), "strategy 'anneal'", "--strategy all"),
        ("adam", ("--strategy", "oho"), "ema(G, beta1)", "--strategy hozog"),
        ("sgd", ("--axis", "width=64"), "2 axes", "--axis width=64 --at width=1024"),
        ("sgd", ("--at", "width=4"), "width=4 at the base and 4", "--at width=64"),
        ("sgd", ("--at", "depth=4"), "--axis width and --at depth", "--at width=64"),
        ("sgd", ("--seeds", "1"), "seeds=1", "--seeds 3"),
    ],
)
def test_what_cannot_be_tuned_is_refused(
    recipe: str, words: tuple[str, ...], found: str, do_this: str, path: Path, typed: Typed
) -> None:
    done = typed("tune", recipe, "--model", str(path), *ASKED, *words)
    assert done.code == 2
    told = dict(re.findall(r"^(found|needed|do this): (.*)$", done.err, re.MULTILINE))
    assert set(told) == {"found", "needed", "do this"}, done.err
    assert found in told["found"] and do_this in told["do this"], done.err


def test_an_option_that_is_missing_is_offered(typed: Typed) -> None:
    done = typed("tune", "sgd", "--model", "model.py")
    assert done.code == 2 and "found: Missing option '--at'" in done.err
    assert "do this: add --at NAME=SIZE,..., which `scaling tune --help` explains" in done.err


TOURNAMENTS = ["tournament", "tournament-desk"]


def test_the_page_is_made_by_the_commands_that_it_shows() -> None:
    """Each of them writes a folder, whose table and figure stand on the page."""
    make = (ROOT / "Makefile").read_text("utf-8")
    targets = [make.partition(f"\n{name}:")[2].partition("\n\n")[0] for name in TOURNAMENTS]
    target = "\n".join(targets).replace("\\\n\t ", "")
    runs = re.findall(r"^\t\.venv/bin/(scaling tune .*)$", target, re.MULTILINE)
    page = (ROOT / "docs" / "tuning.md").read_text("utf-8")
    assert len(runs) == 2 * len(TOURNAMENTS)
    for run in runs:
        folder = run.rpartition(" --out ")[2]
        assert f"\n    {' '.join(run.split())}\n" in page and "examples/" in run
        assert f"<!-- made by: {folder}/tuning.md -->" in page
        (figure,) = re.findall(rf"cp {folder}/tuning\.png docs/(\w+\.png)", target)
        assert f"({figure})" in page and (ROOT / "docs" / figure).is_file()
        assert f"docs/fill.py docs/tuning.md --only={folder}/tuning.md" in target
    tables = re.findall(r"<!-- made by: (results/\S+)/tuning\.md -->", page)
    assert tables == [run.rpartition(" --out ")[2] for run in runs]


# --- data of a folder -----------------------------------------------------------------------------


def test_a_folder_of_data_reaches_the_model_its_batches_and_the_runs(
    typed: Typed, tmp_path: Path
) -> None:
    """CIFAR-10 in small: the example learns the images of the folder, and not the digits."""
    draw = np.random.default_rng(0)
    for name in FOLDERS["cifar10"].files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        data = draw.integers(0, 256, (80, 3072), dtype=np.uint8)
        (tmp_path / name).write_bytes(pickle.dumps({"data": data, "labels": [*range(10)] * 8}))
    words = (
        "tune", "sgd", "--model", str(ROOT / "examples" / "digits.py"), "--axis", "width=4", "--at",
        "width=8", "--strategy", "grid", "--budget", "1runs", "--steps", "1", "--seeds", "2",
        "--space", "lr=2^-9:2^-8", "--format", "json",
    )  # fmt: skip
    found = {}
    for folder in ((), ("--data-root", str(tmp_path))):
        done = typed(*words, *folder)
        assert done.code == 0, done.err
        found[folder] = json.loads(done.out)["strategies"]["grid"]["plan"]["loss"]["value"]
    assert len(set(found.values())) == 2
    file = read_model(str(ROOT / "examples" / "digits.py"), tmp_path)
    ((inputs,), targets), ((held,), _) = file.batch({"seed": 8}), file.batch({"seed": 0})
    assert inputs.shape == held.shape == (64, 3072) and targets.shape == (64, 10)
    assert file.axes == {"width": 32} and file.axis(None).name == "width"
    assert not (inputs[:, None] == held[None]).all(2).any()


def test_the_transformer_reads_wikitext_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "WIKITEXT2", {"wiki.train.tokens": 900, "wiki.valid.tokens": 90})
    for name, word in (("wiki.train.tokens", "a b"), ("wiki.valid.tokens", "Y z")):
        (tmp_path / name).write_text(f"{word}\n" * 300)
    file = read_model(str(ROOT / "examples" / "transformer.py"), tmp_path)
    letters = {chr(31 + int(x)) for x in file.batch({"seed": 8})[1].unique() if int(x)}
    held_out = {chr(31 + int(x)) for x in file.batch({"seed": 0})[1].unique() if int(x)}
    assert letters == set("ab <eos>") and held_out == set("yz <eos>")


def test_a_folder_that_no_function_takes_is_refused(
    path: Path, typed: Typed, tmp_path: Path
) -> None:
    for verb in ("tune", "transfer"):
        words = (verb, "sgd", "--model", str(path), "--axis", "width=4", "--at", "width=32")
        words = words if verb == "tune" else (*words[:4], "--axis", "width=4:16")
        done = typed(*words, "--data-root", str(tmp_path))
        assert done.code == 2 and "neither build nor batch" in done.err
        assert "def batch(seed=0, data_root=None)" in done.err
        gone = typed(*words, "--data-root", str(tmp_path / "no"))
        assert gone.code == 2 and "no folder" in gone.err


class Once(torch.autograd.Function):
    """An operation that torch differentiates once."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.clamp_min(0)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return gradient * (x > 0)


def test_a_model_without_second_derivatives_is_refused_by_strategies_that_need_them() -> None:
    w = torch.randn(1, 2, 4, 8, requires_grad=True)
    for f in (lambda x: Once.apply(x) ** 2, lambda x: scaled_dot_product_attention(x, x, x)):
        gradient = gradients(f(w).sum(), [w])
        with pytest.raises(InvalidInput, match="without second derivatives") as refused:
            hessian_vector(gradient, [w], [w.detach()])
        assert "--strategy hozog" in refused.value.do_this
    (zero,) = hessian_vector(gradients(w.sum(), [w]), [w], [w.detach()])
    assert not zero.any()  # linear: it has them, and they are zero


def test_all_leaves_out_who_needs_second_derivatives_that_a_model_lacks() -> None:
    class Folded(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            folded: torch.Tensor = Once.apply(super().forward(x))  # type: ignore[no-untyped-call]
            return folded

    file = model_of(lambda width=4: Folded(8, width), (torch.randn(6, 8), torch.randn(6, 4)))
    found, skipped = chosen(request(("all",)), in_practice(recipe_of("sgd")), file)
    left = {name for name, why in skipped.items() if "without second derivatives" in why}
    assert left == {"oho", "oho-layer", "oho-tensor", "filter"} and "hozog" in str(found)
    with pytest.raises(InvalidInput, match="without second derivatives"):
        chosen(request(("oho",)), in_practice(recipe_of("sgd")), file)


@pytest.mark.parametrize(
    ("optimizer", "found"),
    [
        ("SGD(model.parameters(), lr=1, momentum=0.9)", "SGD in .* with momentum"),
        ("Adam(model.parameters())", "Adam in "),
    ],
)
def test_who_takes_the_steps_itself_refuses_another_optimizer(
    optimizer: str, found: str, tmp_path: Path
) -> None:
    place = tmp_path / "model.py"
    place.write_text(MODEL + SGD.replace("SGD(model.parameters(), lr=0.1)", optimizer))
    file, whole = read_model(str(place)), in_practice(recipe_of("sgd"))
    for name in ("oho", "filter", "pretraining"):
        with pytest.raises(InvalidInput, match=found):
            chosen(request((name,)), whole, file)
    assert chosen(request(("hozog",)), whole, file)[0]


@pytest.mark.parametrize(
    ("name", "recipe", "found"),
    [
        ("filter", "G + decay*W", r"the rule G \+ decay\*W"),
        ("oho", "G + decay*sign(W)", r"the rule G \+ decay\*sign\(W\)"),
        ("oho", "*.bias: G + decay_a*W; rest: G + decay_b*W", "the decays decay_a and"),
    ],
)
def test_rules_with_other_derivatives_are_refused(
    name: str, recipe: str, found: str, path: Path
) -> None:
    with pytest.raises(InvalidInput, match=found):
        chosen(request((name,)), in_practice(recipe_of(recipe)), read_model(str(path)))


def _loss(file: ModelFile, recipe: str, point: dict[str, float], **options: Any) -> float:
    """After six steps at the base, by the optimizer alone or by OHO's own steps."""
    asked = replace(request(("oho",)), space=read_space("lr=2^-6:2^0,decay=2^-5:2^-1"))
    values = {} if file.optimizer_of else {"decay": 2.0 ** point["decay"]}
    training, _ = planned_training(file, None, recipe, asked.transfer(values))
    task = TuningTask(asked.space, asked.steps, asked.budget, 0, asked.base)
    return tuned_run(training, task.run(point, **options)).loss


@pytest.mark.parametrize("own", [SGD, ""])
def test_steps_with_a_decay_are_those_of_the_optimizer(own: str, tmp_path: Path) -> None:
    place = tmp_path / "model.py"
    place.write_text(MODEL + own)
    file, recipe = read_model(str(place)), "*.bias: sgd; rest: G + decay*W" if not own else ""
    recipe, point = recipe or "G + decay*W", {"lr": -2.0, "decay": -1.0}
    held = {"loop": "oho", "by": "layer", "meta": 0.0, "rates": {}}
    right = _loss(file, recipe, point)
    assert _loss(file, recipe, point, **held) == pytest.approx(right, rel=1e-5)
    more = {**point, "decay": 0.0}
    assert _loss(file, recipe, more, **held) != pytest.approx(right, rel=1e-3)


def test_rates_and_decay_are_tuned_together_and_what_diverges_starts_again_lower(
    path: Path,
) -> None:
    space = read_space("lr=2^-6:2^10,decay=2^-6:2^2")
    asked = replace(request(("oho", "oho-layer"), runs=30), space=space)
    found = tune_of_file(str(path), "sgd_penalised", asked, None, 1).strategies
    for one in (x for several in found.values() for x in several):
        assert 1e-5 < abs(one.point.numbers["decay"] + 2) < 4
        assert 0 < one.diverged < 5, "by a factor 4 from 2^2 each time"
        assert one.cost <= asked.budget
    assert found["oho"][0].point.numbers["lr"] < 1 and found["oho-layer"][0].point.rates


def test_an_episode_that_the_budget_does_not_hold_is_not_begun(path: Path) -> None:
    asked = request(("oho-tensor",), runs=5)  # 30 steps; an episode of 4 tensors costs 60
    (several,) = tune_of_file(str(path), "sgd", asked, None, 1).strategies.values()
    assert all(one.cost <= 1 and not one.point.rates for one in several)


def test_progress_ends_at_its_total(path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    asked = request(("hozog",), runs=2, steps=3)
    tune_of_file(str(path), "sgd", asked, None, 1, lambda *x: told.append(x))
    last = {name: (done, total) for name, done, total in told}
    assert last["training at 32"][0] == last["training at 32"][1] == 2 * (2 * 3 + 10 * 2)
    assert 0 < last["tuning"][0] <= last["tuning"][1]


def test_a_bar_says_how_much_is_done_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    told = Terminal()
    monkeypatch.setattr("sys.stderr", told)
    monkeypatch.setenv("TERM", "xterm")
    with progress(True) as tick:
        for done in range(1, 5):
            tick("tuning", done, 8)
            time.sleep(0.12)
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", told.getvalue())
    assert re.search(r"tuning.*\d+% 0:00:0\d", said), said[-200:]


def test_in_python_a_recipe_with_its_damping_is_tuned() -> None:
    def build(width: int = 4) -> nn.Module:
        return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 2))

    torch.manual_seed(0)
    batch = torch.randn(8, 8), torch.randn(8, 2)
    found = tune(
        build, batch, "adam", "width", 4, 16, "4runs", "cross-entropy",
        "lr=2^-6:2^-1,eps=2^-30:2^-10", steps=2, seeds=2,
    )  # fmt: skip
    (several,) = found.strategies.values()
    assert set(several[0].point.numbers) == {"lr", "eps"}
    key = json.loads(TuningRun(TransferWay.plan, 4, 0, TunedPoint({"lr": 1.0}), 2, paid=1).key)
    assert "paid" not in key


def test_the_librarys_own_adaptation_is_a_strategy(path: Path) -> None:
    pytest.importorskip("pytorch_optimizer")
    for recipe, text in (("sgd", SGD), ("adam", SGD.replace("SGD", "Adam"))):
        place = path.with_name(f"{recipe}_model.py")
        place.write_text(MODEL + text)
        result = tune_of_file(str(place), recipe, request(("d-adaptation",), runs=1), None, 1)
        (several,) = result.strategies.values()
        assert all(-6 <= one.point.numbers["lr"] <= 3 and one.cost == 6 for one in several)


def test_all_leaves_out_by_name_what_cannot_tune(path: Path) -> None:
    """A recipe that is no descent, and samples without tasks."""
    asked = request(("all",))
    file = read_model(str(path))
    whole = in_practice(recipe_of("adam"))
    found, skipped = chosen(asked, whole, file)
    left = {"oho", "oho-layer", "oho-tensor", "filter", "pretraining"}
    assert (left <= set(skipped) and "G/(" in skipped["filter"]) or "ema" in skipped["filter"]
    assert {"tpe", "hozog", "pareto", "morl"} <= {one.name for one in found}
    plain = replace(file, tasks_of=None)
    _, skipped = chosen(asked, in_practice(recipe_of("sgd")), plain)
    assert set(skipped) - {"d-adaptation"} == {"pretraining"}
    assert "samples without tasks" in skipped["pretraining"]
