"""The norm of a matrix that never exists, and weights that decay: consistent, and in law dense."""

import functools
import math

import pytest
import torch
from torch import Tensor
from wide_trials import least_p_value, ruled

from empirical.measure.calibration import calibrate
from empirical.wide import measure_wide
from empirical.wide.activations import ACTIVATIONS
from empirical.wide.columns import NeuronAxis
from empirical.wide.implicit import ImplicitGaussian
from empirical.wide.noise import ROWS, Stream
from empirical.wide.streaming import Streaming
from empirical.wide.weight import Decayed, LowRankUpdate, Weight
from scaling.sizes.errors import InvalidInput

SEEDS = 500
ALPHA = 1e-3
RELU = ACTIVATIONS["relu"].value
STD = 0.7


def matrix(rows: int, columns: int, seed: int = 0, **options: int) -> ImplicitGaussian:
    def axis(side: int) -> NeuronAxis:
        streaming = Streaming(torch.float64, **options)
        return NeuronAxis(side, torch.float64, streaming, streaming.memory())

    return ImplicitGaussian.between(axis(rows), axis(columns), STD, Stream(seed, (1,)))


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whole(W: ImplicitGaussian | Weight) -> Tensor:
    """All columns of a small matrix, as they are asked for."""
    columns = W.columns if isinstance(W, Weight) else W.T.rows
    return (W.rows).values(W @ columns.given(torch.eye(columns.side)))


# --- the norm -----------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, 1, 2, 5], ids="asked before: {}".format)
@pytest.mark.parametrize("sides", [(6, 5), (5, 6), (1, 4), (7, 1)])
def test_all_columns_together_have_the_norm(sides: tuple[int, int], before: int) -> None:
    W = matrix(*sides, seed=before)
    x = W.T.rows.given(normal(1, sides[1], 2))
    for _ in range(before):
        y = W.T @ W.rows.entrywise(torch.tanh, W @ x)
        x = W.T.rows.entrywise(RELU, y)
    norm = W.norm()
    assert float(whole(W).square().sum()) == pytest.approx(norm**2, rel=1e-12)
    assert W.norm() == norm == W.T.norm()


def test_the_norm_of_a_known_matrix_is_its_own() -> None:
    W = matrix(5, 4)
    x = whole(W)
    assert W.norm() == pytest.approx(float(x.square().sum()) ** 0.5, rel=1e-12)


def test_answers_after_the_norm_are_those_of_one_matrix() -> None:
    W = matrix(6, 5)
    W.norm()
    half = W.rows.values(W @ W.T.rows.given(torch.eye(5)[:, :2]))
    rest = W.T.rows.values(W.T @ W.rows.given(torch.eye(6))).T
    torch.testing.assert_close(rest[:, :2], half, rtol=1e-10, atol=1e-10)
    assert float(rest.square().sum()) == pytest.approx(W.norm() ** 2, rel=1e-12)


def test_the_norm_of_zeros_is_zero() -> None:
    rows, columns = matrix(5, 4).rows, matrix(5, 4).T.rows
    W = ImplicitGaussian.between(rows, columns, 0.0, Stream(0, ()))
    assert W.norm() == 0 and not whole(W).any()


def _numbers(norm: float, y: Tensor, v: Tensor, z: Tensor) -> dict[str, float]:
    return {
        "norm": norm,
        "first entry": float(y[0, 0]),
        "share of W x": float(y.square().sum()) / norm**2,
        "share of W^T p": float(v.square().sum()) / norm**2,
        "share of W x'": float(z.square().sum()) / norm**2,
        "an entry of the last answer": float(z[1, -1]),
    }


def dense(seed: int) -> dict[str, float]:
    W, x = STD * normal(10_000 + seed, 3, 4), normal(0, 4, 2)
    y = W @ x
    v = W.T @ torch.tanh(y)[:, :1]
    return _numbers(float(W.square().sum() ** 0.5), y, v, W @ torch.relu(v))


def implicit(seed: int, when: int = 0) -> dict[str, float]:
    """A conversation in which the norm is asked after so many questions."""
    W, norms = matrix(3, 4, seed), [0.0]
    ask = {when: lambda: norms.append(W.norm())}
    ask.get(0, lambda: None)()
    y = W @ W.T.rows.given(normal(0, 4, 2))
    ask.get(1, lambda: None)()
    v = W.T @ W.rows.entrywise(torch.tanh, y.pick([0]))
    ask.get(2, lambda: None)()
    z = W @ W.T.rows.entrywise(RELU, v)
    values = W.rows.values(y), W.T.rows.values(v), W.rows.values(z)
    return _numbers(norms[-1], *values)


@functools.cache
def laws(kind: str) -> dict[str, list[float]]:
    one = dense if kind == "dense" else functools.partial(implicit, when=int(kind))
    runs = [one(seed) for seed in range(SEEDS)]
    return {name: [run[name] for run in runs] for name in runs[0]}


@pytest.mark.parametrize("when", ["0", "1", "2"])
def test_the_norm_and_what_is_asked_after_it_have_the_law_of_a_dense_matrix(when: str) -> None:
    assert least_p_value(laws(when), laws("dense")) > ALPHA


def test_noise_that_forgets_the_norm_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImplicitGaussian, "_on_sphere", lambda self, z: self.std)
    runs = [implicit(seed) for seed in range(SEEDS)]
    forgetful = {name: [run[name] for run in runs] for name in runs[0]}
    assert least_p_value(forgetful, laws("dense")) < ALPHA
    assert max(forgetful["share of W x'"]) > max(laws("dense")["share of W x'"])


def test_neither_chunks_nor_workers_change_a_norm() -> None:
    def numbers(**options: int) -> tuple[float, float, float]:
        W = matrix(3 * ROWS + 5, 2 * ROWS, **options)
        x = W.T.rows.noise(Stream(0, (9,)), 2)
        y = W @ x
        return W.norm(), y.rms(), (W.T @ W.rows.entrywise(torch.tanh, y)).rms()

    reference = numbers(task=ROWS)
    assert numbers(task=ROWS, workers=2) == reference
    short = numbers(task=ROWS, chunk=ROWS)
    assert numbers(task=ROWS, chunk=ROWS, memory_limit=2**22) == short
    assert short == pytest.approx(reference, rel=1e-12)
    assert reference[0] / (STD * math.sqrt((3 * ROWS + 5) * 2 * ROWS)) == pytest.approx(1, abs=1e-4)


# --- weights in motion --------------------------------------------------------------------------


def low_rank(W: Weight, seed: int) -> LowRankUpdate:
    left = W.rows.given(normal(seed, W.rows.side, 2))
    return LowRankUpdate(left, W.columns.given(normal(seed + 1, W.columns.side, 2)))


def test_norms_and_products_of_weights_that_move_and_decay_are_those_of_whole_matrices() -> None:
    W = Weight(matrix(6, 5))
    W.norm()
    known = whole(W)
    earlier = [(W, known)]
    x = W.columns.given(normal(0, 5, 3))
    for step, rate in ((10, -0.3), (20, 0.0), (30, 0.1)):
        update = low_rank(W, step)
        change = 0.5 * Decayed(update, rate, W) if rate else 0.5 * update
        added = 0.5 * update.left.axis.values(update.left) @ W.columns.values(update.right).T
        moved = added + 0.5 * rate * known
        torch.testing.assert_close(W.rows.values(change @ x), moved @ normal(0, 5, 3))
        back = W.rows.given(normal(1, 6, 2))
        torch.testing.assert_close(W.columns.values(change.T @ back), moved.T @ normal(1, 6, 2))
        W, known = W.plus(change), known + moved
        torch.testing.assert_close(whole(W), known)
        for since, matrix_then in earlier:
            moved = W.rows.values(W.moved(x, since))
            torch.testing.assert_close(moved, (known - matrix_then) @ normal(0, 5, 3))
        earlier.append((W, known))
        assert W.norm() == pytest.approx(float(known.square().sum()) ** 0.5, rel=1e-10)


def test_a_norm_after_an_update_by_entries_is_refused() -> None:
    t = ruled("norm(W) * sign(G)")
    constants = calibrate(t, 32)
    measure_wide(t, constants, 48, 0)
    with pytest.raises(InvalidInput, match=r"found: norm\(W\) or rms\(W\) after a step"):
        measure_wide(t, constants, 48, 0, steps=2)
