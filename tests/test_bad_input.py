"""Rules of another operator set, W in the wrong place, numbers out of range, second batches.

Each is refused with found / needed / do this, and what is offered is accepted.
"""

import re
from typing import Any

import pytest
import torch
from typed import Typed

from derivations.catalogue import catalogue, find, rule_of
from derivations.outside import OUTSIDE, bare
from empirical.black_box.optimizer_class import as_optimizer
from empirical.black_box.probed_optimizer import probe
from scaling.rules.parser import parse
from scaling.sizes.errors import InvalidInput, RuleError
from scaling.solve.alternatives import decisive, regime_lines
from scaling.solve.derive import derive


def offered(text: str) -> str:
    with pytest.raises(RuleError) as refused:
        parse(text)
    assert refused.value.found and refused.value.needed
    return refused.value.do_this


@pytest.mark.parametrize(("text", "rule"), [
    ("torch.sign(G)", "sign(G)"),
    ("G.sign()", "sign(G)"),
    ("np.sign(G) + decay*W", "sign(G) + decay*W"),
    ("G.mm(A)", "G @ A"),
    ("torch.linalg.norm(W)*G/torch.norm(G)", "norm(W)*G/norm(G)"),
    ("G/(G.abs() + eps)", "G/(abs(G) + eps)"),
    ("torch.matmul(G.T.mT, R + rho*I)", "G.T.T @ (R + rho*I)"),
])  # fmt: skip
def test_code_of_another_library_is_answered_by_the_rule_that_it_means(
    text: str, rule: str
) -> None:
    offer = offered(text).removeprefix("write for example ")
    assert parse(offer) == parse(rule)


def test_what_has_no_translation_is_not_given_one() -> None:
    for text in ("F.normalize(G)", "G[0]", "torch.nn.functional.gelu(G)"):
        assert offered(text) == "rewrite this part with those"


@pytest.mark.parametrize(("text", "offer"), [
    ("G @ W", "G + decay*W"),
    ("W @ sign(G)", "sign(G) + decay*W"),
    ("W @ W", "G + decay*W"),
    ("(G + G) @ W", "(G + G) + decay*W"),
    ("G @ G", "G @ G.T @ G"),
])  # fmt: skip
def test_products_that_do_not_fit_offer_a_rule_that_does(text: str, offer: str) -> None:
    said = offered(text)
    assert f"such as {offer}" in said
    derive(offer)
    for size in re.findall(r"norm\(W\)\*\S+$", said):
        derive(size)


@pytest.mark.parametrize(("rule", "key"), [
    ("adam", "beta1=1.5"), ("adam", "beta1=-1/2"), ("adam", "eps=-1e-8"), ("kfac", "rho_A=-1"),
])  # fmt: skip
def test_numbers_out_of_their_range_are_refused_and_the_offer_is_taken(
    typed: Typed, rule: str, key: str
) -> None:
    refused = typed("derive", rule, "--set", key)
    assert refused.code == 2 and f"found: {key}" in refused.err
    offer = refused.err.split("write for example ")[1].split()[0]
    assert typed("derive", rule, "--set", offer).code == 0
    for text in ("ema(G, 1.5)", "newton_schulz(G, 0)", "block(L, 0) @ G"):
        assert "write for example" in offered(text)


@pytest.mark.parametrize(("text", "rule"), [
    ("m / (v.sqrt() + eps)", "ema(G, beta1)/(sqrt(ema(G*G, beta2)) + eps)"),
    ("m/(sqrt(v) + eps)", "ema(G, beta1)/(sqrt(ema(G*G, beta2)) + eps)"),
    ("grad/norm(grad)", "G/norm(G)"),
    ("p.grad.sign()", "sign(G)"),
    ("W - lr*G", "G"),
    ("dW = sign(G)", "sign(G)"),
    ("W = W - lr*msign(G)", "orth(G)"),
    ("G @ A^-1", "G @ A**(-1)"),
    ("G @ inv(A + rho*I)", "G @ (A + rho*I)**(-1)"),
    (r"\sign(G) ⊙ G ⊙ G", "sign(G)*G*G"),
])  # fmt: skip
def test_a_step_as_papers_write_it_is_answered_by_its_update(text: str, rule: str) -> None:
    assert parse(offered(text).removeprefix("write for example ")) == parse(rule)


@pytest.mark.parametrize(("text", "rule"), [
    ("A**(-1) @ G", "G @ A**(-1)"), ("G @ A @ B", "B @ (G @ A)"), ("B @ A", "B @ G @ A"),
    ("A @ B", "B @ G @ A"),
])  # fmt: skip
def test_a_factor_on_the_wrong_side_is_offered_on_the_other(text: str, rule: str) -> None:
    assert parse(offered(text).split(": ")[-1]) == parse(rule)


def test_names_of_functions_and_rates_are_no_numbers() -> None:
    for text in ("lr*G + decay*W", "G*exp", "spectral_map(G, relu)"):
        with pytest.raises(RuleError, match="which would be a number of order one"):
            parse(text)
    assert parse("m*G").constants == ("m",)  # a name of one's own, in a rule that is whole
    assert "in the place of inv(A) write A ** (-1)" in offered("inv(A) @ G")


@pytest.mark.parametrize(("asked", "needs"), [
    ("LBFGS", "a closure"), ("torch.optim:LBFGS", "a closure"), ("torch.optim.LBFGS", "a closure"),
    ("svrg", "a second batch"), ("sophia_h", "a second batch"), ("mezo", "a closure"),
    ("prodigy", "a second set of weights"),
])  # fmt: skip
def test_what_needs_a_closure_or_a_second_batch_says_so(
    typed: Typed, asked: str, needs: str
) -> None:
    refused = typed("derive", asked)
    assert refused.code == 2 and f"which needs {needs}" in refused.err
    assert refused.err.count("do this: write ") == 1


def test_what_is_offered_for_optimizers_outside_of_the_language_is_derived() -> None:
    for one in OUTSIDE:
        assert derive(rule_of(one.nearest)).exponents.c
        assert not {bare(x) for x in catalogue()} & {*one.names}
        assert one.names == tuple(map(bare, one.names))


def test_a_class_in_the_place_of_a_rule_is_answered_by_its_rule(typed: Typed) -> None:
    refused = typed("derive", "torch.optim.AdamW(lr=1e-3)")
    assert refused.code == 2 and "write for example adamw;" in refused.err
    assert "scaling probe torch.optim:SparseAdam" in typed("derive", "torch.optim:SparseAdam").err
    assert "did you mean 'lion'?" in typed("derive", "Lion").err


class TwoPasses(torch.optim.SGD):
    """Gradient descent that insists on a closure it does not declare as needed."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if closure is None:
            raise RuntimeError("needs a closure: two forward-backward passes")
        closure()
        super().step()


class SecondOrder(torch.optim.SGD):
    """What differentiates the gradient again."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for p in self.param_groups[0]["params"]:
            torch.autograd.grad(p.grad.sum(), p)


def test_a_closure_that_turns_out_to_be_needed_is_given_and_a_hessian_is_refused() -> None:
    assert "sgd" in probe(TwoPasses, {"lr": 0.1}, (16, 32, 64), 2).equals
    with pytest.raises(InvalidInput, match="does not require grad") as refused:
        probe(SecondOrder, {"lr": 0.1}, (16, 32, 64), 2)
    assert "create_graph=True" in refused.value.needed
    rule = re.search(r'"(.*)"', refused.value.do_this)
    assert rule is not None and derive(rule[1])
    assert not as_optimizer(TwoPasses, "", {}).needs_a_closure


def test_a_regime_names_its_terms_with_the_numbers_in_front_of_them() -> None:
    found = derive("G/(1000 + 3*norm(W)/100)")
    lines = [x for x in regime_lines(found) if "hidden" in x]
    assert lines == ["regime in hidden: 1000 ~ 1, 3/100*norm(W) ~ M^(1/2): 3/100*norm(W) dominates"]
    assert any("with 1000 alone" in str(x) for x in decisive(found))
    assert not [x for x in regime_lines(derive(find("adam").rule)) if "*" in x.split(":")[0]]
