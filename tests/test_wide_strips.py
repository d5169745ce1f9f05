"""One side in an eigenbasis, the other entry by entry, at any width: as with whole matrices."""

import numpy as np
import pytest
import test_wide_rows
import torch
from test_wide import numbers, runs
from wide_trials import (
    ROUNDED,
    ROUNDING,
    SAME_BITS,
    assert_same_numbers,
    least_p_value,
    on_two_machines,
    trial,
)

from derivations.catalogue import find
from empirical.measure.calibration import calibrate
from empirical.measure.dense_steps import measure
from empirical.numbers.interpreter import evaluate
from empirical.wide import measure_wide, strips
from empirical.wide.method import Path, refuse_unless_wide
from empirical.wide.noise import ROWS
from empirical.wide.strips import strips_of
from scaling.rules.parser import parse
from scaling.sizes.errors import InvalidInput

ALPHA = 1e-3
VALUES = {
    "rho": 0.3, "eps": 0.01, "beta": 0.6, "beta1": 0.9, "beta2": 0.8, "shampoo_beta": 0.7, "e": 0.5,
}  # fmt: skip
SOAP = str(find("soap_one_sided").rule)
LEAF, MIRROR = "eig(L).T @ G", "G @ eig(A)"
RULES = [
    SOAP,
    f"eig(L) @ ({LEAF} / (sqrt(ema(({LEAF})**2, beta)) + eps))",
    f"({MIRROR} / (sqrt(ema(({MIRROR})**2, beta)) + eps) * rms({MIRROR})) @ eig(A).T",
    "eig(B) @ (atan(eig(B).T @ (2*G) / rms(G)) + clip(eig(B).T @ G, rms(G)) * trace(A)) + G",
    f"orth(eig(L) @ ({LEAF})**3) * norm(({LEAF})**2)",
    f"ema(eig(L) @ sign({LEAF}), beta) @ (A + rho*I)**(-1)",
    "(((G.T @ eig(L)) * abs(G.T @ eig(L))**e / fan_in) @ eig(L).T).T",
    f"eig(L) @ ({LEAF} / (norm(({LEAF}) / (abs({LEAF}) + eps)) + abs({LEAF})))",
    f"eig(L) @ ({LEAF} / (sqrt(debiased(({LEAF})**2, beta)) + eps))",
    f"atan(eig(L) @ ({LEAF})**3) / (norm(({MIRROR})**3) + eps)",
]


class Layer(test_wide_rows.Layer):
    """Some steps of one layer, in coordinates or by rows, and with whole matrices."""

    paths, values, dense = (Path.CORE, Path.ROWS), VALUES, True

    def change(self, step: int, d: torch.Tensor) -> None:
        """A second step with fewer directions than the one before."""
        if step == 1:
            d[:, 3] = d[:, 2]

    @property
    def last(self) -> torch.Tensor:
        """The update if nothing was remembered of earlier steps."""
        return evaluate(self.rule, self.seen, VALUES, dense=True).dense()

    def columns(self) -> torch.Tensor:
        """The update, one column after another."""
        return self.above.values(self.update @ self.below.given(torch.eye(self.below.side)))


@pytest.mark.parametrize("sides", [(40, 30), (3, 30), (40, 1), (12, 40)])
@pytest.mark.parametrize("text", RULES)
def test_updates_are_those_of_whole_matrices(text: str, sides: tuple[int, int]) -> None:
    for steps, fisher in ((1, False), (3, False), (2, "eig(B)" not in text)):
        layer = Layer(text, *sides, steps, fisher)
        whole = layer.whole.dense()
        scale = float(whole.abs().max())
        np.testing.assert_allclose(layer.columns(), whole, rtol=1e-7, atol=1e-8 * scale)


def test_what_earlier_steps_saw_is_felt() -> None:
    for text in RULES[:3]:
        layer = Layer(text, 40, 30, 3, fisher=False)
        last = layer.last
        assert float((layer.columns() - last).abs().max()) > 0.1 * float(last.abs().max())


@pytest.mark.parametrize("text", [RULES[1], RULES[2], RULES[7]])
def test_sizes_of_watched_nodes_are_those_of_whole_matrices(text: str) -> None:
    layer = Layer(text, 12, 30, 1, fisher=False)
    _ = layer.columns()
    seen = [node for node in layer.update.sizes if strips_of([node])]
    assert len(seen) >= 3
    for node in seen:
        assert layer.update.sizes[node] == pytest.approx(layer.sizes[node], rel=1e-8), node


def test_a_number_outside_of_the_data_is_refused_when_rotated_back() -> None:
    with pytest.raises(InvalidInput, match="not zero outside the corner"):
        Layer(f"eig(L) @ ({LEAF} + 1)", 40, 30, 1, fisher=False)


def test_strips_beyond_what_is_set_aside_are_refused_by_name() -> None:
    y = f"(eig(L) @ ({LEAF})**3)"
    wide = f"G @ eig({y}.T @ {y} + R)"
    with pytest.raises(InvalidInput, match=r"beyond \d+ directions"):
        Layer(f"(({wide})**3) @ eig({y}.T @ {y} + R).T", 40, 30, 1, fisher=False)


def test_per_sample_squares_are_refused_by_name() -> None:
    rule = parse(f"eig(L) @ ({LEAF} / (sample_square({LEAF}) + eps))")
    with pytest.raises(InvalidInput, match=r"found: 'sample_square\(eig\(L\).T @ G\)' in"):
        refuse_unless_wide(rule)


# --- networks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [*SAME_BITS, *ROUNDED])
def test_workers_and_memory_change_no_bit_and_chunks_no_more_than_rounding(
    options: dict[str, int],
) -> None:
    found = on_two_machines(trial("soap_one_sided", biases=True), 3 * ROWS + 17, 2, options)
    assert_same_numbers(*map(numbers, found), options, ROUNDING[torch.float64])


def test_entries_that_belong_to_other_neurons_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    t = trial("soap_one_sided")
    constants = calibrate(t, 48)
    theirs = runs(lambda seed: numbers(measure(t, constants, 48, seed)), 40)
    exact = strips._on_chunk
    shifted = lambda *x: exact(*x[:4], *(leaf.roll(1, 0) for leaf in x[4:]))  # noqa: E731
    monkeypatch.setattr(strips, "_on_chunk", shifted)
    wrong = runs(lambda seed: numbers(measure_wide(t, constants, 48, seed)), 40)
    assert least_p_value(wrong, theirs) < ALPHA
