"""The coordinate check of a model: plans agree, defaults do not, and bad input is refused."""

import json
import math
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typed import Typed

from derivations.recipes import recipe_of
from empirical import ModelPlan, check, plan
from empirical.checks.checking import ModelCheck, check_file
from empirical.checks.needed import questions
from empirical.fit.verdict import Verdict, at_most
from empirical.measure import store
from empirical.trace.execute import Execution
from empirical.trace.given_model import model_of
from empirical.trace.model_file import read_model
from empirical.verify.graph_verification import MOST_SEEDS, SEEDS, verify_graph
from empirical.verify.model_steps import refuse_no_number
from scaling.sizes.errors import InvalidInput, ScalingError
from scaling.sizes.scale import HALF
from scaling.states.moved_state import two_states

SMALL_GPT = Path(__file__).resolve().parent.parent / "docs" / "small_gpt.py"
SIZES = "width=64:512"
FILE = """
import torch
from torch import nn

def build(width=32):
    return nn.Sequential(
        nn.Linear(8, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(),
        nn.Linear(width, 16, bias=False),
    )

def batch():
    draw = torch.manual_seed(0)
    return torch.randn(16, 8, generator=draw), torch.randn(16, 16, generator=draw)

def optimizer(model, groups=None):
    return torch.optim.Adam(groups or model.parameters(), lr=1e-3)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "mlp.py"
    found.write_text(FILE)
    return found


@cache
def mlp() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(FILE, "mlp", "exec"), names)
    return names


@cache
def planned(recipe: str = "adam", lr: float = 1e-3) -> ModelPlan:
    sizes, tuned = {"width": 64}, {"lr": lr, **({"eps": 1e-8} if recipe == "adam" else {})}
    return plan(mlp()["build"], mlp()["batch"], recipe, sizes, {"width": 512}, tuned)


def checked(optimizer: Any = None, recipe: str = "adam", **options: Any) -> ModelCheck:
    options = {"seeds": range(4), **options}
    return check(
        mlp()["build"], mlp()["batch"], recipe, SIZES, optimizer=optimizer, **options
    )  # fmt: skip


def adam(model: nn.Module, groups: Any = None) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups or model.parameters(), lr=1e-3)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_plan_agrees_in_plain_torch_after_one_step_and_after_several(steps: int) -> None:
    found = checked(adam, plan=planned(), steps=steps, seeds=range(8))
    assert found.verdict is Verdict.agree, [c for c in found.checks if c.verdict != "agree"]
    assert {c.name for c in found.checks if c.quantity == "own"} == set(planned().tensors)
    assert not found.to_change and found.subject.startswith("the plan from width=64, by the opt")


def test_defaults_are_contradicted_by_tensor_and_line(typed: Typed, path: Path) -> None:
    code, out, _ = typed("check", "adam", "--model", str(path), "--axis", SIZES, "--as-is",
                         "--seeds", "4", "--format", "json")  # fmt: skip
    found = json.loads(out)
    assert code == 1 and found["verdict"] == "contradict"
    wrong = {(c["name"], c["reading"]) for c in found["checks"] if c["verdict"] == "contradict"}
    assert {("2.weight", "grows"), ("4.weight", "grows")} <= wrong
    assert ("0.weight", "grows") not in wrong
    line = FILE[: FILE.index("def optimizer")].count("\n") + 1
    assert f"change {path}:{line}: lr of 2.weight, 4.weight as M^(-1), in groups" in out
    assert "the standard deviation of 4.weight as M^(-1), which is M^(-0.5" in out


def test_a_readout_that_does_not_move_is_contradicted() -> None:
    """The readout is asked to move: rates that shrink with the width are no stable success."""

    def slower(model: nn.Module) -> torch.optim.Optimizer:
        width = model[2].weight.shape[0]
        return torch.optim.Adam(model.parameters(), lr=1e-3 * (width / 64) ** -3)

    found = checked(slower, as_is=True)
    reads = [c for c in found.checks if c.quantity == "change" and not c.at_most]
    assert reads and all(c.fit.high < -0.25 and c.verdict is not Verdict.agree for c in reads)
    assert found.verdict is Verdict.contradict
    bounds = {c.verdict for c in found.checks if c.quantity == "change" and c.at_most}
    assert bounds == {Verdict.agree}


def test_the_rule_as_written_steps_as_torch_does() -> None:
    """Three steps of gradient descent, by the graph's own rule and by torch: one set of numbers."""

    def sgd(model: nn.Module, groups: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups)

    by_rule, by_torch = (
        checked(one, "sgd", plan=planned("sgd", 0.1), steps=3, seeds=[1]) for one in (None, sgd)
    )
    assert "rule as it is written" in by_rule.subject and "optimizer of" in by_torch.subject
    assert len(by_rule.checks) == len(by_torch.checks) > 10
    for one, two in zip(by_rule.checks, by_torch.checks, strict=True):
        assert (one.name, one.quantity) == (two.name, two.quantity)
        assert one.fit.slope == pytest.approx(two.fit.slope, rel=1e-7, abs=1e-9), one.name


def test_a_model_drawn_again_is_the_model_of_that_seed() -> None:
    class Dropped(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.up, self.out = nn.Linear(8, width), nn.Linear(width, 16)
            self.norm = nn.BatchNorm1d(width)
            self.register_buffer("mask", torch.rand(width), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(nn.functional.dropout(self.norm(self.up(x)) * self.mask, 0.5))

    class Held(Dropped):
        def __init__(self, width: int) -> None:
            super().__init__(width)
            self.held = [torch.rand(width)]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.up(x) * self.held[0])

    for kind in (Dropped, Held):
        file = model_of(lambda width, kind=kind: kind(width), mlp()["batch"])
        again = Execution(file, {"width": 16}, 0, {}).redrawn(3)
        fresh = Execution(file, {"width": 16}, 3, {})
        one, two = again.values(), fresh.values()
        assert list(one) == list(two)
        assert all(torch.equal(one[name], x) for name, x in two.items())


def test_a_tensor_below_a_zero_is_asked_to_move_from_the_second_step_on() -> None:
    class LoRA(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.inside, self.out = nn.Linear(8, width), nn.Linear(width, 16, bias=False)
            self.a, self.b = nn.Linear(width, 2, bias=False), nn.Linear(2, width, bias=False)
            nn.init.zeros_(self.b.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.tanh(self.inside(x))
            return self.out(torch.tanh(h + self.b(self.a(h))))

    def build(width: int = 16) -> nn.Module:
        return LoRA(width)

    def tensors(steps: int) -> set[str]:
        found = check(build, mlp()["batch"], "sgd", "width=8:32", steps=steps, seeds=[0])
        return {c.name for c in found.checks if c.quantity == "own" and c.fit.slope > -3}

    assert "a.weight" not in tensors(1)
    assert {"a.weight", "b.weight"} <= tensors(2)


def muon_and_adamw(model: nn.Module, groups: Any) -> list[torch.optim.Optimizer]:
    hidden = [x for x in groups if x["group"] == "hidden"]
    rest = [x for x in groups if x["group"] != "hidden"]
    return [torch.optim.Muon(hidden), torch.optim.AdamW(rest)]


def test_muon_and_adamw_of_torch_train_the_gpt_of_the_readme_by_one_recipe() -> None:
    """Four seeds leave a node of the softmax open, so eight are drawn; the defaults are wrong."""
    file = replace(read_model(str(SMALL_GPT)), optimizer_of=muon_and_adamw)
    recipe, sizes = "hidden: muon; rest: adamw", {"width": 64}
    tuned = {"lr": {"hidden": 0.02, "rest": 3e-3}, "eps": 1e-8, "decay": 0.1}
    made = plan(file.builder, file.batcher, recipe, sizes, {"width": 512}, tuned)
    found = check_file(file, recipe, SIZES, plan=made)
    assert found.verdict is Verdict.agree, [c for c in found.checks if c.verdict != "agree"]
    assert SEEDS < found.seeds <= MOST_SEEDS
    own = {c.name: c.verdict for c in found.checks if c.quantity == "own"}
    assert set(own) == set(made.tensors) and set(own.values()) == {Verdict.agree}
    usual = replace(file, optimizer_of=adam)
    assert check_file(usual, "adamw", SIZES, as_is=True, seeds=[0, 1]).verdict == "contradict"


# --- bad input ------------------------------------------------------------------------------------


def flat(model: nn.Module, groups: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for g in groups for p in g["params"]], lr=1e-3)


def first_rate(model: nn.Module, groups: Any) -> torch.optim.Optimizer:
    tensors = [p for g in groups for p in g["params"]]
    return torch.optim.Adam(tensors, lr=groups[0]["lr"])


def some(model: nn.Module, groups: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups[:1])


def none(model: nn.Module, groups: Any) -> Any:
    return "adam"


def wild(model: nn.Module, groups: Any = None) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e300)


@pytest.mark.parametrize(
    ("optimizer", "found", "needed"),
    [
        (flat, r"ignores the groups .* of '0\.bias' is 1 times|ignores the groups", "lr from the"),
        (first_rate, "ignores the groups of the plan: with 3 times .* is 2 times", "lr from the"),
        (some, "does not train '2.weight'", "every tensor of the plan"),
        (none, "returns a str", "torch.optim.Optimizer"),
    ],
    ids=["flattened", "first rate", "some", "none"],
)
def test_an_optimizer_that_ignores_the_groups_is_found_by_its_steps(
    optimizer: Any, found: str, needed: str
) -> None:
    with pytest.raises(InvalidInput, match=f"(?s)found: .*({found}).*needed: .*{needed}.*do this"):
        checked(optimizer, plan=planned())


def test_a_loss_that_is_not_finite_is_refused_with_its_step() -> None:
    with pytest.raises(InvalidInput, match=r"(?s)a loss of (nan|inf) at step 2 of width=64, seed"):
        checked(wild, as_is=True, steps=3)
    with pytest.raises(InvalidInput, match=r"(?s)a loss of (nan|inf) at step 2 of width=64, seed"):
        checked(plan=planned("sgd", 1e200), recipe="sgd", steps=3)


def test_a_loss_that_is_no_number_before_training_is_not_blamed_on_the_rate() -> None:
    with pytest.raises(InvalidInput, match="nothing is trained yet") as error:
        refuse_no_number(torch.tensor(math.nan), "step 1 of width=64, seed 0")
    assert "learning rate" not in str(error.value)
    with pytest.raises(InvalidInput, match="lower the learning rate"):
        refuse_no_number(torch.tensor(math.nan), "step 11 of width=64, seed 0")


def other(width: int = 32) -> nn.Module:
    return nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 16, bias=False))


def shaped(width: int = 32) -> nn.Module:
    return nn.Sequential(
        nn.Linear(8, 2 * width), nn.Tanh(), nn.Linear(2 * width, width), nn.Tanh(),
        nn.Linear(width, 16, bias=False),
    )  # fmt: skip


def edited() -> ModelPlan:
    made = planned()
    one = replace(made.tensors["2.weight"], lr=0.1)
    return replace(made, tensors={**made.tensors, "2.weight": one})


@pytest.mark.parametrize(
    ("build", "options", "found"),
    [
        (other, {"plan": planned}, "without the tensor"),
        (shaped, {"plan": planned}, r"of shape \(1024, 8\), which has \(512, 8\) in the plan"),
        (None, {"plan": planned, "recipe": "sgd"}, "a plan for the recipe"),
        (None, {"plan": edited}, "lr = 0.1 of '2.weight' in the plan, where .* have 0.000125"),
        (
            None,
            {"plan": planned, "axis": "width=32:128"},
            "width=32, smaller than 64 at the base of the plan",
        ),
        (None, {"plan": planned, "as_is": True}, "a plan beside --as-is"),
        (None, {"as_is": True}, "no function optimizer"),
        (None, {"axis": "height=1:4"}, "axis 'height'"),
        (None, {"recipe": "hidden: adam"}, "no group"),
        (None, {"recipe": "hidden: adam; hidden: sgd; rest: adam"}, "'hidden' twice"),
    ],
    ids=[
        "names",
        "shapes",
        "recipe",
        "edited",
        "base",
        "both",
        "none",
        "axis",
        "misses",
        "doubles",
    ],
)
def test_what_cannot_be_checked_is_refused(build: Any, options: dict, found: str) -> None:
    options = {k: x() if callable(x) else x for k, x in options.items()}
    recipe, axis = options.pop("recipe", "adam"), options.pop("axis", SIZES)
    with pytest.raises(ScalingError, match=found) as error:
        check(build or mlp()["build"], mlp()["batch"], recipe, axis, **options)
    assert error.value.needed and error.value.do_this


def test_a_refused_plan_writes_nothing_and_a_kept_one_stays_whole(
    typed: Typed, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, folder = path.parent / "plan.json", path.parent
    words = ["plan", "adam", "--model", str(path), "--base", "width=32", "--at", "width=64",
             "--lr", "1e-3", "--save", str(place)]  # fmt: skip
    for wrong in (["--at", "width=16"], ["--at", "depth=2"], []):
        code, _, told = typed(*words, *wrong)
        assert code == 2 and "found:" in told and "do this:" in told
    assert sorted(x.name for x in folder.iterdir() if x.is_file()) == ["mlp.py"]
    assert typed(*words, "--eps", "1e-8").code == 0
    before = place.read_bytes()

    def full(file: int, content: bytes) -> None:
        os.write(file, content[:40])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_write", full)
    assert typed(*words, "--eps", "1e-6").code == 2
    assert place.read_bytes() == before and list(folder.glob("*.part")) == []
    monkeypatch.undo()
    checked = typed("check", "adam", "--model", str(path), "--plan", str(place), "--seeds", "2",
                    "--axis", "width=32:128", "--margin", "5")  # fmt: skip
    assert checked.code in (0, 3) and "the plan from width=32, by the optimizer of" in checked.out
    place.write_bytes(before[:100])
    assert typed("check", "adam", "--model", str(path), "--plan", str(place)).code == 2


@pytest.mark.parametrize("recipe", ["rest: adam with eps=1e-8", "rest: sgd"])
def test_verify_and_check_ask_one_thing_of_the_product_of_a_tensor(recipe: str) -> None:
    """An eps of later steps is felt at the start or not: where it decides, the larger bounds."""
    found = verify_graph(recipe_of(recipe), str(SMALL_GPT), "width=16,32,64", seeds=(0,))
    asked = {c.name: (c.predicted, c.at_most) for c in found.checks if c.quantity == "own"}
    start, _ = two_states(found.answer.graph)
    needs = questions(found.answer, start, {}, steps=1)
    assert asked == {n: (x, bound) for n, quantity, x, bound in needs if quantity == "own"}
    felt = recipe.endswith("1e-8")
    assert asked["places"] == ((-HALF, True) if felt else (-1, False))
    measured = next(c for c in found.checks if (c.name, c.quantity) == ("places", "own"))
    assert measured.verdict is Verdict.agree
    if felt:  # the exact exponent under the eps of later steps, which is not there at the start
        assert at_most(measured.fit, -1.0, 0.2) is Verdict.contradict
