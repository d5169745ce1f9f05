"""The question of a measurement: a rule under given exponents, on given data.

    eta_l = eta' M^(-c_l)      rho_l = rho' M^(-d_l)      std(w_l) = sigma M^(-b_l)

The exponents come from theory; the constants in front (`Constants`) are the same at every width and
move intercepts, never slopes (calibration.py). sigma is 1, and features^(-1/2) in the input layer,
so that every layer starts at order one; for a bias it is 1/2. Numbers that do not scale, such as
beta or a power e, are the user's; a measurement needs them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from empirical.data.sources import SMALLEST, Data
from empirical.measure.parametrize import LayerScales, at_width
from scaling.models.chain import Layer, Loss, Role
from scaling.sizes.errors import InvalidInput
from scaling.states.problem import Exponents, Problem

ROUNDING = 1e-3
"""How far the sum of probabilities may be off."""


@dataclass(frozen=True)
class Constants:
    """The factors of the powers of the width, by layer (and damping or decay)."""

    eta: Mapping[str, float]
    rho: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Trial:
    """A rule under given exponents, on given data."""

    problem: Problem
    exponents: Exponents
    values: Mapping[str, float]
    data: Data
    device: str = "cpu"

    def __post_init__(self) -> None:
        _check_data(self.data, self.problem.setting.loss)
        if self.problem.setting.batch.grows:
            raise InvalidInput(
                "a measurement of a batch that grows with the width (--batch proportional)",
                "one batch at every width: a measurement has --samples of them",
                "leave --batch out, or derive only: scaling derive RULE --batch proportional",
            )

    def layers(self) -> list[tuple[str, Layer]]:
        """(name in the network, layer of the theory), weights first."""
        names = []
        for layer in self.problem.setting.layers:
            suffix = ".bias" if layer.is_bias else ""
            names.append((f"layers.{layer.position - 1}{suffix}", layer))
        return names

    def unit_constants(self) -> Constants:
        """Every constant 1, but for dampings and decays that the user gave."""
        names = [layer.name for layer in self.problem.setting.layers]
        rho = {k: self.values.get(k, 1.0) for k in self.problem.rule.scaled}
        return Constants(dict.fromkeys(names, 1.0), {name: dict(rho) for name in names})

    def scales(self, width: int, constants: Constants) -> dict[str, LayerScales]:
        """Numbers of every layer at a width, by the layer's name in theory."""
        x = self.exponents
        return {
            layer.name: at_width(
                width,
                layer,
                x.a[layer.name],
                x.b[layer.name],
                x.c[layer.name],
                x.d[layer.name],
                self._sigma(layer),
                constants.eta[layer.name],
                constants.rho[layer.name],
            )
            for _, layer in self.layers()
        }

    def _sigma(self, layer: Layer) -> float:
        if layer.is_bias:
            return 0.5
        return self.data.features**-0.5 if layer.role is Role.INPUT else 1.0


def _check_data(data: Data, loss: Loss) -> None:
    """Refuse what the theory does not speak of: h_0 = 0, and targets that no softmax can meet.

    Raises:
        InvalidInput: as said.
    """
    for what, rows in (("first", data.inputs), ("probe", data.probe_inputs)):
        if len(rows) and float(rows.abs().max()) < SMALLEST:
            raise InvalidInput(
                f"the data '{data.name}', whose {what} {len(rows)} inputs are zero",
                "inputs of order one",
                "check the columns, and how they were centred",
            )
    y = data.targets
    if float(y.abs().max()) < SMALLEST:
        raise InvalidInput(
            f"the data '{data.name}', whose first {data.samples} targets are zero: errors are then "
            "the outputs alone, which fade as the width grows",
            "targets of order one",
            "check the columns, or take samples that have a target",
        )
    uneven = bool((y.sum(dim=1) - 1).abs().max() > ROUNDING)
    if loss is Loss.CROSS_ENTROPY and (uneven or bool((y < 0).any()) or data.classes < 2):
        raise InvalidInput(
            f"the data '{data.name}' under cross-entropy: targets that are no probabilities of "
            "two classes or more",
            "rows of at least 2 numbers that are not negative and add up to 1",
            "pass one-hot targets, or use --loss mse",
        )


def numbers_of(trial: Trial) -> dict[str, float]:
    """The numbers of all symbols of the rule but the scaled ones, which differ by layer."""
    rule = trial.problem.rule
    return {symbol: number_of(trial, symbol) for symbol in (*rule.constants, *rule.exponents)}


def number_of(trial: Trial, symbol: str) -> float:
    """The number that a measurement takes for a symbol of the rule."""
    exponents = trial.problem.settings.exponents
    if symbol in exponents and exponents[symbol].is_number:
        return float(exponents[symbol])
    if symbol in trial.values:
        return trial.values[symbol]
    raise InvalidInput(
        f"no value for '{symbol}' of the rule {trial.problem.rule}",
        "a number for every symbol: a measurement needs them all",
        f"add --set {symbol}=..., for example --set {symbol}=1/2",
    )


def parameter_of(name: str) -> str:
    """The parameter of the network behind a name of `Trial.layers`."""
    return name if name.endswith(".bias") else f"{name}.weight"


def input_of(layer: Layer, source: Tensor, scales: LayerScales) -> Tensor:
    """The input of a layer's weights, as rows; ``source`` is h_{l-1} on the probe."""
    if layer.is_bias:
        return torch.ones(1, 1, dtype=source.dtype, device=source.device)
    return scales.multiplier * source
