"""The change that an optimizer's step makes in the output of each layer, on growing chains.

    x -> input (width x 8) -> hidden (width x width) -> output (4 x width),   ReLU between

    size = RMS over samples held out and units of dW h,   one learning rate at all widths

Weights start with entries of variance 1/8, 2/width, 1/width^2, the maximal-update scale
b = (0, 1/2, 1), at which c is the exponent of the size. They are multiples of orthogonal matrices,
whose images have one length where those of Gaussian ones scatter. The loss is linear in the output,
so that its cotangents are of order one and the same at all widths, as are the data; targets have a
mean, so that what adds up over samples is seen at small widths; a size is a mean over more draws of
the weights where the width is small. All of that makes slopes less noisy and shifts none.
Everything is float64; matrices have no biases, since some optimizers take nothing else.

Weights are put back after every step, so that all steps of a run see one gradient, and momentum or
a warm-up shows as what changes from step to step. The step that is measured is the first from which
the direction stays: past an idle first step, or a phase of other updates (`settled`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from derivations.outside import outside
from empirical.black_box.optimizer_class import OptimizerClass
from scaling.sizes.errors import InvalidInput

ROLES = ("input", "hidden", "output")
LOOK = 8
"""Steps that are looked at, at the smallest width."""
_ALIKE = 0.9
"""The cosine from which two updates go one way."""
_IN, _OUT, _SAMPLES = 8, 4, 16
_DRAWS = (1, 8)
"""At least and at most so many draws of the weights for one size."""


@dataclass(frozen=True)
class Chain:
    """A network of one width, its batch and samples held out."""

    model: nn.Sequential
    x: Tensor
    y: Tensor
    held_out: Tensor

    @classmethod
    def drawn(cls, width: int, seed: int, draw: int = 0) -> Chain:
        """Data of a seed, and one of several draws of the weights."""
        data, weights = torch.Generator().manual_seed(seed), torch.Generator()
        weights.manual_seed((seed << 20 | draw << 15) + width)  # 32 bits count

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=data, dtype=torch.float64)

        gains = ((width / _IN) ** 0.5, 2**0.5, width**-0.5)
        sides = ((_IN, width), (width, width), (width, _OUT))
        layers: dict[str, nn.Linear] = {}
        for role, (fan_in, fan_out), gain in zip(ROLES, sides, gains, strict=True):
            layers[role] = nn.Linear(fan_in, fan_out, bias=False, dtype=torch.float64)
            nn.init.orthogonal_(layers[role].weight, gain, weights)
        model = nn.Sequential()
        for role in ROLES:
            model.add_module(role, layers[role])
            if role != ROLES[-1]:
                model.add_module(f"relu_{role}", nn.ReLU())
        x = normal(2 * _SAMPLES, _IN)
        y = 1 + normal(_SAMPLES, _OUT) / 2
        return cls(model, x[:_SAMPLES], y, x[_SAMPLES:])

    def loss(self, factor: float = 1.0) -> Tensor:
        """Minus the inner product of outputs and targets, a mean over samples."""
        outputs: Tensor = self.model(self.x)
        return -factor * (outputs * self.y).sum(1).mean()

    @torch.no_grad()
    def inputs(self) -> dict[str, Tensor]:
        """The input of each layer on the samples held out, one a row."""
        found, h = {}, self.held_out
        for name, module in self.model.named_children():
            if name in ROLES:
                found[name] = h
            h = module(h)
        return found


def held_steps(
    made: OptimizerClass, width: int, seed: int, steps: int, factor: float = 1.0, draw: int = 0
) -> tuple[Chain, list[dict[str, Tensor]]]:
    """How an optimizer moves the weights of one chain, by role, in steps that all start there.

    Raises:
        InvalidInput: for a step that is not finite, or an optimizer that cannot take one.
    """
    chain = Chain.drawn(width, seed, draw)
    optimizer = made.on(chain.model)
    weights = {role: chain.model.get_parameter(f"{role}.weight") for role in ROLES}
    start = {role: weight.detach().clone() for role, weight in weights.items()}

    calls = 0

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        chain.model.zero_grad()
        loss = chain.loss(factor)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    found = []
    for _ in range(steps):
        closure()
        calls = 0
        made.step(optimizer, closure)
        found.append({role: weights[role].detach() - start[role] for role in ROLES})
        for role in ROLES:
            weights[role].data.copy_(start[role])
            if not bool(torch.isfinite(found[-1][role]).all()):
                raise _not_finite(made, role, width, calls)
    return chain, found


def _not_finite(made: OptimizerClass, role: str, width: int, calls: int) -> InvalidInput:
    moves = f"moves the {role} layer of width {width} to numbers that are not finite"
    if calls < 2:
        return InvalidInput(
            f"{made.name}, whose step {moves}",
            "finite updates of weights of order one",
            "pass a smaller rate (--kwargs lr=1e-4), or another eps",
        )
    bounds = [k for k, x in made.parameters.items() if "iter" in k and isinstance(x, int) and x > 1]
    remedy = f"pass --kwargs {bounds[0]}=1" if bounds else "pass the keyword that stops it earlier"
    known = outside(made.name.rpartition(":")[2])
    if known is not None:
        remedy += f', or derive {known.relation}: scaling derive "{known.nearest}"'
    return InvalidInput(
        f"{made.name}, whose step calls the loss {calls} times and {moves}",
        "one call a step: the loss is linear in the outputs, and has no minimum to search for",
        remedy,
    )


def sizes_at(
    made: OptimizerClass, width: int, seed: int, step: int, draws: int = 1
) -> dict[str, float]:
    """RMS(dW h) of each role, at a step counted from 1, over draws of the weights."""
    squares = dict.fromkeys(ROLES, 0.0)
    for draw in range(draws):
        chain, steps = held_steps(made, width, seed, step, draw=draw)
        inputs = chain.inputs()
        for role in ROLES:
            change = inputs[role] @ steps[-1][role].T
            squares[role] += float(change.square().mean()) / draws
    return {role: math.sqrt(square) for role, square in squares.items()}


@dataclass(frozen=True)
class Settled:
    """The step that is measured, counted from 1, and what was seen on the way to it."""

    step: int
    notes: tuple[str, ...]


def settled(made: OptimizerClass, width: int) -> Settled:
    """The first step from which updates of one gradient go one way.

    Raises:
        InvalidInput: for an optimizer that does not move all layers.
    """
    _, steps = held_steps(made, width, 0, LOOK)
    lengths = [{role: float(step[role].norm()) for role in ROLES} for step in steps]
    for role in ROLES:
        if lengths[-1][role] == 0:
            raise InvalidInput(
                f"{made.name}, which does not move the {role} layer in {LOOK} steps",
                "an optimizer that trains all tensors it is given",
                f"pass a learning rate, --kwargs lr=1e-3: lr = {_rate(made)}",
            )
    first = LOOK
    while first > 1 and all(_alike(steps[first - 2], steps[-1], role) for role in ROLES):
        first -= 1
    idle = [k for k, x in enumerate(lengths, 1) if not any(x.values())]
    notes = []
    if idle:
        notes.append(f"step {', '.join(map(str, idle))} moves nothing")
    if first > 1 and len(idle) < first - 1:
        notes.append(f"the first {first - 1} steps go another way than later ones")
    if first > 1:
        notes.append(f"the exponents are those of step {first}")
    growth = max(lengths[-1][role] / lengths[first - 1][role] for role in ROLES)
    if growth > 1.5:
        notes.append(
            f"momentum or a warm-up: with one gradient, step {LOOK} is {growth:.3g} times as long "
            f"as step {first}, in its direction"
        )
    return Settled(first, tuple(notes))


def degrees(made: OptimizerClass, width: int, step: int) -> dict[str, float]:
    """By role, the power of the gradient's size that an update has: 1 for G, 0 for sign(G)."""
    factor = 16.0
    plain, larger = (held_steps(made, width, 0, step, x)[1][-1] for x in (1.0, factor))
    return {
        role: math.log(float(larger[role].norm() / plain[role].norm()), factor) for role in ROLES
    }


def table_of_sizes(
    made: OptimizerClass, widths: Sequence[int], seeds: Sequence[int], step: int
) -> Mapping[str, list[list[float]]]:
    """Sizes by role, a row a seed and a column a width."""
    least, most = _DRAWS
    found: dict[str, list[list[float]]] = {role: [] for role in ROLES}
    for seed in seeds:
        rows = [
            sizes_at(made, width, seed, step, min(max(max(widths) // width, least), most))
            for width in widths
        ]
        for role in ROLES:
            found[role].append([row[role] for row in rows])
    return found


def _alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor], role: str) -> bool:
    a, b = one[role], other[role]
    length = float(a.norm() * b.norm())
    return length > 0 and float((a * b).sum()) > _ALIKE * length


def _rate(made: OptimizerClass) -> object:
    return made.kwargs.get("lr", made.parameters.get("lr"))
