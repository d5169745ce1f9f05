"""Roles read off two widths, numbers from exponents, and a model of one's own trained with them."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import pytest
import sympy
import torch
from sympy import S, Symbol
from torch import Tensor, nn
from tour import tour

from derivations.catalogue import find
from empirical import RuleOptimizer
from empirical.data.sources import load
from empirical.measure.parametrize import LayerScales, at_width, draw_, power_of_width
from empirical.your_model.model_scales import for_model
from scaling.models.chain import Role, Setting, mlp
from scaling.rules.parser import parse
from scaling.rules.rule import Rule
from scaling.sizes.errors import InvalidInput, NotCovered
from scaling.solve.derive import derive

Build = Callable[[int], nn.Module]


def dense(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)
    )


def convolution(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 5), nn.BatchNorm2d(width), nn.Conv2d(width, 2 * width, 3),
        nn.Flatten(), nn.Linear(2 * width, 10),
    )  # fmt: skip


def text(width: int) -> nn.Module:
    return nn.Sequential(nn.Embedding(50, width), nn.LayerNorm(width), nn.Linear(width, 50))


def headless(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width, bias=False), nn.Linear(width, 2, bias=False))


def upsampling(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 1), nn.ReLU(), nn.ConvTranspose2d(width, 3, 2, 2, bias=False)
    )


class Scalar(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))
        self.layer = nn.Linear(2, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.temperature * self.layer(x)


class Recurrent(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell, self.last = nn.LSTM(3, width, batch_first=True), nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.cell(x)[0][:, -1])


class Heads(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.words, self.attention = nn.Embedding(9, width), nn.MultiheadAttention(width, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        return self.attention(x, x, x, need_weights=False)[0]


class Language(nn.Module):
    """The readout is the embedding."""

    def __init__(self, width: int, trained: bool = True) -> None:
        super().__init__()
        self.words, self.logits = nn.Embedding(9, width), nn.Linear(width, 9, bias=False)
        self.again = self.words
        self.between = nn.Linear(width, width)
        self.logits.weight = self.words.weight.requires_grad_(trained)

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(torch.tanh(self.between(self.words(ids))))


I, H, O, C = Role.INPUT, Role.HIDDEN, Role.OUTPUT, Role.CONSTANT
IDS, NUMBERS = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.ones(2, 5, 3)
BATCHES: dict[Any, Any] = {
    Scalar: (torch.ones(4, 2), torch.ones(4, 4)), Recurrent: (NUMBERS, torch.ones(2, 2)),
    Language: (IDS, IDS), Heads: (IDS, torch.ones(())),
    upsampling: (torch.ones(2, 3, 4, 4), torch.ones(2, 3, 8, 8)),
}  # fmt: skip
ROLES: list[tuple[Build, Mapping[str, Role]]] = [
    (dense, {"0.weight": I, "0.bias": I, "2.weight": H, "2.bias": I, "4.weight": O, "4.bias": C}),
    (convolution, {"0.weight": I, "0.bias": I, "1.weight": I, "1.bias": I, "2.weight": H,
                   "2.bias": I, "4.weight": O, "4.bias": C}),
    (text, {"0.weight": I, "1.weight": I, "1.bias": I, "2.weight": O, "2.bias": C}),
    (headless, {"0.weight": H, "1.weight": O}),
    (Recurrent, {"cell.weight_ih_l0": I, "cell.weight_hh_l0": H, "cell.bias_ih_l0": I,
                 "cell.bias_hh_l0": I, "last.weight": O, "last.bias": C}),
    (Heads, {"words.weight": I, "attention.in_proj_weight": H, "attention.in_proj_bias": I,
             "attention.out_proj.weight": H, "attention.out_proj.bias": I}),
    (Scalar, {"temperature": C, "layer.weight": I, "layer.bias": I}),
    (upsampling, {"0.weight": I, "0.bias": I, "2.weight": O}),
]  # fmt: skip


def half(outputs: Tensor, _: Tensor) -> Tensor:
    return outputs.square().mean() / 2


def roles(build: Build, small: int, large: int) -> dict[str, Role]:
    scales = for_model(
        "G", build(small), build(large), small, large, batch=BATCHES.get(build),
        loss=half if build in (Scalar, Heads) else None,
    )  # fmt: skip
    return {name: scales.roles[name] for name, _ in build(small).named_parameters()}


@pytest.mark.parametrize(
    ("build", "expected"), ROLES,
    ids=["dense", "conv", "text", "wide input", "lstm", "heads", "0d", "up"],
)  # fmt: skip
def test_roles_follow_the_axes_of_the_use_that_grow(
    build: Build, expected: Mapping[str, Role]
) -> None:
    assert roles(build, 8, 16) == expected


class Other(nn.Module):
    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.filter = nn.Conv2d(3, kernel, kernel)


def rooted(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(8, width), nn.Linear(width, int(width**0.5)))


def steep(w: int) -> nn.Module:
    return nn.Sequential(nn.Linear(8, w), nn.Linear(w, w * w), nn.Linear(w * w, 2))


@pytest.mark.parametrize(("narrow", "wide", "message"), [
    (dense(8), dense(4), r"axis 0 of '0.weight': 8 in the first model, 4 in (.|\n)*narrow"),
    (dense(4), dense(4), r"two models of the same width(.|\n)*model\(64\) and model\(128\)"),
    (dense(4), text(8), r"the parameter '0.bias' of shape \(4,\), with no|the first model lacks"),
    (nn.Linear(3, 4), nn.Conv2d(3, 8, 1), r"the parameter 'weight' of shape \(4, 3\), with no"),
    (rooted(64), rooted(128), r"axis 0 of '1.weight', which grows 1.38-fold where oth"),
    (steep(8), steep(16), r"axis 0 of '1.weight', which grows 4-fold(.|\n)*pass the function"),
    (rooted(9), rooted(9), r"two models of the same width"),
    (3, dense(4), r"a int as the first model"),
    (dense(4), dense, r"a function as the second model"),
    (Other(3), Other(5), r"a Other without a batch(.|\n)*pass batch=\(inputs, targets\)"),
    (nn.Sequential(nn.Linear(8, 4)), nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), "lacks"),
])  # fmt: skip
def test_models_that_do_not_fit_are_refused_with_tensor_and_axis(
    narrow: nn.Module, wide: nn.Module, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        for_model("G", narrow, wide, 64, 128)


def test_axes_may_have_offsets_and_the_answer_says_how_they_are_read() -> None:
    def build(w: int) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 3 * w + 7), nn.Linear(3 * w + 7, w // 2), nn.Tanh())

    two = for_model("sign(G)", build(32), build(64), 64, 128)
    whole = for_model("sign(G)", build, base=64, width=128)
    assert dict(two) == dict(whole)
    said = [" ".join(str(scales).split()) for scales in (two, whole)]  # long lines are wrapped
    assert "taken for an offset or a rounding" in said[0] and "it is 3 s + 7" in said[1]


def test_a_function_tells_powers_that_two_models_do_not() -> None:
    """A layer of w^2 units: 64 times fewer at its readout where the width is 8-fold."""
    scales = for_model("sign(G)", steep, base=8, width=64)
    assert scales["2.weight"].lr == pytest.approx(8.0**-2)
    assert scales["1.weight"].lr == pytest.approx(8.0**-1)


def test_a_tensor_in_two_uses_has_one_rate_and_a_frozen_one_none() -> None:
    scales = for_model("sign(G)", Language(8), Language(16), 64, 256, batch=(IDS, IDS))
    assert set(scales) == {"words.weight", "between.weight", "between.bias"}
    frozen = for_model("G", Language(8, False), Language(16, False), 64, 256, batch=(IDS, IDS))
    assert frozen["words.weight"].lr == 0 and frozen["words.weight"].std == 1
    assert frozen["between.weight"].lr > 0


def test_any_exact_number_is_an_exponent() -> None:
    for value in (Fraction(1, 2), sympy.Rational(1, 2)):
        found = for_model(
            "G @ (A + rho*I)**(-e)", dense(4), dense(8), 64, 128, exponents={"e": value}
        )
        assert found["2.weight"].lr == pytest.approx(2**0.5)  # c = -e
    with pytest.raises(InvalidInput, match="an exact number"):
        for_model("G @ (A + rho*I)**(-e)", dense(4), dense(8), 64, 128, exponents={"e": 0.5})


# --- numbers ------------------------------------------------------------------------------------

KFAC = "(B + rho_B*I)**(-1) @ G @ (A + rho_A*I)**(-1/2)"


def test_numbers_of_a_model_are_those_computed_by_hand() -> None:
    """SGD: c = -1, 0, 1. K-FAC with e_B = 1, e_A = 1/2: c = 0, 1/2, 1/2, d_B = 1, 1, 0."""
    sgd = for_model(parse("G"), dense(4), dense(8), base=64, width=1024, lr=0.5)
    names = ("0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias")
    assert [sgd[k].lr for k in names] == pytest.approx([8, 8, 0.5, 8, 0.5 / 16, 0.5])
    assert [sgd[k].std for k in names] == pytest.approx([1, 1, 1 / 4, 1, 1 / 16, 1])
    assert all(x.multiplier == 1 and x.dampings == {} for x in sgd.values())
    dampings = {"rho_A": 1e-2, "rho_B": 1e-3}
    kfac = for_model(parse(KFAC), dense(4), dense(8), 64, 1024, 0.1, dampings)
    assert [kfac[k].lr for k in names[::2]] == pytest.approx([0.1, 0.025, 0.025])
    assert [kfac[k].dampings["rho_B"] for k in names[::2]] == pytest.approx(
        [1e-3 / 16, 1e-3 / 16, 1e-3])  # fmt: skip
    assert [kfac[k].dampings["rho_A"] for k in names[::2]] == pytest.approx([1e-2, 0.16, 0.16])
    assert {kfac[k].dampings["rho_A"] for k in names[1::2]} == {1e-2}  # the input of a bias is 1


@pytest.mark.parametrize("rule", ["sgd", "sign", "adam", "muon", "normalized_sgd"])
def test_nothing_changes_at_the_base(rule: str) -> None:
    dampings = dict.fromkeys(find(rule).rule.dampings, 1e-4)
    scales = for_model(find(rule).rule, dense(4), dense(8), 128, 128, 0.3, dampings)
    assert all(x == LayerScales(1.0, 0.3, dampings) for x in scales.values())


def test_exponents_are_those_of_derive() -> None:
    rule = parse("sign(G) @ (A + rho*I)**(-1/4)")
    table = derive(rule, setting=Setting(mlp(3, biases=True))).exponents
    scales = for_model(rule, convolution(4), convolution(8), base=2, width=4)
    layers = {"0.weight": "input", "2.weight": "hidden", "4.weight": "output",
              "2.bias": "hidden_bias", "4.bias": "output_bias"}  # fmt: skip
    for name, layer in layers.items():
        assert -math.log2(scales[name].lr) == pytest.approx(float(table.c[layer])), name
        assert -math.log2(scales[name].std) == pytest.approx(float(table.b[layer])), name
        assert -math.log2(scales[name].dampings["rho"]) == pytest.approx(
            float(table.d[layer]["rho"])
        )


def test_a_symbolic_exponent_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match=r"no value for .e_B.(.|\n)*Fraction"):
        for_model(find("kfac").rule, dense(4), dense(8), 64, 128)


@pytest.mark.parametrize("lr", [-1, float("nan"), float("inf"), "fast"])
def test_a_learning_rate_that_is_none_is_refused(lr: Any) -> None:
    with pytest.raises(InvalidInput, match=f"lr={lr}"):
        for_model("G", dense(4), dense(8), base=64, width=128, lr=lr)


def test_a_rule_may_be_its_text() -> None:
    models = dense(4), dense(8)
    assert for_model("sign(G)", *models, 64, 128) == for_model(parse("sign(G)"), *models, 64, 128)


def test_an_unknown_damping_is_refused() -> None:
    with pytest.raises(InvalidInput):
        for_model(parse(KFAC), dense(4), dense(8), 64, 128, dampings={"rho": 1e-3})


@pytest.mark.parametrize(("base", "width"), [(0, 64), (64, 0), (-1, 64), (64, -64), (64, math.nan)])
def test_widths_below_one_are_refused(base: Any, width: Any) -> None:
    with pytest.raises(InvalidInput):
        for_model(parse("G"), dense(4), dense(8), base, width)


def test_a_power_of_the_width_is_refused_while_it_holds_a_symbol() -> None:
    assert power_of_width(16, S.Half, "b") == 0.25
    assert power_of_width(16, S.Infinity, "b") == 0
    assert power_of_width(16, S(-1), "b") == 16
    with pytest.raises(InvalidInput, match=r"c of hidden = beta - 1, with beta(.|\n)*--set beta=1"):
        power_of_width(16, Symbol("beta") - 1, "c of hidden")


def test_numbers_at_a_width_are_constants_times_powers() -> None:
    layer = mlp(3)[1]
    x = at_width(16, layer, S(1) / 4, S.Half, S(1), {"rho": S(-1)}, 3.0, 5.0, {"rho": 7.0})
    assert x == LayerScales(std=0.75, lr=0.3125, scaled={"rho": 112.0}, multiplier=0.5)


def test_draws_have_the_standard_deviation_and_are_named_by_seed_width_and_layer() -> None:
    def drawn(*name: int, std: float = 2.0) -> Tensor:
        weight = torch.empty(300, 200, dtype=torch.float64)
        draw_(weight, std, *name)
        return weight

    first = drawn(1, 64, 0)
    assert torch.equal(first, drawn(1, 64, 0))
    assert float(first.std()) == pytest.approx(2, rel=0.02) and abs(float(first.mean())) < 0.04
    for other in ((2, 64, 0), (1, 65, 0), (1, 64, 1)):
        correlation = float((first * drawn(*other)).mean()) / 4
        assert abs(correlation) < 0.02, (other, correlation)
    assert not drawn(1, 64, 0, std=0).any()


# --- a model of one's own -----------------------------------------------------------------------

BASE, STEPS = 64, 3
DATA = load("digits")


def user_model(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, width, bias=False), nn.ReLU(), nn.Linear(width, 10)).double()


def changes(rule: Rule, width: int, seed: int, lr: float, rescale: bool) -> tuple[float, float]:
    """RMS change of the hidden features and of the output after a few steps."""
    dampings = dict.fromkeys(rule.dampings, 0.1)
    scales = for_model(rule, user_model(4), user_model(8), BASE, width, lr, dampings)
    model = user_model(width)
    at_base = {"0.weight": 1 / 8, "2.weight": 1 / BASE, "2.bias": 0.0}
    for index, (name, parameter) in enumerate(model.named_parameters()):
        draw_(parameter, at_base[name] * scales[name].std, seed, width, index)
    numbers = {name.removesuffix(".weight"): x for name, x in scales.items()}
    optimizer = RuleOptimizer(
        model,
        rule,
        {name: x.lr if rescale else lr for name, x in numbers.items()},
        {k: {name: x.dampings[k] if rescale else 0.1 for name, x in numbers.items()}
         for k in rule.dampings},
    )  # fmt: skip
    with torch.no_grad():
        before = model[:2](DATA.probe_inputs), model(DATA.probe_inputs)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = 0.5 * (model(DATA.inputs) - DATA.targets).square().sum(dim=1).mean()
        torch.autograd.backward(loss)
        optimizer.step()
    with torch.no_grad():
        after = model[:2](DATA.probe_inputs), model(DATA.probe_inputs)
    h, f = (float((x - y).square().mean().sqrt()) for x, y in zip(before, after, strict=True))
    return h, f


def growth(rule: Rule, lr: float, rescale: bool) -> tuple[float, float]:
    """How much larger the changes are at 16 times the width, for features and output."""
    logs = torch.tensor(
        [
            [
                math.log(wide / narrow)
                for wide, narrow in zip(
                    changes(rule, 16 * BASE, seed, lr, rescale),
                    changes(rule, BASE, seed, lr, rescale),
                    strict=True,
                )
            ]
            for seed in range(4)
        ]
    ).mean(dim=0)
    h, f = logs.exp().tolist()
    return h, f


@pytest.mark.parametrize(("rule", "lr"), [
    ("G", 0.03), ("sign(G)", 0.005), ("orth(G)", 0.05), ("G @ (A + rho*I)**(-1)", 0.3),
])  # fmt: skip
def test_a_model_of_ones_own_moves_alike_at_every_width(rule: str, lr: float) -> None:
    """16 times the width: changes stay within 1.5 of each other, and not so at a constant rate."""
    h, f = growth(parse(rule), lr, rescale=True)
    assert 1 / 1.5 < h < 1.5 and 1 / 1.5 < f < 1.5, (h, f)
    h, f = growth(parse(rule), lr, rescale=False)
    assert max(h, f, 1 / h, 1 / f) > 3, (h, f)


def test_scales_can_be_handed_to_the_optimizer_as_they_are() -> None:
    rule = find("sgd").rule
    scales = for_model(rule, dense(4), dense(8), 64, 128)
    RuleOptimizer(dense(16), rule, {name: x.lr for name, x in scales.items()})


WITHOUT_NUMBERS = {
    "stable_adamw": "no factor of W alone",
    "sgd_centred": "never moves '0.bias'",  # its centred gradient is zero
    "adam_centred": "never moves '0.bias'",
}
"""Rules of the catalogue that this model has no numbers for, and what the refusal says."""


@pytest.mark.filterwarnings("ignore::empirical.your_model.model_scales.RegimeWarning")
def test_every_optimizer_of_the_catalogue_has_numbers_for_a_model() -> None:
    for name, optimizer in tour().items():
        if not optimizer.rule.ascents:  # derived for a chain alone, and refused by name here
            exponents = optimizer.exponents
            try:
                for_model(optimizer.rule, dense(4), dense(8), 64, 128, exponents=exponents)
            except (NotCovered, InvalidInput) as error:
                assert WITHOUT_NUMBERS[name] in error.found
