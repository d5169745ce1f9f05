"""RuleOptimizer on models whose tensors are no (fan_out, fan_in): beside updates in plain torch.

The oracles are dense float64 updates with Kronecker factors written out by hand (rule_oracles.py).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from model_files import guessed
from rule_oracles import Expert, Matrix, Packed, Pixels, Raw, Seen, Tapped, Tied
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import mse_loss

from empirical import RuleOptimizer, for_model, initialise_
from empirical.your_model.model_scales import scales_at
from scaling.sizes.errors import InvalidInput, NotCovered

LR = 0.1


def power(x: Tensor, e: float, rho: float) -> Tensor:
    values, vectors = torch.linalg.eigh(x + rho * torch.eye(len(x)))
    return vectors * values**e @ vectors.T


def second(x: Tensor) -> Tensor:
    return x @ x.T / x.shape[1]


def kfac(m: Matrix) -> Tensor:
    return power(second(m.d), -0.5, 0.05) @ m.g @ power(second(m.h), -1, 0.1)


def shampoo(m: Matrix) -> Tensor:
    return power(m.g @ m.g.T, -0.25, 0.01) @ m.g @ power(m.g.T @ m.g, -0.5, 0.02)


def muon(m: Matrix) -> Tensor:
    u, s, v = torch.linalg.svd(m.g, full_matrices=False)
    kept = s > 1e-12 * s[0]
    return (m.g.shape[0] / m.g.shape[1]) ** 0.5 * u[:, kept] @ v[kept]


def soap(m: Matrix) -> Tensor:
    """The first step, all averages at their first value."""
    left, right = (torch.linalg.eigh(x).eigenvectors for x in (m.g @ m.g.T, m.g.T @ m.g))
    x = left.T @ m.g @ right
    return left @ (x / (x.abs() + 0.01)) @ right.T


RULES: dict[str, tuple[str, dict[str, float], Callable[[Matrix], Tensor]]] = {
    "kfac": (
        "(B + rho_B*I)**(-1/2) @ G @ (A + rho_A*I)**(-1)", {"rho_B": 0.05, "rho_A": 0.1}, kfac,
    ),
    "shampoo": (
        "(L + rho_L*I)**(-1/4) @ G @ (R + rho_R*I)**(-1/2)", {"rho_L": 0.01, "rho_R": 0.02}, shampoo
    ),
    "muon": ("sqrt(fan_out/fan_in)*orth(G)", {}, muon),
    "soap": (
        "eig(L) @ (X/(sqrt(X**2) + eps)) @ eig(R).T where X = eig(L).T @ G @ eig(R)",
        {"eps": 0.01}, soap,
    ),
}  # fmt: skip
NUMBERS = {
    Raw: ((5, 4, 3), (5, 4, 2)), Expert: ((3, 6, 4), (3, 6, 2)), Pixels: ((3, 2, 6), (3, 2, 7)),
    Packed: ((5, 3, 4), (5, 3, 4)), Tied: ((7,), (7, 5)),
}  # fmt: skip


def data(build: type[Tapped]) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    x, y = (torch.randn(size) for size in NUMBERS[build])
    return (torch.tensor([0, 3, 3, 1, 4, 0, 3]), y) if build is Tied else (x, y)


@pytest.fixture(autouse=True)
def doubles() -> Any:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def stepped(
    model: nn.Module, rule: str, values: dict[str, float], x: Tensor, y: Tensor
) -> dict[str, Tensor]:
    """What one step changes, over minus the learning rate."""
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = RuleOptimizer(model, rule, LR, values, batch=(x, y))
    optimizer.zero_grad()
    mse_loss(model(x), y).backward()
    optimizer.step()
    return {n: (before[n] - p.detach()) / LR for n, p in model.named_parameters()}


def by_hand(model: nn.Module, seen: Seen, update: Callable[[Matrix], Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, parameter in model.named_parameters():
        found[name] = torch.zeros_like(parameter)
        for matrix in seen[name]:
            matrix.at(found[name]).copy_(matrix.put(update(matrix)))
    return found


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        scale = float(x.abs().max())
        torch.testing.assert_close(found[name], x, rtol=1e-8, atol=1e-8 * scale, msg=name)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("build", NUMBERS)
def test_a_step_is_that_of_factors_written_by_hand(build: type[Tapped], rule: str) -> None:
    text, values, update = RULES[rule]
    model, (x, y) = build(), data(build)
    expected = by_hand(model, model.seen(x, y), update)
    assert_same(stepped(model, text, values, x, y), expected)


class Weighted(nn.Module):
    """Matrices of experts and the weights of these, in one product of three factors."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.gate = nn.Parameter(torch.randn(3, 4, 2)), nn.Linear(4, 3)
        self.gate.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bi,be,eio->bo", x, self.gate(x).softmax(-1), self.w)


def test_a_product_of_three_factors_has_the_factors_of_the_other_two() -> None:
    """h = x r of every sample, over inputs and experts, which the product sums over."""
    model, x, y = Weighted(), torch.randn(7, 4), torch.randn(7, 2)
    text, values, _ = RULES["kfac"]
    weights = model.gate(x).softmax(-1)
    h = torch.einsum("bi,be->eib", x, weights).flatten(0, 1)
    d = (2 * (model(x) - y) / y.numel() * len(x)).detach().T
    g = d @ h.T / len(x)
    expected = power(second(d), -0.5, 0.05) @ g @ power(second(h), -1, 0.1)
    found = stepped(model, text, values, x, y)["w"]
    torch.testing.assert_close(found, expected.T.reshape(3, 4, 2), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("build", [Raw, Expert, Pixels])
def test_factors_of_the_other_axes_are_another_step(build: type[Tapped]) -> None:
    def turned(matrix: Matrix) -> Tensor:
        other = Matrix(matrix.d, matrix.h, matrix.g.T, matrix.at, matrix.put)
        return kfac(other).T

    text, values, _ = RULES["kfac"]
    model, (x, y) = build(), data(build)
    expected = by_hand(model, model.seen(x, y), turned)
    found = stepped(model, text, values, x, y)
    for name, one in expected.items():
        assert not torch.allclose(found[name], one, rtol=1e-2), name


@pytest.mark.parametrize("rule", ["kfac", "muon"])
def test_a_packed_projection_is_one_matrix_or_three_as_the_recipe_says(rule: str) -> None:
    text, values, update = RULES[rule]
    model, (x, y) = Packed(), data(Packed)
    three = by_hand(model, model.seen(x, y, parts=3), update)
    found = stepped(model, f"*.in_proj_weight: {text} in 3 parts; rest: {text}", values, x, y)
    assert_same(found, three)
    one = by_hand(model, model.seen(x, y), update)
    with pytest.raises(AssertionError):
        assert_same({"mha.in_proj_weight": one["mha.in_proj_weight"]}, {
            "mha.in_proj_weight": three["mha.in_proj_weight"]
        })  # fmt: skip


# --- training -----------------------------------------------------------------------------------


def mixed() -> nn.Sequential:
    """Layers with and without a matrix, in float32."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 8), nn.RMSNorm(8), nn.Linear(8, 2)
    )


KFAC = "ema((B + rho_B*I)**(-1) @ G @ (A + rho_A*I)**(-1), 0.9)"
RHO = {"rho_A": 0.1, "rho_B": 0.01}


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    return torch.randn(16, 3), torch.randn(16, 2)


def train(model: nn.Module, optimizer: RuleOptimizer, steps: int) -> list[float]:
    (x, y), losses = batch(), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_run_that_is_saved_and_loaded_goes_on_as_if_it_had_not_been() -> None:
    straight, first = mixed(), mixed()
    losses = train(straight, RuleOptimizer(straight, KFAC, 0.02, RHO, batch=batch()), 6)
    assert losses[-1] < losses[0]
    optimizer = RuleOptimizer(first, KFAC, 0.02, RHO, batch=batch())
    train(first, optimizer, 3)
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved, second = torch.load(file, weights_only=True), mixed()
    second.load_state_dict(saved["model"])
    resumed = RuleOptimizer(second, KFAC, 9.0, RHO, batch=batch())
    resumed.load_state_dict(saved["optimizer"])
    assert train(second, resumed, 3) == losses[3:]


def test_the_layers_of_torch_are_trained_alike_with_and_without_a_graph() -> None:
    models = [nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    names = []
    for model, given in zip(models, (None, tuple(x.double() for x in batch())), strict=True):
        optimizer = RuleOptimizer(model, KFAC, 0.1, RHO, batch=given)
        names.append([group["name"] for group in optimizer.param_groups])
        optimizer.zero_grad()
        x, y = (z.double() for z in batch())
        mse_loss(model(x), y).backward()
        optimizer.step()
    assert names[0] == names[1]
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_under_bfloat16_a_step_is_near_that_in_float32_and_float16_is_refused() -> None:
    changes = []
    for half in (False, True):
        model = mixed()
        before = [p.detach().clone() for p in model.parameters()]
        optimizer = RuleOptimizer(model, KFAC, 1.0, RHO, batch=batch())
        x, y = batch()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            loss = mse_loss(model(x).float(), y)
        loss.backward()
        optimizer.step()
        moved = [p.detach() - b for p, b in zip(model.parameters(), before, strict=True)]
        changes.append(torch.cat([m.flatten() for m in moved]))
    error = torch.linalg.vector_norm(changes[0] - changes[1])
    assert 0 < error < 0.05 * torch.linalg.vector_norm(changes[0])
    with (
        torch.autocast("cpu", dtype=torch.float16),
        pytest.raises(InvalidInput, match=r"found: autocast in float16\n(.|\n)*bfloat16"),
    ):
        model(x)
    with pytest.raises(InvalidInput, match=r"the tensor '0\.weight' in float16"):
        RuleOptimizer(mixed().half(), "G", 0.1, batch=batch())


def test_what_looks_at_gradients_alone_takes_clipped_ones_and_no_hook() -> None:
    model, other = mixed(), mixed()
    ours = RuleOptimizer(model, "G", 0.1, batch=batch())
    theirs = torch.optim.SGD(other.parameters(), lr=0.1)
    x, y = batch()
    for one, optimizer in ((model, ours), (other, theirs)):
        mse_loss(one(x), y).backward()
        nn.utils.clip_grad_norm_(one.parameters(), 0.01)
        optimizer.step()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)
    assert not model._forward_hooks


def test_a_compiled_model_is_trained_by_muon_and_refused_by_kfac() -> None:
    plain, whole = mixed(), mixed()
    compiled = torch.compile(whole, backend="eager")
    losses = [
        train(model, RuleOptimizer(model, "orth(G)", 0.02, batch=batch()), 2)
        for model in (plain, compiled)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    with pytest.raises(InvalidInput, match=r"a compiled model under (.|\n)*before torch\.compile"):
        RuleOptimizer(compiled, KFAC, 0.1, RHO, batch=batch())


def test_gradients_that_its_uses_do_not_explain_are_refused() -> None:
    model, (x, y) = mixed(), batch()
    optimizer = RuleOptimizer(model, KFAC, 0.1, RHO, batch=batch())
    before = [p.detach().clone() for p in model.parameters()]
    mse_loss(model(x), y).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    with pytest.raises(InvalidInput, match=r"a \.grad of '0' other than (.|\n)*do not clip"):
        optimizer.step()
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


class Recurrent(nn.Module):
    """A recurrent layer that torch computes as one call."""

    def __init__(self) -> None:
        super().__init__()
        self.core, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(x)[0])


def test_a_recurrent_layer_is_trained_by_shampoo_and_refused_by_kfac_by_name() -> None:
    model, x, y = Recurrent(), torch.randn(5, 6, 3), torch.randn(5, 6, 2)
    rule, values = "(L + rho*I)**(-1/4) @ G @ (R + rho*I)**(-1/4)", {"rho": 0.1}
    for text, numbers in ((rule, values), (KFAC, RHO)):
        optimizer = RuleOptimizer(model, text, 0.1, numbers, batch=(x, y))
        optimizer.zero_grad()
        mse_loss(model(x), y).backward()
        if text is rule:
            optimizer.step()
            assert optimizer.updates()["core.weight_ih_l0"].dense().shape == (12, 3)
        else:
            with pytest.raises(InvalidInput, match=r"a \.grad of 'core\.\w+' other(.|\n)*: adamw"):
                optimizer.step()


class Branching(nn.Module):
    """Control flow that depends on data, around layers of torch."""

    def __init__(self, normed: bool) -> None:
        super().__init__()
        self.inner, self.norm = nn.Linear(3, 2), nn.LayerNorm(2, elementwise_affine=normed)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.inner(x if x.sum() > 0 else -x))


def test_a_model_that_cannot_be_traced_gets_torchs_reason_the_line_and_a_way_out() -> None:
    data = torch.randn(5, 3), torch.randn(5, 2)
    with pytest.raises(NotCovered, match=r"test_rule_optimizer\.py, line(.|\n)*for_model"):
        RuleOptimizer(Branching(True), KFAC, 0.1, RHO, batch=data)
    with pytest.raises(NotCovered, match=r"torch says: (.|\n)*leave batch out: the trained"):
        RuleOptimizer(Branching(False), KFAC, 0.1, RHO, batch=data)
    model = Branching(False)
    optimizer = RuleOptimizer(model, KFAC, 0.1, RHO)
    before = model.inner.weight.detach().clone()
    mse_loss(model(data[0]), data[1]).backward()
    optimizer.step()
    assert not torch.equal(before, model.inner.weight)


def test_recipes_give_each_group_its_rule_rate_and_numbers() -> None:
    model, x, y = Packed(), *data(Packed)
    recipe = "*bias: G with lr=0.5; *.in_proj_weight: frozen; rest: G/(norm(G) + rho) with rho=2"
    optimizer = RuleOptimizer(model, recipe, 0.1, batch=(x, y))
    assert [group["name"] for group in optimizer.param_groups] == [
        "mha.in_proj_bias", "mha.out_proj", "mha.out_proj.bias"
    ]  # fmt: skip
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    mse_loss(model(x), y).backward()
    optimizer.step()
    for name, p in model.named_parameters():
        assert p.grad is not None
        expected = {
            "mha.in_proj_weight": 0 * p.grad,
            "mha.out_proj.weight": 0.1 * p.grad / (torch.linalg.vector_norm(p.grad) + 2),
        }.get(name, 0.5 * p.grad)
        torch.testing.assert_close(before[name] - p.detach(), expected)
    with pytest.raises(InvalidInput, match=r"the kind 'hidden' in(.|\n)*kinds=for_model"):
        RuleOptimizer(model, "hidden: muon; rest: sgd", 0.1, batch=(x, y))
    with pytest.raises(InvalidInput, match=r"'mha\.out_proj' of shape(.|\n)*divides"):
        RuleOptimizer(model, "*.weight: muon in 3 parts; rest: sgd", 0.1, batch=(x, y))


# --- derived exponents --------------------------------------------------------------------------

WIDTHS, SEEDS, MARGIN = (64, 128, 256), 2, 0.2
DERIVED: list[tuple[str, dict[str, Fraction]]] = [
    ("kfac", {"e_A": Fraction(1), "e_B": Fraction(1)}),
    ("shampoo", {"e": Fraction(1, 2)}),
    ("muon", {}),
    ("soap", {}),
]


def slopes(
    rule: str, exponents: dict[str, Fraction], like: dict[str, str] | None = None
) -> dict[str, float]:
    """The exponent of the change of the output when one tensor alone is stepped.

    ``like``: tensors that get the rate and the dampings of others.
    """
    x, y = (z.double() for z in guessed.NUMBERS)
    build, base = guessed.Stored, WIDTHS[0]
    first = for_model(rule, build, base=base, width=base, batch=(x, y), exponents=exponents)
    changes: dict[str, list[float]] = {name: [] for name in first}
    for width in WIDTHS:
        derived = scales_at(first.read, base, width, lr=1e-3)
        scales = {name: derived[(like or {}).get(name, name)] for name in derived}
        values: dict[str, Any] = {k: float(v) for k, v in exponents.items()}
        for k in first.recipe.scaled:
            values[k] = {name: scale.scaled[k] for name, scale in scales.items()}
        values |= dict.fromkeys(first.recipe.constants, 0.9)
        found: dict[str, list[float]] = {name: [] for name in first}
        for seed in range(SEEDS):
            model = build(width)
            initialise_(model, build(base), derived, seed=seed, width=width)
            optimizer = RuleOptimizer(model, rule, 1.0, values, batch=(x, y))
            before = model(x)
            mse_loss(before, y).backward()
            start = {name: p.detach().clone() for name, p in model.named_parameters()}
            optimizer.step()
            end = {name: p.detach().clone() for name, p in model.named_parameters()}
            for name in found:
                moved = start[name] + scales[name].lr * (end[name] - start[name])
                after = functional_call(model, {**start, name: moved}, (x,))
                found[name].append(float((after - before).detach().square().mean().log()) / 2)
        for name, logs in found.items():
            changes[name].append(sum(logs) / SEEDS)
    reach = math.log(WIDTHS[-1] / WIDTHS[0])
    return {name: (logs[-1] - logs[0]) / reach for name, logs in changes.items()}


@pytest.mark.filterwarnings("ignore::empirical.your_model.model_scales.RegimeWarning")
@pytest.mark.parametrize(("rule", "exponents"), DERIVED)
def test_under_derived_rates_each_tensor_moves_the_output_alike_at_every_width(
    rule: str, exponents: dict[str, Fraction]
) -> None:
    found = slopes(rule, exponents)
    assert set(found) == {"first", "inner", "last"}
    assert {name: x for name, x in found.items() if abs(x) > MARGIN} == {}


@pytest.mark.filterwarnings("ignore::empirical.your_model.model_scales.RegimeWarning")
def test_under_the_rates_of_transposed_tensors_they_do_not() -> None:
    found = slopes("muon", {}, like={"first": "last", "last": "first"})
    assert abs(found["first"]) > MARGIN < abs(found["last"]) and abs(found["inner"]) < MARGIN
