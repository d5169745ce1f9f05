"""A coordinate check of any model: what must neither grow nor vanish with the width, measured.

    init     RMS of a layer's output u at the start
    own      RMS of (W after - W before) applied to the layer's input at the start
    feature  RMS of u after the steps minus u before them; of the output layer, df

Claim.  A layer has a role by which of its axes grow, whatever its kind and wherever it stands: in a
residual branch, behind pooling, above an embedding. Under the exponents that are derived for its
role, own and feature are of order one, and so is init but at the output (M^-1/2 where b = 1). The
theory behind it covers plain networks (no residual sums, see chain.py); here it is put to the
test on the model itself, with an interval and a verdict for each layer and size.

What is drawn and what is fixed.  Weights are drawn at every width and seed as `for_model` says, or
as ``scales`` does, but for those that are frozen, zero or given (initialise.py; a note names them);
data are fixed. At the narrowest width each damping that is not given is set to a tenth of what it
is added to, and the learning rate of every trained tensor so that own is 0.1 (unless ``lr`` gives
it); from there both follow their exponents. So exponents are tested, not constants. Narrow networks
are averaged over as many draws as fit into the widest. Everything is in float64, buffers stand
still, and batch normalisation normalises by the batch (probe.py).

    >>> from torch import nn
    >>> from empirical.data.sources import images
    >>> from scaling.rules.parser import parse
    >>> def build(width):
    ...     return nn.Sequential(
    ...         nn.Conv2d(1, width, 4, stride=4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * width, 10)
    ...     )
    >>> data, widths = images("digits", samples=8), (16, 32, 64, 128)
    >>> batch = data.inputs, data.targets, nn.functional.cross_entropy
    >>> check_model(build, parse("sign(G)"), *batch, widths, seeds=8).verdict.name
    'agree'
    >>> usual = standard(build, base=16)
    >>> check_model(build, parse("sign(G)"), *batch, widths, seeds=8, scales=usual).verdict.name
    'contradict'

``empirical.report.measured_tables.render(result, "text")`` shows the table, `measured_tables.write`
the files and figures.

Curvature.  The theory holds at widths beyond the number of samples, and a convolution has one at
every position of every image. A rule made of A, B, L or R then crosses over at narrow widths; a
note names such layers.

Not covered: layers whose axes do not grow at all (a note says so) and parameters outside Linear,
Conv2d and Embedding layers, whose sizes are not looked at; how the loss goes on after the steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from sympy import Expr, S
from torch import Tensor

from derivations.catalogue import rule_of
from empirical.fit.exponent import Estimate, estimate
from empirical.fit.verdict import Verdict, agreeing_margin, at_most, judge, remedy
from empirical.measure.parametrize import LayerScales
from empirical.verify.campaign import Mode
from empirical.verify.verification import QUANTITIES, Check, Series, Verification
from empirical.your_model.initialise import torchs_fans_in
from empirical.your_model.model_scales import ReadModel, warn_of_regimes
from empirical.your_model.model_trial import (
    Build,
    LossFunction,
    MakeOptimizer,
    ModelTrial,
    Parametrization,
    Scales,
)
from empirical.your_model.probe import Inputs, tensors_of
from scaling.models.chain import Role
from scaling.models.terms import larger
from scaling.report.graph_tables import regimes_in_graph
from scaling.rules.rule import Rule
from scaling.rules.tree import Matrix, Node
from scaling.sizes.errors import InvalidInput

__all__ = [
    "Build",
    "LossFunction",
    "MakeOptimizer",
    "Parametrization",
    "Scales",
    "check_model",
    "standard",
]

WIDTHS = (32, 64, 128, 256, 512)
SEEDS = 16
MARGIN = 0.2
"""Narrow networks drift; what matters here is a layer that is wrong, by a quarter at the least."""


def check_model(
    build: Build,
    rule: Rule | Node | str,
    inputs: Inputs,
    targets: Tensor,
    loss: LossFunction,
    widths: Sequence[int] = WIDTHS,
    *,
    probe: Inputs | None = None,
    scales: Parametrization | None = None,
    optimizer: MakeOptimizer | None = None,
    lr: float | None = None,
    values: Mapping[str, float] | None = None,
    exponents: Mapping[str, Fraction] | None = None,
    steps: int = 1,
    seeds: int = SEEDS,
    margin: float = MARGIN,
    device: str = "cpu",
    keep: Sequence[str] = (),
    draw: Sequence[str] = (),
) -> Verification:
    """Sizes of every layer of a model over widths, each judged against its role's prediction.

    ``inputs`` (n, ...) and ``targets`` are one batch, ``probe`` the inputs on which sizes are taken
    (the batch itself if it is not given); a model of several inputs takes a tuple of tensors, or a
    mapping by name. ``values`` gives numbers to the rule's constants, and to
    dampings and decays at the narrowest width, ``exponents`` to its exponent symbols; ``lr`` is the
    learning rate of all layers there. ``scales`` replaces the derived parametrization by another,
    such as `standard`; predictions stay those of the derived one. ``optimizer`` replaces
    `RuleOptimizer` by any other optimizer that is to follow the rule's exponents. ``setting`` says
    for which activation, loss and batch the exponents are derived, ``keep`` and ``draw`` what stays
    and what is drawn at the start (see `initialise_`).

    What the predictions assume, and which terms they take to dominate, is in the result
    (``assumptions``, ``regimes``) and printed with it.

    Raises:
        InvalidInput: for models whose layers `RuleOptimizer` or `for_model` refuse, symbols without
            a value, fewer than 2 widths, 1 seed or 1 step, and sizes that are not finite.
        NotCovered: if the calculus does not cover the rule.

    Warns:
        RegimeWarning: for a regime that decides an exponent of one of the model's tensors.

    >>> import torch
    >>> from torch import nn
    >>> def build(width=8):
    ...     return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2, bias=False))
    >>> batch = torch.eye(3), torch.ones(3, 2)
    >>> found = check_model(build, "G", *batch, nn.functional.mse_loss, widths=(8, 16, 32), seeds=2)
    >>> sorted({check.layer for check in found.checks})
    ['0', '2']
    """
    rule = rule_of(rule)
    samples = len(tensors_of("inputs", inputs)[0])
    if not isinstance(targets, Tensor):
        raise InvalidInput(
            f"targets of type {type(targets).__name__}", "a tensor", "pass torch.as_tensor(targets)"
        )
    for what, count in (("steps", steps), ("seeds", seeds)):
        if count < 1:
            raise InvalidInput(f"{what}={count}", "at least 1", f"pass {what}=1")
    if len(widths) < 2 or list(widths) != sorted(set(widths)) or widths[0] < 1:
        raise InvalidInput(
            f"the widths {', '.join(str(width) for width in widths)}",
            "at least 2 widths, from the narrowest to the widest",
            f"pass for instance widths={WIDTHS}",
        )
    start = time.perf_counter()
    run = ModelTrial(
        build, rule, inputs, targets, loss, inputs if probe is None else probe, widths[0],
        scales, optimizer, values or {}, exponents or {}, steps, device, keep, draw,
    )  # fmt: skip
    roles = run.roles
    warn_of_regimes(run.read, stacklevel=3)
    constants = run.calibrated(lr)
    table = [
        [run.mean_sizes(constants, width, seed, widths[-1] // width) for width in widths]
        for seed in range(seeds)
    ]
    name, checks, layers = rule.name or str(rule), [], {}
    zero, silent = run.start.zero, []
    for layer, role in roles.items():
        layers[layer] = {
            quantity: np.array(
                [[getattr(sizes[layer], quantity) for sizes in row] for row in table]
            )
            for quantity in QUANTITIES
        }
        if role is Role.CONSTANT:
            continue
        predicted = predictions(run.read, _weight(layer))
        for quantity in QUANTITIES:
            if zero and not layers[layer][quantity].any():
                silent.append(f"{quantity} {layer}")
                continue
            x = predicted[quantity]
            fit = estimate(widths, layers[layer][quantity])
            target = -math.inf if x is S.NegativeInfinity else float(x)
            decide = at_most if quantity == "feature" and x != predicted["own"] else judge
            verdict = decide(fit, target, margin)
            size = float(np.sqrt((layers[layer][quantity][:, -1] ** 2).mean()))
            note = _advice(fit, target, margin, verdict)
            checks.append(Check(name, layer, quantity, x, fit, verdict, note, Mode.DENSE, size))
    notes = [f"roles: {', '.join(f'{layer} {role}' for layer, role in roles.items())}"]
    notes += str(run.start).splitlines()
    if silent:
        notes.append(
            f"not judged, since exactly zero at every width: {', '.join(silent)}; what starts at "
            f"zero is {', '.join(zero)}. Take steps=2, or draw={list(zero)}"
        )
    still = [layer for layer, role in roles.items() if role is Role.CONSTANT]
    if still:
        notes.append(f"not judged, since no axis of theirs grows: {', '.join(still)}")
    if any(isinstance(node, Matrix) and node.name in "ABLR" for node in rule.expression.walk()):
        notes += _crowded(run, widths[0])
    series = Series(name, Mode.DENSE, tuple(widths), layers, seeds, samples, margin)
    seconds = time.perf_counter() - start
    return Verification(
        tuple(checks), (series,), seeds, margin, seconds, tuple(notes),
        run.read.assumptions, tuple(regimes_in_graph(run.read.answer)),
    )  # fmt: skip


def standard(build: Build, base: int) -> Parametrization:
    """The standard parametrization: std 1/sqrt(fan_in), one learning rate and one damping.

    fan_in is what torch draws its own layers by. What most code does, and what the check must
    contradict wherever it is not maximal.

    >>> from torch import nn
    >>> def build(width):
    ...     return nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2))
    >>> standard(build, 4)(16)["1.weight"]
    LayerScales(std=0.5, lr=1.0, scaled={}, multiplier=1.0)
    """
    at_base = torchs_fans_in(build(base))

    def scales(width: int) -> Scales:
        model = build(width)
        fans = torchs_fans_in(model)
        return {
            name: LayerScales((fans[name] / at_base[name]) ** -0.5, 1.0, {})
            for name, _ in model.named_parameters()
        }

    return scales


def predictions(read: ReadModel, name: str) -> Mapping[str, Expr]:
    """The exponents of init, own and feature at the product of a tensor with data.

    The feature changes by as much as the tensor's own product at the least, since branches do not
    cancel, and by as much as that node bears at the most: where the two differ, that is a bound.
    """
    x, use = read.answer.tensors[name], read.uses[name]
    assert use is not None, "a layer that is called has an operation"
    node = use.node.name
    own = S.NegativeInfinity if x.start.moves is None else x.start.moves - x.c
    bears = read.start.tolerances[node].coherent
    feature = own if bears is S.Infinity else larger(own, bears)
    return {"init": read.start.values[node].size, "own": own, "feature": feature}


def _weight(layer: str) -> str:
    return f"{layer}.weight".lstrip(".")


def _crowded(run: ModelTrial, width: int) -> list[str]:
    """Layers that see more samples than their narrowest outputs can tell apart."""
    many = {
        layer: count
        for layer, count in run.samples().items()
        if run.roles[layer] in (Role.INPUT, Role.HIDDEN) and count > width
    }
    if not many:
        return []
    shown = ", ".join(f"{layer} ({count})" for layer, count in many.items())
    return [
        f"more samples than {width}, the narrowest width: {shown}; every position of an image and "
        "every word is one. The exponents of curvature are those of widths beyond the number of "
        "samples: expect a crossover before, and take fewer samples or larger widths"
    ]


REACH = 16384
"""The widest dense network that is advised: 1 GiB a matrix of float32."""


def _advice(fit: Estimate, target: float, margin: float, verdict: Verdict) -> str:
    if verdict in (Verdict.agree, Verdict.contradict):
        return ""
    cure, reach = remedy(fit, target, margin), max(REACH, fit.widths[-1])
    if cure is None or cure.width > reach:
        unsettled = f"no number of seeds and no width up to {reach:,} settles it"
        known = not any(map(math.isinf, (target, fit.low, fit.high)))
        wider = f": margin={agreeing_margin(fit, target):g} would agree" if known else ""
        return unsettled + wider
    if cure.seeds > fit.seeds:
        return f"seeds={cure.seeds} would settle it"
    return f"widths up to {cure.width} would settle it"
