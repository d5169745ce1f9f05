"""Shampoo by blocks, as DistributedShampoo cuts large matrices: which exponents it has.

The language has blocks of factors, not of the matrix: the factor of one block of fixed size is as
large as s/fan_in times a block of L, whose sum runs over the whole row. So the recipe with that
factor stands for the optimizer in sizes. The oracle is written in torch, one matrix cut into s x s
blocks with factors and norms of their own, and is held against the library.
"""

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from sympy import Expr
from torch import Tensor, nn

from derivations.ready_made import ready_made
from empirical import probe
from empirical.black_box.own_updates import ROLES, Chain
from scaling.rules.parser import parse
from scaling.rules.rule import Rule
from scaling.solve.derive import derive

SIDE = 4


def blocks(x: Tensor) -> Tensor:
    """(rows, columns) as (row blocks, column blocks, SIDE, SIDE), with zeros at the ends."""
    x = nn.functional.pad(x, (0, -x.shape[1] % SIDE, 0, -x.shape[0] % SIDE))
    return x.unflatten(0, (-1, SIDE)).unflatten(2, (-1, SIDE)).transpose(1, 2)


def whole(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2).flatten(0, 1)


def root(x: Tensor, rho: float) -> Tensor:
    values, vectors = torch.linalg.eigh(x)
    return (vectors * (values + rho)[..., None, :] ** -0.25) @ vectors.mT


class BlockedShampoo(torch.optim.Optimizer):
    """Each block of a matrix by itself, with the norm of another update of the same block."""

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, norm_of: str = "adam",
        betas: tuple[float, float] = (0.9, 0.9), rho: float = 1e-12, eps: float = 1e-12,
    ) -> None:  # fmt: skip
        super().__init__(params, dict(lr=lr, norm_of=norm_of, betas=betas, rho=rho, eps=eps))

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                own, (beta1, beta2) = self.state[p], group["betas"]
                g = blocks(p.grad)
                t = own["t"] = own.get("t", 0) + 1

                def average(
                    name: str, x: Tensor, beta: float, own: Any = own, t: int = t
                ) -> Tensor:
                    before = own.get(name, torch.zeros_like(x))
                    own[name] = beta * before + (1 - beta) * x
                    return own[name] / (1 - beta**t)

                left, right = average("L", g @ g.mT, beta2), average("R", g.mT @ g, beta2)
                m, v = average("m", g, beta1), average("v", g * g, beta2)
                u = root(left, group["rho"]) @ m @ root(right, group["rho"])
                n = m / (v.sqrt() + group["eps"]) if group["norm_of"] == "adam" else m
                u *= n.norm(dim=(2, 3), keepdim=True) / u.norm(dim=(2, 3), keepdim=True)
                p.add_(whole(u)[: p.shape[0], : p.shape[1]], alpha=-group["lr"])


def by_blocks(name: str) -> Rule:
    """The recipe's rule of matrices, with factors as large as those of a block."""
    text = next(g.rule.written for g in ready_made()[name].recipe.groups if g.label == "rest")
    for letter, side in (("L", "fan_in"), ("R", "fan_out")):
        factor = f"debiased({letter}, beta2)"
        assert text.count(factor) == 1
        text = text.replace(factor, f"{SIDE}/{side}*block({factor}, {SIDE})")
    return parse(text)


@pytest.mark.parametrize("norm_of", ["adam", "sgd"])
def test_blocks_have_the_rates_that_are_derived(norm_of: str) -> None:
    """Those of the rule whose norm they have, with and without blocks."""
    found = probe(BlockedShampoo, {"norm_of": norm_of}, (32, 64, 128, 256), 4)
    assert not found.equals
    rule = by_blocks(f"distributed_shampoo_{norm_of}")
    for role, c in derive(rule).exponents.c.items():
        x = found.layers[role]
        assert x.low - 1e-6 <= float(c) <= x.high + 1e-6, (role, x, c)
        assert x.rational in (None, Fraction(str(c)))
    other = derive(by_blocks(f"distributed_shampoo_{'sgd' if norm_of == 'adam' else 'adam'}"))
    assert any(not found.layers[r].low <= float(c) <= found.layers[r].high
               for r, c in other.exponents.c.items())  # fmt: skip


def test_the_damping_of_a_block_goes_with_its_own_eigenvalues_and_not_with_those_of_all() -> None:
    """Means over blocks of the largest eigenvalue, against the width, beside d of the damping."""
    widths = (32, 64, 128, 256)

    def eigenvalues(width: int, seed: int) -> dict[str, tuple[float, float]]:
        chain = Chain.drawn(width, seed)
        chain.loss().backward()
        found = {}
        for role in ROLES:
            g = chain.model.get_submodule(role).weight.grad
            cut = blocks(g)
            one = torch.linalg.eigvalsh(cut @ cut.mT)[..., -1].mean()
            found[role] = float(one), float(torch.linalg.eigvalsh(g @ g.T)[-1])
        return found

    def powers(rule: Rule) -> dict[str, Expr]:
        return {role: d["rho"] for role, d in derive(rule).exponents.d.items()}

    table = [[eigenvalues(width, seed) for width in widths] for seed in range(4)]
    whole_rule = parse(ready_made()["distributed_shampoo_adam"].recipe.groups[-1].rule.written)
    own, of_all = powers(by_blocks("distributed_shampoo_adam")), powers(whole_rule)
    for k, d in ((0, own), (1, of_all)):
        for role in ROLES:
            logs = np.log([[row[role][k] for row in one] for one in table]).mean(0)
            slope = np.polyfit(np.log(widths), logs, 1)[0]
            assert abs(slope + float(d[role])) < 0.15, (k, role, slope, d)
    assert all(abs(own[role] - of_all[role]) >= 1 for role in ROLES)


def test_the_oracle_is_the_library_with_blocks() -> None:
    library = pytest.importorskip(
        "distributed_shampoo", reason="github.com/facebookresearch/optimizers"
    )
    models = [nn.Sequential(*(nn.Linear(m, n, bias=False) for m, n in ((8, 12), (12, 4)))).double()
              for _ in range(2)]  # fmt: skip
    models[1].load_state_dict(models[0].state_dict())
    mine = BlockedShampoo(models[0].parameters(), 0.01, rho=1e-4, eps=1e-3)
    theirs = library.DistributedShampoo(
        models[1].parameters(), lr=0.01, betas=(0.9, 0.9), epsilon=1e-4, weight_decay=0.0,
        max_preconditioner_dim=SIDE,
        grafting_config=library.AdamPreconditionerConfig(beta2=0.9, epsilon=1e-3),
        distributed_config=library.SingleDeviceDistributedConfig(target_parameter_dimensionality=2),
        preconditioner_config=library.RootInvShampooPreconditionerConfig(
            factor_matrix_dtype=torch.float64
        ),
    )  # fmt: skip
    torch.manual_seed(0)
    x = torch.randn(16, 8, dtype=torch.float64)
    start = [p.detach().clone() for p in models[0].parameters()]
    for _ in range(2):
        for model, optimizer in zip(models, (mine, theirs), strict=True):
            model.zero_grad()
            nn.functional.cross_entropy(model(x), torch.arange(16) % 4).backward()
            optimizer.step()
    for p, q, s in zip(models[0].parameters(), models[1].parameters(), start, strict=True):
        assert float((p - q).detach().norm() / (p - s).detach().norm()) < 1e-5
