"""States that add up k v^T, as linear attention and gated recurrences keep them.

q (k v^T) = (q.k) v: one function written in several ways has one answer, and a loop in plain torch
moves by order one at it. A matrix k v^T has one direction, and not the norm of a random one.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sympy import Rational
from torch import Tensor, nn

from empirical.trace.given_model import model_of
from empirical.trace.read_model import graph_of
from scaling.solve.graph_solution import derive_graph

WAYS = ("scores", "matrix", "recurrence")
WIDTHS = (64, 256, 1024)
THREE_HALVES = Rational(3, 2)


class Memory(nn.Module):
    """Two words are written to a memory, one after the other, and the last one reads it."""

    def __init__(self, width: int, way: str) -> None:
        super().__init__()
        self.way, self.words = way, nn.Linear(6, width, bias=False)
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in "qkv")
        self.head = nn.Linear(width, 3, bias=False)

    def read(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.words(x))
        q, k, v = self.q(h[:, -1]), self.k(h) * h.shape[-1] ** -0.5, self.v(h)
        if self.way == "scores":
            return ((q[:, None] * k).sum(-1, keepdim=True) * v).sum(1)
        if self.way == "matrix":
            return (q[:, None] @ (k.mT @ v)).squeeze(1)
        state = k[:, 0, :, None] * v[:, 0, None]
        state = state + torch.einsum("bi,bj->bij", k[:, 1], v[:, 1])
        return torch.einsum("bi,bij->bj", q, state)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.read(x))


def data() -> tuple[Tensor, Tensor]:
    generator = torch.manual_seed(0)
    return torch.randn(4, 2, 6, generator=generator), torch.randn(4, 3, generator=generator)


def rates(way: str) -> dict[str, Rational]:
    build: Callable[..., nn.Module] = lambda width: Memory(width, way)  # noqa: E731
    graph = graph_of(model_of(build, data()), "width=16,32,64").graph
    return {name: x.c for name, x in derive_graph("sign(G)", graph).tensors.items()}


def moved(width: int, tensor: str, c: float, seed: int) -> float:
    """The change of what is read from the memory, by one signed step of one tensor."""
    torch.manual_seed(seed)
    model = Memory(width, "scores").double()
    x, y = (z.double() for z in data())
    with torch.no_grad():
        for name, p in model.named_parameters():
            b = {"words.weight": 0.0, "head.weight": 1.0}.get(name, 0.5)
            p.copy_(torch.randn_like(p) * width**-b)
    (model(x) - y).square().mean().backward()
    with torch.no_grad():
        before, p = model.read(x), model.get_parameter(tensor)
        assert p.grad is not None
        p -= 1e-4 * width**-c * p.grad.sign()
        return float((model.read(x) - before).square().mean().sqrt())


def test_a_memory_has_one_answer_however_it_is_written_and_moves_by_order_one_at_it() -> None:
    answers = [rates(way) for way in WAYS]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["q.weight"] == answers[0]["k.weight"] == THREE_HALVES
    assert answers[0]["v.weight"] == 1
    x, y = torch.log(torch.tensor(WIDTHS)), np.log
    for tensor in ("q.weight", "k.weight"):
        for c, expected in ((1.5, 0.0), (1.0, 0.5)):  # 1 is what the matrix had: a random one's
            sizes = [[moved(n, tensor, c, seed) for seed in range(6)] for n in WIDTHS]
            assert np.polyfit(x, y(sizes).mean(1), 1)[0] == pytest.approx(expected, abs=0.2)
