"""The implicit Gaussian matrix: consistent with itself, and in law a dense one."""

import functools
import math

import pytest
import torch
from torch import Tensor
from wide_trials import least_p_value

from empirical.wide.activations import ACTIVATIONS
from empirical.wide.columns import Columns, NeuronAxis, gram
from empirical.wide.implicit import ImplicitGaussian, Span
from empirical.wide.noise import ROWS, Stream
from empirical.wide.streaming import MemoryLimit, Streaming
from scaling.sizes.errors import InvalidInput

SEEDS = 500
ALPHA = 1e-3
RELU = ACTIVATIONS["relu"].value


def axis(side: int, dtype: torch.dtype = torch.float64, **options: int) -> NeuronAxis:
    streaming = Streaming(dtype, **options)
    return NeuronAxis(side, dtype, streaming, streaming.memory())


def matrix(rows: int, columns: int, seed: int = 0, std: float = 1.0) -> ImplicitGaussian:
    return ImplicitGaussian.between(axis(rows), axis(columns), std, Stream(seed, (1,)))


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- consistency --------------------------------------------------------------------------------


@pytest.mark.parametrize("hint", [0, 3])
def test_all_products_are_those_of_one_matrix(hint: int) -> None:
    W = matrix(50, 40)
    asked: list[tuple[Columns, Columns]] = []
    answered: list[tuple[Columns, Columns]] = []
    x = W.T.rows.given(normal(0, 40, 3))
    for _ in range(3):
        y = W.ask(x, hint)
        asked.append((x, y))
        p = y.axis.entrywise(torch.tanh, y)
        v = W.T.ask(p, hint)
        answered.append((p, v))
        x = v.axis.entrywise(RELU, v)
    for x, y in asked:
        for p, v in answered:
            torch.testing.assert_close(gram(p, y), gram(v, x), rtol=1e-8, atol=1e-8)


def test_a_matrix_that_is_known_whole_never_changes_its_mind() -> None:
    W = matrix(5, 4)
    half = W.rows.values(W @ W.T.rows.given(torch.eye(4)[:, :2]))
    rest = W.T.rows.values(W.T @ W.rows.given(torch.eye(5))).T
    x, y = normal(1, 4, 6), normal(2, 5, 6)
    torch.testing.assert_close(rest[:, :2], half, rtol=1e-10, atol=1e-10)
    ours = W.rows.values(W @ W.T.rows.given(x))
    torch.testing.assert_close(ours, rest @ x, rtol=1e-9, atol=1e-9)
    ours = W.T.rows.values(W.T @ W.rows.given(y))
    torch.testing.assert_close(ours, rest.T @ y, rtol=1e-9, atol=1e-9)


def test_answers_are_linear_in_the_question() -> None:
    W = matrix(30, 20)
    x = W.T.rows.given(normal(0, 20, 4))
    c = normal(1, 4, 7)
    first = W.rows.values(W @ x)
    torch.testing.assert_close(W.rows.values(W @ (x @ c)), first @ c, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "x",
    [torch.zeros(20, 2), torch.ones(20, 3), torch.eye(20)[:, [0, 0, 1]]],
    ids=["zero", "equal", "repeated"],
)
def test_dependent_questions_get_dependent_answers(x: Tensor) -> None:
    W = matrix(30, 20)
    y = W.rows.values(W @ W.T.rows.given(x))
    assert y.isfinite().all()
    assert torch.linalg.matrix_rank(y, rtol=1e-9) == torch.linalg.matrix_rank(x)
    torch.testing.assert_close(y[:, 0], y[:, 1])


def test_more_questions_than_dimensions_are_no_trouble() -> None:
    W = matrix(6, 3)
    y = W.rows.values(W @ W.T.rows.given(normal(0, 3, 10)))
    assert y.isfinite().all() and torch.linalg.matrix_rank(y, rtol=1e-9) == 3


def test_a_matrix_of_zeros_answers_zero() -> None:
    W = matrix(6, 3, std=0.0)
    assert (W.rows.values(W @ W.T.rows.given(torch.eye(3))) == 0).all()


def test_a_basis_is_orthonormal_and_reproduces_what_it_met() -> None:
    neurons = axis(50)
    span = Span(neurons)
    for seed, scale in ((0, 1.0), (1, 1e-9)):  # a sample with a tiny gradient counts fully
        x = neurons.given(normal(seed, 50, 4) * torch.tensor([1.0, scale, 1.0, 0.0]))
        coordinates = span.extend(x)
        back = neurons.values(span.basis @ coordinates)
        torch.testing.assert_close(back, neurons.values(x), rtol=1e-9, atol=1e-20)
    torch.testing.assert_close(
        gram(span.basis, span.basis), torch.eye(6, dtype=torch.float64), rtol=1e-9, atol=1e-9
    )


# --- law ----------------------------------------------------------------------------------------


def _numbers(x: Tensor, y: Tensor, v: Tensor, z: Tensor) -> dict[str, float]:
    return {
        "first entry": float(y[0, 0]),
        "length of W x": float(y.square().sum()),
        "length of W^T p": float(v.square().sum()),
        "length of W x'": float(z.square().sum()),
        "overlap of answers": float((y.T @ z).sum()),
        "overlap of questions and answers": float((x.T @ v).sum()),
        "an entry of the last answer": float(z[1, -1]),
    }


def dense(seed: int, std: float = 1.0) -> dict[str, float]:
    W, x = std * normal(10_000 + seed, 6, 5), normal(0, 5, 2)
    y = W @ x
    v = W.T @ torch.tanh(y)
    return _numbers(x, y, v, W @ torch.relu(v))


def implicit(seed: int, std: float = 1.0, forgetful: bool = False) -> dict[str, float]:
    W = matrix(6, 5, seed, std)
    back = matrix(6, 5, SEEDS + seed, std) if forgetful else W
    x = W.T.rows.given(normal(0, 5, 2))
    y = W.ask(x, then=2)
    on = W.rows if not forgetful else back.rows
    p = on.given(torch.tanh(W.rows.values(y)))
    v = W.T.rows.given(back.T.rows.values(back.T.ask(p, then=2)))
    z = W @ W.T.rows.entrywise(RELU, v)
    values = W.T.rows.values
    return _numbers(values(x), W.rows.values(y), values(v), W.rows.values(z))


@functools.cache
def laws(kind: str) -> dict[str, list[float]]:
    one = {
        "dense": dense,
        "implicit": implicit,
        "too large": functools.partial(implicit, std=1.15),
        "forgetful": functools.partial(implicit, forgetful=True),
    }[kind]
    runs = [one(seed) for seed in range(SEEDS)]
    return {name: [run[name] for run in runs] for name in runs[0]}


def test_a_conversation_has_the_law_of_a_dense_matrix() -> None:
    assert least_p_value(laws("implicit"), laws("dense")) > ALPHA


@pytest.mark.parametrize("wrong", ["too large", "forgetful"])
def test_the_test_of_the_law_rejects(wrong: str) -> None:
    assert least_p_value(laws(wrong), laws("dense")) < ALPHA


# --- noise --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_has_the_moments_of_a_normal(dtype: torch.dtype) -> None:
    x = torch.empty(50 * ROWS, 5, dtype=dtype)
    Stream(0, (3,)).fill_(x, 0)
    x, n = x.double(), x.numel()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs(float((x**power).mean()) - moment) < 4.5 * math.sqrt(variance / n)
    off = x.T @ x / len(x) - torch.eye(5)
    assert off.abs().max() < 4.5 * math.sqrt(2 / len(x))


def test_streams_that_differ_in_one_counter_are_independent() -> None:
    a, b = torch.empty(ROWS, 8), torch.empty(ROWS, 8)
    for one, other in (((1, 2), (2, 1)), ((1,), (1, 0)), ((0,), ())):
        Stream(0, one).fill_(a, 0), Stream(0, other).fill_(b, 0)
        assert abs(float((a * b).mean())) < 4.5 / math.sqrt(a.numel())


def test_neither_chunks_nor_workers_nor_memory_change_what_neurons_hold() -> None:
    def overlap(**options: int) -> Tensor:
        neurons = axis(3 * ROWS + 5, torch.float32, **options)
        z = neurons.noise(Stream(0, (1,)), 3)
        return gram(z, neurons.entrywise(torch.tanh, z))

    reference = overlap(task=ROWS)
    assert torch.equal(overlap(task=ROWS), reference)
    assert torch.equal(overlap(task=ROWS, workers=2), reference)
    short = overlap(task=ROWS, chunk=ROWS)
    assert torch.equal(overlap(task=ROWS, chunk=ROWS, memory_limit=2**21), short)
    torch.testing.assert_close(short, reference, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(overlap(chunk=2 * ROWS), reference, rtol=1e-12, atol=1e-9)


def test_memory_is_kept_until_it_is_used_up() -> None:
    memory = MemoryLimit(12)
    memory.reserve(2)
    memory.keep("an atom", 3, 1, torch.float16, "cpu")
    assert memory.left == 4
    memory.take(5)
    assert memory.left == 0


@pytest.mark.parametrize("granted", [0, 1, 3], ids=["nothing", "a chunk", "all"])
def test_of_noise_that_does_not_fit_the_first_chunks_are_kept(granted: int) -> None:
    def drawn(limit: int) -> tuple[NeuronAxis, list[Tensor]]:
        neurons = axis(2 * ROWS + 5, torch.float32, memory_limit=limit, chunk=ROWS)
        z = neurons.noise(Stream(0, (1,)), 4)
        y = neurons.entrywise(torch.tanh, z)
        return neurons, [gram(y, z), gram(z, z), gram(y, y)]

    working = ROWS * ((2 * 8 + 4) * 4 + 8 * 8)  # of both atoms, what one takes, and in float64
    one = ROWS * 4 * 4
    neurons, found = drawn(working + granted * one)
    kept = [x.shape for x in neurons.kept.values()]
    assert kept == ([(granted, 4, ROWS)] if granted else [])
    assert all(map(torch.equal, found, drawn(2**30)[1]))


def test_a_memory_limit_below_the_chunks_at_work_is_refused() -> None:
    neurons = axis(ROWS, memory_limit=2**20, workers=3)
    z = neurons.noise(Stream(0, (1,)), 30)
    with pytest.raises(InvalidInput, match=r"found: a memory limit of 1.0 MiB\nneeded: at least"):
        gram(z, z)
