"""Trust ratios at zero: ratio 1 where the weights or the gradient are zero, as in public code."""

import pytest
import torch
from torch import Tensor, nn
from tour import tour

from derivations.catalogue import find
from empirical import RuleOptimizer, for_model
from scaling.models.chain import Setting
from scaling.models.settings import read_settings
from scaling.rules.parser import parse
from scaling.rules.tree import Matrix
from scaling.sizes.errors import NotCovered
from scaling.solve.derive import Derived, derive

BARE = "norm(W)/(norm(G) + eps)*G"
RULES = {"lars": {"eps": 1e-3}, "lamb": {"eps": 1e-3, "beta1": 0.9, "beta2": 0.999}}


def by_hand(name: str, weight: Tensor, gradient: Tensor) -> Tensor:
    """The update of public implementations, in plain torch: ratio 1 where a norm is zero."""
    if name == "lars":
        ratio = weight.norm() / (gradient.norm() + 1e-3)
        usable = bool(weight.norm() > 0) and bool(gradient.norm() > 0)
        return (ratio if usable else 1.0) * gradient
    step = 0.1 * gradient / ((0.001 * gradient.square()).sqrt() + 1e-3)
    usable = bool(weight.norm() > 0) and bool(step.norm() > 0)
    return (weight.norm() / step.norm() if usable else 1.0) * step


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("zero", ["nothing", "weight", "gradient"])
def test_the_update_is_that_of_public_implementations(name: str, zero: str) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 4).double()
    nn.init.zeros_(layer.bias)  # a bias that starts at zero moves too
    if zero == "weight":
        nn.init.zeros_(layer.weight)
    x = torch.randn(6, 5).double()
    optimizer = RuleOptimizer(layer, name, 0.1, dict(RULES[name]))
    before = [p.detach().clone() for p in layer.parameters()]
    (layer(x).square().sum() * (0 if zero == "gradient" else 1) + layer(x).sum() * (
        0 if zero == "gradient" else 1
    )).backward()  # fmt: skip
    gradients = [p.grad for p in layer.parameters()]
    optimizer.step()
    for old, gradient, new in zip(before, gradients, layer.parameters(), strict=True):
        assert gradient is not None
        expected = old - 0.1 * by_hand(name, old, gradient)
        torch.testing.assert_close(new.detach(), expected, rtol=1e-10, atol=1e-14)
        assert torch.equal(new.detach(), old) is (zero == "gradient")


def test_a_bare_quotient_never_moves_what_is_zero() -> None:
    layer = nn.Linear(5, 4).double()
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = RuleOptimizer(layer, BARE, 0.1, {"eps": 1e-3})
    layer(torch.randn(6, 5).double()).sum().backward()
    optimizer.step()
    assert not layer.weight.any() and not layer.bias.any()


def with_zero_readout(rule: str) -> Derived:
    parsed = parse(rule)
    return derive(parsed, read_settings(["b_output=oo"], parsed, Setting().layers))


def test_a_readout_that_is_zero_has_the_rate_of_the_gradient_and_the_bare_rule_says_why() -> None:
    trusted = with_zero_readout(str(find("lars").rule))
    assert trusted.exponents.c["output"] == with_zero_readout("G").exponents.c["output"] == 1
    bare = with_zero_readout(BARE)
    assert str(bare.exponents.c["output"]) == "c_output"
    (text,) = (x for x in bare.assumptions if "never moves" in x)
    assert (
        "trust(norm(W), y) in the place of norm(W)/y is 1 there, max(norm(W), eps) has a floor"
        in text
    )


STILL = {"adafactor_relative", "adalomo", "amos", "sso"}
"""What is as large as the weights, and has no floor."""
UNANSWERED = {
    "stable_adamw": "no factor of W alone",
    "muon_hyperball": "a division by exactly zero",
    "adam_hyperball": "a division by exactly zero",
}
"""Where a readout of zeros is refused, by what."""


def test_relative_adafactor_leaves_a_zero_weight_and_the_answer_says_so() -> None:
    still = []
    for name, optimizer in tour().items():
        if Matrix("W") in optimizer.rule.expression.walk() and not optimizer.rule.ascents:
            try:
                found = with_zero_readout(str(optimizer.rule))
            except NotCovered as error:
                assert UNANSWERED[name] in error.found
                continue
            still += [name] if any("never moves" in x for x in found.assumptions) else []
    assert set(still) == STILL & set(tour())
    floor = with_zero_readout("max(rms(W), eps_w)*G/(rms(G) + eps)")  # what the text offers
    assert not any("never moves" in x for x in floor.assumptions)


def test_away_from_zero_a_trust_ratio_is_the_quotient() -> None:
    for rule in ("{}*G", "{}*sign(G)"):
        one = derive(rule.format("trust(norm(W), norm(G) + eps)")).exponents
        two = derive(rule.format("norm(W)/(norm(G) + eps)")).exponents
        assert one == two


def test_a_trust_ratio_of_what_may_be_negative_is_refused() -> None:
    with pytest.raises(NotCovered, match="a trust ratio of numbers that may be negative"):
        derive("trust(norm(W) - norm(G), norm(G))*G")


def test_scales_say_what_becomes_of_biases_that_start_at_zero() -> None:
    def build(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 2))

    trusted = for_model("lars", build(4), build(8), 64, 128)
    assert any("one that is zero has c = -1" in x for x in trusted.assumptions)
    bare = for_model(BARE, build(4), build(8), 64, 128)
    assert any("one that is zero never moves" in x for x in bare.assumptions)
    assert not any("zero" in x for x in for_model("adamw", build(4), build(8), 64, 128).assumptions)
