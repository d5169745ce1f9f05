"""Factors that an optimizer applies by itself are seen by its steps, and a plan leaves them out."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from test_check import FILE, SIZES, mlp
from torch import nn
from typed import Typed

from empirical import ModelPlan, check, compose, plan
from empirical.fit.verdict import Verdict
from scaling.sizes.errors import InvalidInput, NotCovered

RECIPE = "hidden: muon; rest: adam"
TUNED = {"lr": {"hidden": 0.02, "rest": 1e-3}, "eps": 1e-8}
MUON = """
def optimizer(model, groups):
    hidden = [x for x in groups if x["group"] == "hidden"]
    rest = [x for x in groups if x["group"] != "hidden"]
    muon = torch.optim.Muon(hidden, weight_decay=0, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.Adam(rest)]
"""


@cache
def planned(recipe: str = RECIPE) -> ModelPlan:
    sizes, tuned = {"width": 64}, TUNED if ":" in recipe else {"lr": 1e-3, "eps": 1e-8}
    return plan(mlp()["build"], mlp()["batch"], recipe, sizes, {"width": 256}, tuned)


def muon(adjust: str) -> Any:
    def optimizer(model: nn.Module, groups: Any) -> list[torch.optim.Optimizer]:
        hidden = [x for x in groups if x["group"] == "hidden"]
        rest = [x for x in groups if x["group"] != "hidden"]
        own = torch.optim.Muon(hidden, weight_decay=0, adjust_lr_fn=adjust)
        return [own, torch.optim.Adam(rest)]

    return optimizer


def composed(optimizer: Any, recipe: str = RECIPE) -> ModelPlan:
    return compose(planned(recipe), mlp()["build"], mlp()["batch"], optimizer)


def test_a_factor_of_the_optimizer_is_named_and_left_out(tmp_path: Path) -> None:
    """Muon's 0.2 sqrt(max(fan_out, fan_in)) is M^(1/2) of a hidden matrix: half the rate at 4 M."""
    matched = muon("match_rms_adamw")
    found, before = composed(matched), planned().tensors
    for name, x in found.tensors.items():
        assert x.lr == pytest.approx(before[name].lr / (2 if name == "2.weight" else 1))
    line = "multiplies the step of 2.weight by M^(1/2) itself"
    assert [line in text for text in found.assumptions].count(True) == 1
    found.save(tmp_path / "plan.json")
    loaded = ModelPlan.load(tmp_path / "plan.json")
    verdicts = {
        one: [
            c.verdict
            for c in check(
                mlp()["build"], mlp()["batch"], RECIPE, SIZES, plan=made, optimizer=matched,
                seeds=range(8),
            ).checks
            if (c.name, c.quantity) == ("2.weight", "own")
        ]
        for one, made in (("composed", loaded), ("twice", planned()))
    }  # fmt: skip
    assert verdicts == {"composed": [Verdict.agree], "twice": [Verdict.contradict]}
    with pytest.raises(InvalidInput, match="leaves out factors of an optimizer"):
        check(mlp()["build"], mlp()["batch"], RECIPE, SIZES, plan=loaded)


def test_an_optimizer_without_a_factor_and_a_rule_that_has_it_change_nothing() -> None:
    """Muon's sqrt(max(1, fan_out / fan_in)) is one for a square; a rule may have the factor too."""
    with_factor = f"hidden: sqrt(fan_in)*orth(ema(G, beta)); {RECIPE.partition('; ')[2]}"
    for optimizer, recipe in ((muon("original"), RECIPE), (muon("match_rms_adamw"), with_factor)):
        found = composed(optimizer, recipe)
        assert found.tensors == planned(recipe).tensors
        assert "applies no power of a size beside the recipe" in found.assumptions[-1]


def test_what_is_no_power_or_takes_no_groups_is_refused() -> None:
    def late(model: nn.Module, groups: Any) -> torch.optim.Optimizer:
        width = model[2].weight.shape[0]
        for group in groups:
            group["lr"] *= max(1, width // 128)
        return torch.optim.Adam(groups)

    with pytest.raises(NotCovered, match=r"width\^x times those of the rule, with x = \+0.00 and"):
        composed(late, "adam")
    with pytest.raises(InvalidInput, match="takes the groups of a plan"):
        composed(lambda model: torch.optim.Adam(model.parameters()), "adam")


def test_the_command_composes_for_the_optimizer_of_the_file(typed: Typed, tmp_path: Path) -> None:
    path = tmp_path / "mlp.py"
    path.write_text(FILE[: FILE.index("def optimizer")] + MUON)
    words = ("plan", RECIPE, "--model", str(path), "--base", "width=64", "--at", "width=256",
             "--lr", "hidden=0.02", "--lr", "rest=1e-3", "--eps", "1e-8")  # fmt: skip
    found = json.loads(typed(*words, "--compose", "--format", "json").out)
    assert found["tensors"]["2.weight"]["lr"] == pytest.approx(0.01)
    assert found["made_from"]["applied"] == {"width": {"2.weight": "1/2"}}
    line = path.read_text()[: path.read_text().index("def optimizer")].count("\n") + 1
    assert any(f"{path}:{line} multiplies" in text for text in found["assumptions"])
