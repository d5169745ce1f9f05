"""The alignment that the calculus derives for one step, in the layers whose fan_in grows.

With sizes of entries, all of them from the state of the network and the rules of inference,

    alpha   (|dW h| / |dW| |h|) in powers of fan_in: 1 for an update along the gradient (LLN),
            1/2 for one in random directions (CLT)
    omega   (|W dh| / |W| |dh|) likewise, for the change dh that one step of the layers below
            makes: 1/2 in hidden layers, 1 into the output, along W_L^T delta (readback.py)
    u       (|dW dh| / |dW| |dh|): at most alpha, and no more is used. An update stretches what it
            is aligned with the most, and maximal update needs dW dh no larger than dW h

so one step has full alignment but for the readback. Nothing here reads what a user assumes instead
(alignment.py); empirical/verify/measured_alignments.py measures all three over steps.

The bound on u need not be reached: h^T dh is a sum of nearly independent terms where dh lies along
delta (SGD with ReLU: h . d loss/dh = f . d loss/df, whatever the width).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import sympy
from sympy import Expr

from scaling.calculus.output_change import OutputChange
from scaling.models.chain import Layer
from scaling.sizes.scale import Bounds, Scale, Size
from scaling.states.ascent import with_ascents
from scaling.states.problem import Exponents, Problem, rate
from scaling.states.start import at_start


@dataclass(frozen=True)
class OneStep:
    """Exponents of the fan_in in one layer; ``u`` is an upper bound. None where nothing moves."""

    alpha: Expr | None
    omega: Expr | None
    u: Expr | None


def one_step(
    problem: Problem, exponents: Exponents, bounds: Bounds | None = None
) -> dict[str, OneStep]:
    """The alignment of one step, by the name of each layer whose fan_in grows.

    Raises:
        NotCovered: if the calculus does not cover the rule, or an activation saturates.

    >>> from scaling.rules.parser import parse
    >>> from scaling.solve.derive import derive
    >>> solution = derive(parse("sign(G)"))
    >>> for layer, x in one_step(solution.problem, solution.exponents).items():
    ...     print(f"{layer}: alpha = {x.alpha}, omega = {x.omega}, u <= {x.u}")
    hidden: alpha = 1, omega = 1/2, u <= 1
    output: alpha = 1, omega = 1, u <= 1
    """
    bounds = bounds or problem.bounds()
    free = replace(problem, setting=replace(problem.setting, alignments={}))
    setting = free.setting
    state = with_ascents(at_start(free, exponents.a, exponents.b, bounds), exponents.d)
    updates = state.updates(exponents.d)
    coherent = random = Scale.zero(Size.ENTRY)
    found: dict[str, OneStep] = {}
    for position in range(1, setting.depth + 1):
        below = coherent.plus(random, bounds)
        coherent, random = state.carry(position, coherent, random)
        carried = coherent.plus(random, bounds)
        for layer in setting.at(position):
            update = updates[layer.name]
            if layer.fan_in != 0:
                alpha = _of_update(layer, update, state.sizes[layer.name].h, bounds)
                std = Scale.of_width(-exponents.a[layer.name], Size.SCALAR)
                std = std * state.sizes[layer.name].w
                found[layer.name] = OneStep(alpha, _per_fan_in(layer, carried, std, below), alpha)
            lr = rate(exponents.c[layer.name])
            coherent = coherent.plus(update.coherent * lr, bounds)
            random = random.plus(update.random * lr, bounds)
    return found


def _of_update(layer: Layer, update: OutputChange, h: Scale, bounds: Bounds) -> Expr | None:
    return _per_fan_in(layer, update.coherent.plus(update.random, bounds), update.entry, h)


def _per_fan_in(layer: Layer, product: Scale, matrix: Scale, vector: Scale) -> Expr | None:
    """The x of |matrix vector| = fan_in^x |matrix| |vector|; None where something is zero."""
    if product.is_zero or matrix.is_zero or vector.is_zero:
        return None
    x: Expr = sympy.expand((product.width - matrix.width - vector.width) / layer.fan_in)
    return x
