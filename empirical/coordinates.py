"""A coordinate check of any model: what must neither grow nor vanish with the width, measured.

    init     RMS of a layer's output u at the start
    own      RMS of (W after - W before) applied to the layer's input at the start
    feature  RMS of u after the steps minus u before them; of the output layer, df

Claim.  A layer has a role by which of its axes grow, whatever its kind and wherever it stands: in a
residual branch, behind pooling, above an embedding. Under the exponents that are derived for its
role, own and feature are of order one, and so is init but at the output (M^-1/2 where b = 1). The
theory behind it covers plain networks (no residual sums, see ledger.py); here it is put to the
test on the model itself, with an interval and a verdict for each layer and size.

What is drawn and what is fixed.  Weights are drawn at every width and seed as `for_model` says, or
as ``scales`` does; data are fixed. At the narrowest width each damping that is not given is set to
a tenth of what it is added to, and each learning rate so that own is 0.1 (unless ``lr`` gives it);
from there both follow their exponents. So exponents are tested, not constants. Narrow networks are
averaged over as many draws as fit into the widest. Everything is in float64.

    >>> from torch import nn
    >>> from empirical.data import images
    >>> from scaling.parser import parse
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

``empirical.report.render(result, "text")`` shows the table, `report.write` the files and figures.

Not covered: layers whose axes do not grow at all (a note says so) and parameters outside Linear,
Conv2d and Embedding layers, whose sizes are not looked at; how the loss goes on after the steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache, cached_property
from typing import TypeAlias

import numpy as np
import torch
from sympy import S
from torch import Tensor, nn
from torch.func import functional_call

from empirical.campaign import Mode
from empirical.fit import Estimate, estimate
from empirical.measure import (
    DAMPING_AT_BASE,
    MOST_NETWORKS,
    OWN_AT_BASE,
    Constants,
    Sizes,
    damped_sums,
    dampings_in,
    mean_size,
    sizes_recorder,
)
from empirical.optimizers import RuleOptimizer
from empirical.parametrize import (
    LayerScales,
    draw_,
    fans_in,
    for_model,
    infer_roles,
    initialise_,
    start_stds,
)
from empirical.samples import Layered
from empirical.values import Value
from empirical.verdict import Verdict, judge, remedy
from empirical.verify import QUANTITIES, Check, Series, Verification
from scaling.errors import InvalidInput, unknown
from scaling.language import Node
from scaling.ledger import Role, Setting, mlp
from scaling.prediction import LayerPrediction, predict
from scaling.rule import Rule
from scaling.scale import exponent
from scaling.settings import Settings
from scaling.solve import derive

WIDTHS = (32, 64, 128, 256, 512)
SEEDS = 16
MARGIN = 0.2
"""Narrow networks drift; what matters here is a layer that is wrong, by a quarter at the least."""

READOUTS = 32
FIRST_READOUT = 1_000_000
"""Streams of extra draws, beyond those of a model's own tensors."""

Build: TypeAlias = Callable[[int], nn.Module]
"""A model of a given width; models of two widths differ in nothing else."""
LossFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""The mean loss of outputs and targets."""
Scales: TypeAlias = Mapping[str, LayerScales]
"""Numbers by the name of a tensor in the model."""
Parametrization: TypeAlias = Callable[[int], Scales]
"""Numbers at a width, relative to the narrowest one, where all are 1."""
MakeOptimizer: TypeAlias = Callable[[nn.Module, Scales], torch.optim.Optimizer]
"""An optimizer for a model whose learning rates (and dampings) are those of the scales."""


def check_model(
    build: Build,
    rule: Rule,
    inputs: Tensor,
    targets: Tensor,
    loss: LossFunction,
    widths: Sequence[int] = WIDTHS,
    *,
    probe: Tensor | None = None,
    scales: Parametrization | None = None,
    optimizer: MakeOptimizer | None = None,
    lr: float | None = None,
    values: Mapping[str, float] | None = None,
    exponents: Mapping[str, Fraction] | None = None,
    steps: int = 1,
    seeds: int = SEEDS,
    margin: float = MARGIN,
    device: str = "cpu",
) -> Verification:
    """Sizes of every layer of a model over widths, each judged against its role's prediction.

    ``inputs`` (n, ...) and ``targets`` are one batch, ``probe`` the inputs on which sizes are taken
    (the batch itself if it is not given). ``values`` gives numbers to the rule's constants and to
    dampings at the narrowest width, ``exponents`` to its exponent symbols; ``lr`` is the learning
    rate of all layers there. ``scales`` replaces the derived parametrization by another, such as
    `standard`; predictions stay those of the derived one. ``optimizer`` replaces `RuleOptimizer` by
    any other optimizer that is to follow the rule's exponents.

    Raises:
        InvalidInput: for models whose layers `RuleOptimizer` or `for_model` refuse, symbols without
            a value, fewer than 2 widths, 1 seed or 1 step, and sizes that are not finite.
        NotCovered: if the calculus does not cover the rule.
    """
    for what, count in (("steps", steps), ("seeds", seeds)):
        if count < 1:
            raise InvalidInput(f"{what}={count}", "at least 1", f"pass {what}=1")
    if len(widths) < 2:
        raise InvalidInput(
            f"{len(widths)} width(s)", "at least 2 widths", f"pass for instance widths={WIDTHS}"
        )
    start = time.perf_counter()
    run = _Run(
        build, rule, inputs, targets, loss, inputs if probe is None else probe, widths[0],
        scales, optimizer, values or {}, exponents or {}, steps, device,
    )  # fmt: skip
    roles = run.roles
    constants = run.calibrated(lr)
    table = [
        [run.mean_sizes(constants, width, seed, widths[-1] // width) for width in widths]
        for seed in range(seeds)
    ]
    predicted = _predictions(rule, run.exponents)
    name, checks, layers = rule.name or str(rule), [], {}
    for layer, role in roles.items():
        layers[layer] = {
            quantity: np.array(
                [[getattr(sizes[layer], quantity) for sizes in row] for row in table]
            )
            for quantity in QUANTITIES
        }
        if role is Role.CONSTANT:
            continue
        for quantity in QUANTITIES:
            x = getattr(predicted[role], quantity)
            fit = estimate(widths, layers[layer][quantity])
            target = -math.inf if x is S.NegativeInfinity else float(x)
            verdict = judge(fit, target, margin)
            size = float(np.sqrt((layers[layer][quantity][:, -1] ** 2).mean()))
            note = _advice(fit, target, margin, verdict)
            checks.append(Check(name, layer, quantity, x, fit, verdict, note, Mode.DENSE, size))
    notes = [f"roles: {', '.join(f'{layer} {role}' for layer, role in roles.items())}"]
    still = [layer for layer, role in roles.items() if role is Role.CONSTANT]
    if still:
        notes.append(f"not judged, since no axis of theirs grows: {', '.join(still)}")
    series = Series(name, Mode.DENSE, tuple(widths), layers, seeds, margin)
    seconds = time.perf_counter() - start
    return Verification(tuple(checks), (series,), seeds, margin, seconds, tuple(notes))


def standard(build: Build, base: int) -> Parametrization:
    """The standard parametrization: std 1/sqrt(fan_in), one learning rate and one damping.

    What most code does, and what the check must contradict wherever it is not maximal.

    >>> def build(width):
    ...     return nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2))
    >>> standard(build, 4)(16)["1.weight"]
    LayerScales(std=0.5, lr=1.0, dampings={}, multiplier=1.0)
    """
    at_base = fans_in(build(base))

    def scales(width: int) -> Scales:
        model = build(width)
        fans = fans_in(model)
        return {
            name: LayerScales(
                (fans[name] / at_base[name]) ** -0.5 if name in fans else 1.0, 1.0, {}
            )
            for name, _ in model.named_parameters()
        }

    return scales


def _predictions(rule: Rule, settings: Settings) -> Mapping[Role, LayerPrediction]:
    derived = derive(rule, settings, Setting(mlp(3)))
    found = predict(derived.problem, derived.exponents, derived.bounds).layers
    return {role: found[role] for role in (Role.INPUT, Role.HIDDEN, Role.OUTPUT)}


def _advice(fit: Estimate, target: float, margin: float, verdict: Verdict) -> str:
    if verdict in (Verdict.agree, Verdict.contradict):
        return ""
    cure = remedy(fit, target, margin)
    if cure is None:
        return "no number of seeds and no width within reach settles it: widen the margin"
    if cure.seeds > fit.seeds:
        return f"seeds={cure.seeds} would settle it"
    return f"widths up to {cure.width} would settle it"


@dataclass(frozen=True)
class _Seen:
    """Inputs and outputs of every call of a layer, on the probe."""

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class _Run:
    """What is the same at every width."""

    build: Build
    rule: Rule
    inputs: Tensor
    targets: Tensor
    loss: LossFunction
    probe: Tensor
    base: int
    given: Parametrization | None
    optimizer: MakeOptimizer | None
    values: Mapping[str, float]
    fractions: Mapping[str, Fraction]
    steps: int
    device: str

    def __post_init__(self) -> None:
        known = (*self.rule.dampings, *self.rule.constants)
        for symbol in self.values:
            if symbol not in known:
                raise unknown("symbol", symbol, known)

    @cached_property
    def exponents(self) -> Settings:
        """The numbers of the rule's exponent symbols."""
        return Settings(exponents={k: exponent(v) for k, v in self.fractions.items()})

    @cached_property
    def roles(self) -> dict[str, Role]:
        """Layer -> role, for the trainable layers whose sizes are looked at."""
        narrow = self.at_base
        layers = [
            name
            for name, module in narrow.named_modules()
            if isinstance(module, Layered) and module.weight.requires_grad
        ]
        if not layers:
            raise InvalidInput(
                f"a model ({type(narrow).__name__}) without trainable Linear, Conv2d or Embedding "
                "layers",
                "at least one",
                "check requires_grad, and that build returns the whole model",
            )
        roles = infer_roles(narrow, self.fresh(2 * self.base, 0))
        return {name: roles[_tensor(name, "weight")] for name in layers}

    @cached_property
    def at_base(self) -> nn.Module:
        """A model of the narrowest width."""
        return self.fresh(self.base, 0)

    @cached_property
    def parametrization(self) -> Parametrization:
        """The one that was given, or the derived one; computed once a width."""
        if self.given is not None:
            return cache(self.given)
        wide = self.fresh(2 * self.base, 0)

        def derived(width: int) -> Scales:
            return for_model(
                self.rule, self.at_base, wide, self.base, width, exponents=self.fractions
            )

        return cache(derived)

    def scales(self, width: int, constants: Constants) -> Scales:
        """Numbers at a width: the parametrization's, times the constants."""
        return {
            name: replace(
                own,
                lr=own.lr * constants.eta[name],
                dampings={
                    k: own.dampings.get(k, 1.0) * rho for k, rho in constants.rho[name].items()
                },
            )
            for name, own in self.parametrization(width).items()
        }

    def fresh(self, width: int, seed: int) -> nn.Module:
        """A model as the user builds it, whatever it draws from torch's generator."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.build(width).double().to(self.device)

    def calibrated(self, lr: float | None) -> Constants:
        """Constants from the narrowest width; see the top of the file."""
        names = list(self.parametrization(self.base))
        given = {k: self.values.get(k, 1.0) for k in self.rule.dampings}
        unit = Constants(dict.fromkeys(names, 1.0), {name: dict(given) for name in names})
        rho = {name: dict(given) for name in names}
        if self.optimizer is None:
            for (name, total), (other, damping) in self._damped(unit).items():
                for symbol in dampings_in(total):
                    if symbol not in self.values and other > 0 and damping > 0:
                        rho[name][symbol] = DAMPING_AT_BASE * other / damping
        if lr is not None:
            return Constants(dict.fromkeys(names, lr), rho)
        model, before = self._drawn(Constants(unit.eta, rho), self.base, 0)
        old = _copies(model)
        self._train(model, Constants(unit.eta, rho), self.base, 1)
        eta = dict.fromkeys(names, 1.0)
        for layer in self.roles:
            for part, own in _own(model, layer, old, before[layer]).items():
                if own > 0:
                    eta[part] = OWN_AT_BASE / own
        return Constants(eta, rho)

    def mean_sizes(
        self, constants: Constants, width: int, seed: int, networks: int
    ) -> dict[str, Sizes]:
        """The geometric mean over several networks of a narrow width, see `measure_mean`."""
        count = max(1, min(MOST_NETWORKS, networks))
        runs = [self._sizes(constants, width, seed * MOST_NETWORKS + i) for i in range(count)]
        return {
            layer: Sizes(*(mean_size([getattr(run[layer], q) for run in runs]) for q in QUANTITIES))
            for layer in self.roles
        }

    def _sizes(self, constants: Constants, width: int, seed: int) -> dict[str, Sizes]:
        model, before = self._drawn(constants, width, seed)
        old = _copies(model)
        self._train(model, constants, width, self.steps)
        after = self._seen(model)
        found = {}
        for layer in self.roles:
            start, end = before[layer].outputs, after[layer].outputs
            own = _own(model, layer, old, before[layer])[_tensor(layer, "weight")]
            moved = [y - x for x, y in zip(start, end, strict=True)]
            init = _rms(start)
            if self.roles[layer] is Role.OUTPUT:
                init = self._readout(model, layer, before[layer].inputs, constants, width, seed)
            found[layer] = Sizes(init, own, _rms(moved))
        return found

    def _readout(
        self,
        model: nn.Module,
        layer: str,
        inputs: Sequence[Tensor],
        constants: Constants,
        width: int,
        seed: int,
    ) -> float:
        """RMS of an output layer over independent draws of its weight, since it has few outputs."""
        name = _tensor(layer, "weight")
        std = start_stds(self.at_base, self.scales(width, constants))[name]
        module = model.get_submodule(layer)
        still = {name: 0 * x for name, x in module.named_parameters()}
        weight = torch.empty_like(still["weight"])
        sizes = []
        for draw in range(READOUTS):
            draw_(weight, std, seed, width, FIRST_READOUT + draw)
            with torch.no_grad():
                outputs = [
                    functional_call(module, {**still, "weight": weight}, (x,)) for x in inputs
                ]
            sizes.append(_rms(outputs))
        return math.sqrt(sum(size**2 for size in sizes) / READOUTS)

    def _drawn(
        self, constants: Constants, width: int, seed: int
    ) -> tuple[nn.Module, dict[str, _Seen]]:
        """A model with its weights drawn, and its layers' inputs and outputs on the probe."""
        model = self.fresh(width, seed)
        scales = self.scales(width, constants)
        initialise_(model, self.at_base, scales, seed, width)
        return model, self._seen(model)

    def _seen(self, model: nn.Module) -> dict[str, _Seen]:
        training = model.training
        model.eval()
        with _watching(model, list(self.roles)) as seen, torch.no_grad():
            model(_on(self.probe, self.device))
        model.train(training)
        for layer, calls in seen.items():
            if not calls.outputs:
                raise InvalidInput(
                    f"the layer '{layer}', which the model does not call",
                    "layers that are used by calling them",
                    "call the module instead of using its weight, or freeze it",
                )
        return seen

    def _train(
        self,
        model: nn.Module,
        constants: Constants,
        width: int,
        steps: int,
        record: Callable[[str, Node, Value], None] | None = None,
    ) -> None:
        scales = self.scales(width, constants)
        if self.optimizer is not None:
            optimizer = self.optimizer(model, scales)
        else:
            trainable = {n for n, p in model.named_parameters() if p.requires_grad}
            own = {n: x for n, x in scales.items() if n in trainable}
            symbols = {k: {n: x.dampings[k] for n, x in own.items()} for k in self.rule.dampings}
            numbers = {k: v for k, v in self.values.items() if k not in symbols}
            powers = {k: float(v) for k, v in self.fractions.items()}
            optimizer = RuleOptimizer(
                model, self.rule, {n: x.lr for n, x in own.items()},
                {**symbols, **numbers, **powers}, record=record,
            )  # fmt: skip
        for _ in range(steps):
            optimizer.zero_grad()
            output = model(_on(self.inputs, self.device))
            torch.autograd.backward(self.loss(output, _on(self.targets, self.device)))
            optimizer.step()

    def _damped(self, constants: Constants) -> dict[tuple[str, Node], tuple[float, float]]:
        """(tensor, damped sum) -> sizes of the term without and of the term with the damping."""
        damped = damped_sums(self.rule)
        watched = frozenset(node for terms in damped.values() for node in terms)
        sizes: dict[str, dict[Node, float]] = {}

        def record(name: str, node: Node, value: Value) -> None:
            sizes_recorder(sizes.setdefault(name, {}), watched)(node, value)

        model, _ = self._drawn(constants, self.base, 0)
        self._train(model, constants, self.base, 1, record)
        tensors = dict(model.named_parameters())
        return {
            (name if name in tensors else f"{name}.weight", total): (found[other], found[damping])
            for name, found in sizes.items()
            for total, (other, damping) in damped.items()
            if other in found and damping in found
        }


@contextmanager
def _watching(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, _Seen]]:
    seen = {layer: _Seen() for layer in layers}

    def watch(layer: str) -> Callable[..., None]:
        def hook(
            _: nn.Module, args: tuple[Tensor, ...], kwargs: Mapping[str, Tensor], output: Tensor
        ) -> None:
            seen[layer].inputs.append((args[0] if args else kwargs["input"]).detach().clone())
            seen[layer].outputs.append(output.detach().clone())

        return hook

    handles = [
        model.get_submodule(layer).register_forward_hook(watch(layer), with_kwargs=True)
        for layer in layers
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _own(model: nn.Module, layer: str, old: Mapping[str, Tensor], seen: _Seen) -> dict[str, float]:
    """Tensor -> RMS of what its change makes of the layer's inputs; the bias's is its own RMS."""
    module = model.get_submodule(layer)
    change = {
        name: parameter.detach() - old[_tensor(layer, name)]
        for name, parameter in module.named_parameters()
    }
    found = {}
    for name in change:
        alone = {other: x if other == name else 0 * x for other, x in change.items()}
        with torch.no_grad():
            moved = [functional_call(module, alone, (x,)) for x in seen.inputs]
        found[_tensor(layer, name)] = _rms(moved)
    return found


def _tensor(layer: str, name: str) -> str:
    """The name of a layer's parameter in the model, which may be that layer itself."""
    return f"{layer}.{name}" if layer else name


def _copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def _on(x: Tensor, device: str) -> Tensor:
    """On the device, in float64 unless these are word ids or labels."""
    return x.to(device, torch.float64) if x.is_floating_point() else x.to(device)


def _rms(parts: Sequence[Tensor]) -> float:
    count = sum(x.numel() for x in parts)
    return math.sqrt(sum(float(x.square().sum()) for x in parts) / count)
