"""What a rule remembers between steps, against loops written by hand over dense matrices."""

from collections.abc import Callable

import numpy as np
import pytest
from dense_layers import (
    LAYERS,
    VALUES,
    Array,
    Dense,
    assert_close,
    diagonal,
    layer,
    polar,
    power,
    tensors,
)

from empirical.numbers.interpreter import evaluate
from empirical.numbers.square_matrices import Square
from empirical.numbers.state import State
from scaling.rules.parser import parse
from scaling.sizes.errors import InvalidInput

Step = Callable[[list[Dense]], Array]


def average(history: list[Array], beta: float) -> Array:
    total = np.zeros_like(history[0])
    for x in history:
        total = beta * total + (1 - beta) * x
    return total


EMA_RULES: dict[str, Step] = {
    "ema(G, 0.9)": lambda xs: average([x.G for x in xs], 0.9),
    "sign(ema(G, 0.9))": lambda xs: np.sign(average([x.G for x in xs], 0.9)),
    "orth(ema(G, 0.9))": lambda xs: polar(average([x.G for x in xs], 0.9)),
    "G @ (ema(A, 0.5) + rho*I)**(-1)": lambda xs: (
        xs[-1].G @ power(average([x.A for x in xs], 0.5), -1, 0.3)
    ),
    "(ema(B, beta) + rho*I)**(-1) @ ema(G, 0.9) @ (ema(A, beta) + rho*I)**(-1/2)": lambda xs: (
        power(average([x.B for x in xs], 0.8), -1, 0.3)
        @ average([x.G for x in xs], 0.9)
        @ power(average([x.A for x in xs], 0.8), -0.5, 0.3)
    ),
    "ema(G, 0.9) / (sqrt(ema(G*G, 0.5)) + eps)": lambda xs: (
        average([x.G for x in xs], 0.9) / (np.sqrt(average([x.G**2 for x in xs], 0.5)) + 1e-3)
    ),
    "G @ (ema(diag(A), 0.5) + rho*I)**(-1/2)": lambda xs: (
        xs[-1].G @ power(average([diagonal(x.A) for x in xs], 0.5), -0.5, 0.3)
    ),
    "ema(norm(G), 0.5) * ema(G @ (A + rho*I)**(-1), 0.9)": lambda xs: (
        average([np.linalg.norm(x.G) for x in xs], 0.5)
        * average([x.G @ power(x.A, -1, 0.3) for x in xs], 0.9)
    ),
    "ema(G, 0.9) + ema(G, 0.9)": lambda xs: 2 * average([x.G for x in xs], 0.9),
}


@pytest.mark.parametrize("text", EMA_RULES)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dense", [False, True], ids=["low rank", "dense"])
def test_moving_averages_follow_the_loop_written_by_hand(text: str, name: str, dense: bool) -> None:
    rule, state, history = parse(text), State(), list[Dense]()
    for seed in range(9):  # more samples in all than any side is long
        history.append(layer(name, seed))
        update = evaluate(rule, tensors(history[-1]), {**VALUES, "beta": 0.8}, state, dense=dense)
        assert_close(update.dense(), EMA_RULES[text](history))
        if seed == 4:  # saved and loaded in mid-course
            state = State.unpack(state.pack())
    with pytest.raises(AssertionError, match="Not equal"):
        assert_close(update.dense(), EMA_RULES[text](history[:-1]))


def test_the_rank_of_an_average_stops_growing_with_the_side_and_forgets_what_faded() -> None:
    rule, state, x = parse("G @ (ema(A, 0.0001) + rho*I)**(-1)"), State(), layer("hidden")
    ranks = []
    for seed in range(12):
        evaluate(rule, tensors(layer("hidden", seed)), VALUES, state)
        kept = state.averages["ema(A, 1/10000)"]
        assert isinstance(kept, Square)
        ranks.append(kept.basis.rank)
    assert ranks[:2] == [5, 10]
    assert max(ranks) < x.H.shape[0]  # 0.0001**4 is below rounding


def test_stale_factors_are_those_of_the_last_refresh_and_the_gradient_is_new() -> None:
    rule = parse("(ema(B, 0.5) + rho*I)**(-1) @ G @ (A + rho*I)**(-1) / norm(G)")
    state, xs = State(curvature_interval=3), [layer("hidden", seed) for seed in range(5)]
    for t, x in enumerate(xs):
        update = evaluate(rule, tensors(x), VALUES, state)
        b = average([xs[s].B for s in range(0, t + 1, 3)], 0.5)
        a = xs[t // 3 * 3].A
        expected = power(b, -1, 0.3) @ x.G @ power(a, -1, 0.3) / np.linalg.norm(x.G)
        assert_close(update.dense(), expected)


def test_a_refused_step_leaves_the_state_as_it_was() -> None:
    state, x = State(), tensors(layer("hidden"))
    with pytest.raises(InvalidInput):
        evaluate(parse("ema(G, 0.9) / (0*G)"), x, {}, state)
    assert state == State()
