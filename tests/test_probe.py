"""`probe`: exponents of own updates of optimizers as black boxes, and the rules that they equal.

The oracle is the theory: what `derive` has for the optimizer's rule. Each optimizer is probed once,
at small widths, and several tests look at it.
"""

import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typed import Typed

from derivations.catalogue import rule_of
from empirical import RuleOptimizer, check_model, for_model, plan
from empirical.black_box.equal_rules import equal_rules
from empirical.black_box.handed_over import handed_over, without_probes
from empirical.black_box.optimizer_class import as_optimizer, read_kwargs
from empirical.black_box.own_updates import ROLES
from empirical.black_box.probed_optimizer import Probed, ProbedRole, probe
from empirical.black_box.seen_batch import SeenBatch
from empirical.checks.composing import compose_file
from empirical.trace.given_model import model_of
from scaling.sizes.errors import InvalidInput, NotCovered
from scaling.solve.derive import derive

WIDTHS, SEEDS = (32, 64, 128, 256), 8
LONE = "G/max(1, over_layers(fan_out*fan_in*mean(abs(G))))"
"""LBFGS at its first iteration: G over its 1-norm in all layers."""
TORCH: dict[str, tuple[Mapping[str, Any], str, set[str]]] = {
    "SGD": ({}, "sgd", {"sgd"}),
    "Adam": ({}, "adam", {"adam_debiased", "torch_adam"}),
    "AdamW": ({}, "adam", {"torch_adamw"}),
    "RMSprop": ({}, "rmsprop", {"rmsprop"}),
    "Adagrad": ({}, "adagrad", {"adagrad_sum"}),
    "NAdam": ({}, "adam", set()),
    "RAdam": ({}, "adam", set()),
    "Muon": ({}, "muon_max", {"torch_muon (hidden)"}),
    "Adafactor": (
        {"eps": (None, 1e-9)}, "adafactor_relative", {"torch_adafactor (without decay)"},
    ),
    "LBFGS": ({"max_iter": 1}, LONE, set()),
}  # fmt: skip
LIBRARIES: dict[str, tuple[Mapping[str, Any], str, set[str]]] = {
    "lion_pytorch:Lion": ({}, "sign", {"lion_pytorch (without decay)"}),
    "pytorch_optimizer:Adan": ({}, "adam", set()),
    "pytorch_optimizer:Tiger": ({}, "sign", set()),
    "pytorch_optimizer:QHAdam": ({}, "adam", {"adam_debiased"}),
    "pytorch_optimizer:NovoGrad": ({}, "normalized_sgd", set()),
    "pytorch_optimizer:LARS": ({}, "lars", set()),
    "pytorch_optimizer:SOAP": ({}, "soap", set()),
    "torch_optimizer:DiffGrad": ({}, "adam", set()),
    "torch_optimizer:AggMo": ({}, "sgd", set()),
    "torch_optimizer:SGDW": ({}, "sgd", {"sgd"}),
    "schedulefree:AdamWScheduleFree": ({}, "adam", set()),
}
"""Of other libraries, by module and class."""


class Widened(torch.optim.Optimizer):
    """Sign descent times a power of the longer side: a planted factor."""

    def __init__(self, params: Any, lr: float = 1e-3, power: float = 0.5) -> None:
        super().__init__(params, {"lr": lr, "power": power})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad.sign(), alpha=-group["lr"] * max(p.shape) ** group["power"])


class Still(Widened):
    def step(self) -> None:  # type: ignore[override]
        """Moves nothing."""


class Broken(Widened):
    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(float("nan"))


class Late(Widened):
    """Gradient descent for four steps, and Widened from then on: the first two steps mislead."""

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        self.taken = getattr(self, "taken", 0) + 1
        if self.taken > 4:
            return super().step()
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad, alpha=-group["lr"])
        return None


class Vectors(Widened):
    """Refuses what Muon takes."""

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        if any(p.ndim > 1 for group in self.param_groups for p in group["params"]):
            raise ValueError("one axis only")


@cache
def found(name: str) -> Probed:
    kwargs, _, _ = TORCH[name]
    widths = (64, 128, 256, 512) if name == "LBFGS" else WIDTHS
    return probe(f"torch.optim:{name}", kwargs, widths, SEEDS)


def holds(result: Probed, rule: str) -> int:
    """Whether all intervals hold what is derived; how many exponents are snapped to it."""
    derived = derive(rule_of(rule)).exponents.c
    snapped = 0
    for role in ROLES:
        x, c = result.layers[role], derived[role]
        assert x.low - 1e-6 <= float(c) <= x.high + 1e-6, (result.optimizer, role, x, c)
        assert x.low <= x.measured <= x.high
        assert x.rational is None or str(x.rational) == str(c), (result.optimizer, role, x, c)
        snapped += x.rational is not None
    return snapped


@pytest.mark.parametrize("name", TORCH)
def test_optimizers_of_torch_have_the_exponents_of_their_rules_and_their_names(name: str) -> None:
    _, rule, equals = TORCH[name]
    assert holds(found(name), rule) >= 1
    assert equals <= set(found(name).equals)
    assert equals or not found(name).equals


def test_most_exponents_are_snapped() -> None:
    snapped = [x.rational is not None for name in TORCH for x in found(name).layers.values()]
    assert sum(snapped) >= 0.7 * len(snapped)


def test_what_was_done_is_said() -> None:
    notes = {name: " ".join(found(name).notes) for name in TORCH}
    assert "the first 5 steps go another way" in notes["RAdam"] and "step 6" in notes["RAdam"]
    assert "closure" in notes["LBFGS"] and "coarser dtype" in notes["Muon"]
    assert "weight_decay = 0" in notes["AdamW"] and not notes["Adam"]
    slow = probe(torch.optim.SGD, {"momentum": 0.9}, (16, 32, 64), 2)
    assert slow.equals == ("momentum",) and any("momentum" in x for x in slow.notes)


def test_a_planted_wrong_rule_is_not_named_and_a_planted_width_shifts_the_exponent() -> None:
    slow = as_optimizer(torch.optim.RMSprop, "", {"alpha": 0.9})
    assert {one.name for one in equal_rules(slow)[0]} == {"rmsprop"}

    class Planted(torch.optim.RMSprop):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            super().step(closure)
            for p in self.param_groups[0]["params"]:
                p.data.mul_(1 + 1e-7)

    assert not equal_rules(as_optimizer(Planted, "", {"alpha": 0.9, "lr": 1e-5}))[0]
    shifted = probe(Widened, {}, WIDTHS, SEEDS)
    plain = found("Adam")
    for role in ROLES:
        by = shifted.layers[role].measured - plain.layers[role].measured
        assert by == pytest.approx(0.5, abs=0.02)
    assert not shifted.equals and probe(Widened, {"power": 0.0}, (16, 32, 64), 2).equals == (
        "sign",
    )


def test_what_changes_after_two_steps_is_not_named_by_them() -> None:
    late = probe(Late, {"power": 0.0}, (16, 32, 64), 1)
    assert equal_rules(as_optimizer(Late))[0][0].name == "sgd" and not late.equals
    assert any("later ones differ" in x for x in late.notes)
    assert not found("RAdam").equals


def test_json_has_the_keys_of_the_schema(typed: Typed) -> None:
    words = ("torch.optim:Adam", "--kwargs", "lr=1e-2,betas=(0.8,0.9)", "--widths", "16:64")
    code, out, _ = typed("probe", *words, "--seeds", "2", "--format", "json")
    result = json.loads(out)
    assert code == 0 and set(result) == {"optimizer", "layers", "equals", "seconds", "notes"}
    assert set(result["layers"]) == set(ROLES) and "adam_debiased" in result["equals"]
    assert all(set(x) == {"measured", "low", "high", "rational"} for x in result["layers"].values())
    text = typed("probe", *words, "--seeds", "2").out
    assert "measured, not derived" in text and "adam_debiased" in text


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("torch.optim:Adm",), ("'Adm'", "did you mean 'Adam'?")),
        (("torch.nn:Linear",), ("without a method step", "Class(tensors, **keywords)")),
        (("torch.optim:SGD", "--kwargs", "speed=1"), ("'speed'", "weight_decay")),
        (("torch.optim:SGD", "--kwargs", "lr="), ("keywords 'lr='", "NAME=VALUE")),
        (("torch.optim:SGD", "--kwargs", "lr=-1.0"), ("raises ValueError", "Invalid learning")),
        (("torch.optim:SGD", "--kwargs", "lr=0.0"), ("does not move the input layer", "lr = 0.0")),
        (("torch.optim:SparseAdam",), ("RuntimeError", "a class of your own")),
        (("nowhere:Thing",), ("no module 'nowhere'", "pip install nowhere")),
        (("nowhere.py:Thing",), ("no file nowhere.py", "torch.optim:Adam")),
        (("torch",), ("the optimizer 'torch'", "MODULE:CLASS")),
        (("torch.optim:SGD", "--seeds", "0"), ("0 seeds", "--seeds 5")),
    ],
)
def test_what_is_no_optimizer_is_refused(
    typed: Typed, words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    code, out, err = typed("probe", *words)
    assert code == 2 and not out and "do this" in err
    assert all(part in err for part in parts), err


class Same(SeenBatch):
    """The gradient made again from the batch that was seen."""

    def __init__(self, module: torch.nn.Module, lr: float = 1e-3) -> None:
        super().__init__(module, lr, 0.0)

    def preconditioned(self, inputs: Tensor, cotangents: Tensor) -> None:
        there = [p.grad.clone() for p in self.module.parameters() if p.grad is not None]
        self.module.zero_grad()
        (self.module(inputs) * cotangents).sum().backward()  # type: ignore[no-untyped-call]
        for p, before in zip(self.module.parameters(), there, strict=True):
            torch.testing.assert_close(p.grad, before, rtol=1e-10, atol=1e-14)


def test_a_class_that_takes_a_module_sees_the_batch_of_its_gradient() -> None:
    made = as_optimizer(Same)
    assert [x.name for x in equal_rules(made)[0]] == ["sgd"]
    with pytest.raises(InvalidInput, match=r"before a backward pass"):
        Same(small()).step()


def test_an_optimizer_that_searches_within_a_step_is_told_from_a_large_rate(typed: Typed) -> None:
    code, _, err = typed("probe", "torch.optim:LBFGS", "--widths", "64:256", "--seeds", "1")
    assert code == 2 and "calls the loss 20 times" in err and "eps" not in err
    assert "--kwargs max_iter=1" in err and 'scaling derive "lbfgs_first"' in err


@pytest.mark.parametrize(
    ("made", "match"),
    [(Still, "does not move"), (Broken, "not finite"), (Vectors, "ValueError.*one axis only")],
)
def test_an_optimizer_that_cannot_be_probed_is_refused(made: type, match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        probe(made, {}, (16, 32, 64), 1)


def test_a_file_of_ones_own_is_probed(tmp_path: Path, typed: Typed) -> None:
    path = tmp_path / "mine.py"
    path.write_text("import torch\n\nclass Mine(torch.optim.SGD):\n    pass\n")
    code, out, _ = typed("probe", f"{path}:Mine", "--widths", "16:64", "--seeds", "2")
    told = " ".join(out.split())
    assert code == 0 and "Mine: measured, not derived" in told and ": sgd" in told


def small(width: int = 8) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(3, width), torch.nn.ReLU(), torch.nn.Linear(width, width, bias=False),
        torch.nn.ReLU(), torch.nn.Linear(width, 2, bias=False),
    )  # fmt: skip


def batch() -> tuple[Tensor, Tensor]:
    return torch.ones(4, 3), torch.ones(4, 2)


def test_a_plan_is_made_from_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    def quick(place: str, kwargs: Mapping[str, Any]) -> Probed:
        if place == "torch.optim:Adam":
            return found("Adam")
        xs = (Fraction(1, 2), Fraction(3, 2), Fraction(3, 2))
        layers = {
            role: ProbedRole(float(x), float(x), float(x), x)
            for role, x in zip(ROLES, xs, strict=True)
        }
        return replace(found("Adam"), optimizer=place, equal=(), layers=layers)

    monkeypatch.setattr("empirical.black_box.handed_over.probe", quick)
    sizes = {"width": 8}, {"width": 32}
    by_probe = plan(small, batch(), "probe:torch.optim:Adam", *sizes, {"lr": 1e-3})
    by_rule = plan(small, batch(), "adam_debiased", *sizes, {"lr": 1e-3, "eps": 1e-8})
    assert {k: x.lr for k, x in by_probe.tensors.items()} == {
        k: x.lr for k, x in by_rule.tensors.items()
    }
    assert any("torch.optim:Adam is adam_debiased" in x for x in by_probe.assumptions)
    measured = plan(
        small, batch(), "probe:mine.py:Wide(power=0.5); rest: sgd", *sizes, {"lr": 1e-3}
    )
    assert measured.tensors["2.weight"].lr == pytest.approx(1e-3 * 4**-1.5)
    assert any("measured, not derived" in x for x in measured.assumptions)


def test_all_that_takes_a_model_takes_a_probe_and_says_what_it_rests_on(
    monkeypatch: pytest.MonkeyPatch, typed: Typed, tmp_path: Path
) -> None:
    monkeypatch.setattr("empirical.black_box.handed_over.probe", lambda *_: found("Adam"))
    path, told = tmp_path / "model.py", "torch.optim:Adam is adam_debiased on its first two steps"
    path.write_text(f"""import torch
{inspect.getsource(small).replace("def small", "def build")}
def batch():
    return torch.ones(4, 3), torch.ones(4, 2)
def optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)
""")
    words = ("probe:torch.optim:Adam", "--model", str(path))
    sizes = ("--axis", "width=8,16,32", "--seeds", "2")
    derived = typed("derive", *words, "--format", "json")
    by_rule = json.loads(typed("derive", "adam_debiased", *words[1:], "--format", "json").out)
    assert json.loads(derived.out)["tensors"] == by_rule["tensors"] and told in derived.out
    for verb, more in (
        ("predict", ()),
        ("verify", sizes),
        ("check", (*sizes, "--as-is", "--margin", "9")),
        ("transfer", (*sizes, "--lr", "2^-9:2^-7", "--steps", "1", "--jobs", "1")),
    ):
        done = typed(verb, *words, *more)
        assert done.code in (0, 1, 3) and told in " ".join(done.out.split()), (verb, done)
    assert typed("derive", "probe:torch.optim:Adam").code == 2
    assert "add --model FILE.py" in typed("derive", "probe:torch.optim:Adam").err


def test_numbers_of_a_model_take_a_probe_and_what_trains_by_a_rule_refuses_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("empirical.black_box.handed_over.probe", lambda *_: found("Adam"))
    by_probe, by_rule = (
        for_model(rule, small, base=8, width=32, lr=1e-3, batch=batch(), dampings={"eps": 1e-8})
        for rule in ("probe:torch.optim:Adam", "adam_debiased")
    )
    assert dict(by_probe) == dict(by_rule)
    assert "is adam_debiased on its first two steps" in str(by_probe)
    assert set(by_probe.assumptions) > set(by_rule.assumptions)

    def sgd(model: torch.nn.Module, groups: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups)

    file = replace(model_of(small, batch()), optimizer_of=sgd)
    monkeypatch.setattr("empirical.black_box.handed_over.probe", lambda *_: found("SGD"))
    made = plan(small, batch(), "probe:torch.optim:SGD", {"width": 8}, {"width": 32}, {"lr": 0.1})
    composed = compose_file(made, file, "probe:torch.optim:SGD")
    assert dict(composed.tensors) == dict(made.tensors)
    named = r"(?s)the optimizer 'probe:torch.optim:Adam'.*scaling probe torch.optim:Adam"
    with pytest.raises(InvalidInput, match=rf"{named}.*train by Adam\(plan.param_groups"):
        RuleOptimizer(small(), "hidden: probe:torch.optim:Adam(lr=0.1); rest: sgd", 0.1)
    with pytest.raises(InvalidInput, match=named):
        check_model(small, "probe:torch.optim:Adam", *batch(), torch.nn.functional.mse_loss)


def test_a_fitted_rule_has_the_exponents_that_were_measured() -> None:
    for name in ("SGD", "RAdam", "Muon"):
        result = found(name)
        if any(x.rational is None for x in result.layers.values()):
            with pytest.raises(NotCovered, match="is open"):
                handed_over(replace(result, equal=()))
            continue
        text, note = handed_over(replace(result, equal=()))
        derived = derive(rule_of(text)).exponents.c
        assert [str(derived[x]) for x in ROLES] == [str(result.layers[x].rational) for x in ROLES]
        assert "measured, not derived" in note


def test_keywords_and_recipes_are_read() -> None:
    assert read_kwargs("lr=1e-3, eps=(None, 1e-9)") == {"lr": 1e-3, "eps": (None, 1e-9)}
    assert without_probes("hidden: muon; rest: adamw") == ("hidden: muon; rest: adamw", ())
    with pytest.raises(InvalidInput, match="NAME=VALUE"):
        read_kwargs("lr=open('x')")


@pytest.mark.parametrize("name", LIBRARIES)
def test_optimizers_of_other_libraries_have_the_exponents_of_their_rules(name: str) -> None:
    kwargs, rule, equals = LIBRARIES[name]
    pytest.importorskip(name.partition(":")[0], reason="pip install 'scaling[libraries]'")
    result = probe(name, kwargs, WIDTHS, SEEDS)
    holds(result, rule)
    assert equals <= set(result.equals)
