"""The second step: sizes of h, delta and W once every layer's weights are W + dW_1.

dW_1 is the rule's own first update, at the learning rate in question. After a stable first step

    h_l        h_l + dh_l                                    dh_l = O(h_l)
    delta_L    f + df - y                                    df = O(1)
    delta_l    (W_(l+1) + dW_(l+1))^T delta_(l+1) * phi'     a CLT term, and an aligned term

and each is as large as the larger of its terms, if they do not cancel. The aligned term has size
eta gain(dW) sqrt(fan_out/fan_in) |delta|: under a readout that starts at zero it is all there is.

Two directions of delta_l behave differently from here on, and their sizes are kept apart:

    noise     along W^T delta, as at the first step: no mean, and W_L dh adds up along it (LLN)
    feature   along phi' * h, since dW^T delta lies in the span of the inputs: it has the mean of h,
              W acts on it as a CLT, and dW_1 of the layer above adds up along it. Sent back through
              a hidden W it stays of that kind, since W^T h_l lies along h_(l-1) (Stein's lemma):
              W^T phi(W h) has the size std fan_out / sqrt(fan_in) there.

So means over delta, of relative size M^(-1/2) at the first step, are of order one at the second
under an activation whose mean does not vanish. An activation that is odd keeps every mean small:
flipping the sign of a neuron's weights on both sides changes nothing in training.

Not covered: third and later steps (W + dW_1 + dW_2: nothing new of this kind, but no proof); a
first step that is unstable; an alignment that is given; a first update with parts common to all
outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from sympy import Expr, S, Symbol

from scaling.calculus.context import Before, Context
from scaling.calculus.directions import OFF
from scaling.calculus.output_change import OutputChange, along_data
from scaling.calculus.readback import features
from scaling.calculus.values import Aligned, Value, parts
from scaling.models.batch import DataSpan
from scaling.models.chain import Layer, Loss, Setting
from scaling.models.layer_sizes import LayerSizes, mean_delta
from scaling.sizes.derivation import BACKPROP, DATA, DIFFERENCE, LLN, Step
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import HALF, Bounds, Order, Scale, Size
from scaling.states.network_state import Dampings, NetworkState
from scaling.states.problem import Problem, rate

CANCEL = "the terms of the second step do not cancel"
ZERO = Scale.zero(Size.ENTRY)


@dataclass(frozen=True)
class Directions:
    """Entry sizes of the two parts of delta_l; see the module."""

    noise: Scale
    feature: Scale

    def whole(self, bounds: Bounds) -> Scale:
        """The larger one."""
        return self.noise.plus(self.feature, bounds)


@dataclass(frozen=True, kw_only=True)
class AfterStep(NetworkState):
    """A network after one step, as its second step finds it.

    ``before``: what each layer looks back on; ``moving``: how far dW_1 of the weight at a position
    moves its output per dh of its input; ``deltas[l]``: the two parts of delta_l.
    """

    before: Mapping[str, Before]
    moving: Mapping[int, Scale]
    deltas: tuple[Directions, ...]

    def context(
        self, layer: Layer, scaled: Mapping[str, Expr], unknown: Iterable[Symbol] = ()
    ) -> Context:
        """One layer as the rule sees it at the second step, with the first one behind it."""
        found = super().context(layer, scaled, unknown)
        before = self.before[layer.name]
        first = replace(before.context, scaled=scaled, unknown=frozenset(unknown))
        data = self._moved_spans(first, before.change)
        return replace(found, before=replace(before, context=first), data=data)

    def _moved_spans(self, first: Context, change: Value | None) -> tuple[DataSpan, DataSpan]:
        """Of classes that are not drawn f alone makes entries: a step that leads there moves it."""
        left, right = first.spans
        aligned, _ = parts(change)
        if left.bend is None or aligned is None:
            return left, right
        moved = along_data(first, aligned).as_size_of(Size.SCALAR)
        moved = moved * aligned.portions.at(0, OFF, self.bounds)
        return replace(left, bend=left.bend.plus(moved, self.bounds)), right

    def contexts(self, scaled: Dampings) -> dict[str, Context]:
        """The contexts of all layers, each with the others beside it for sums over layers."""
        first: dict[str, Context] = {}
        second: dict[str, Context] = {}
        for layer in self.problem.setting.layers:
            context = self.context(layer, scaled[layer.name])
            assert context.before is not None, "a second step has one before it"
            first[layer.name] = replace(context.before.context, network=first)
            before = replace(context.before, context=first[layer.name])
            second[layer.name] = replace(context, before=before, network=second)
        return second

    def followed(self, layer: Layer, update: OutputChange) -> OutputChange:
        """An update with what follows the feature direction counted as not following W^T delta."""
        delta = self.deltas[layer.position]
        whole = delta.whole(self.bounds)
        if whole.is_zero or delta.feature.is_zero:
            return update
        noise, feature = (
            (part / whole).as_size_of(Size.SCALAR) if not part.is_zero else Scale.zero(Size.SCALAR)
            for part in (delta.noise, delta.feature)
        )
        return replace(
            update,
            coherent=update.coherent * noise,
            random=update.random.plus(update.coherent * feature, self.bounds),
        )

    def weights(self, name: str) -> Scale:
        """The entry of W and of what the first step added to it."""
        total = super().weights(name)
        for part in parts(self.before[name].change):
            total = total if part is None else total.plus(part.entry, self.bounds)
        return total

    def carry(self, position: int, coherent: Scale, random: Scale) -> tuple[Scale, Scale]:
        """(W_l + dW_l) dh_{l-1}: see `readback.through` for W_l."""
        along, across = super().carry(position, coherent, random)
        layer = _weight(self.problem.setting, position)
        overlap = Scale.of_width(-HALF * layer.fan_in, Size.SCALAR)  # of noise with the features
        met = random.plus(coherent * overlap, self.bounds)
        return along.plus(self.moving[position] * met, self.bounds), across


def after_step(
    state: NetworkState,
    c: Mapping[str, Expr],
    scaled: Dampings,
    updates: Mapping[str, OutputChange] | None = None,
) -> AfterStep:
    """The network after its first step.

    Args:
        state: the network at the start.
        c: exponents of learning rates; of a layer that the step does not move it may be a symbol.
        scaled: exponents of dampings, decays and radii.
        updates: what the step does per learning rate, if it is not a step by the rule.

    Raises:
        NotCovered: if the first step is unstable, and for what the module does not cover.
    """
    setting, bounds = state.problem.setting, state.bounds
    updates = state.updates(scaled) if updates is None else updates
    _refuse_uncovered(state.problem, updates)
    steps = {name: u.times(rate(c[name])) for name, u in updates.items()}
    _refuse_overshooting(steps, state)
    changes = features(setting, steps, state.carry, bounds, state.features)
    moved = _stable(changes, state)
    now = tuple(h.plus(dh, bounds) for h, dh in zip(state.features, moved, strict=True))
    values = {name: _unless_zero(u.value) for name, u in steps.items()}
    top = _top(setting, now[-1], bounds)
    deltas, lines = _backward(state, values, top, now)
    sizes = {
        layer.name: _sizes(layer, state, moved, now, deltas, lines) for layer in setting.layers
    }
    turned = bounds.order(moved[-1].width, top.width) is Order.EQUAL
    contexts = state.contexts(scaled)
    before = {
        layer.name: Before(
            contexts[layer.name],
            values[layer.name],
            _moved(layer, state, values[layer.name], moved, turned),
        )
        for layer in setting.layers
    }
    return AfterStep(
        problem=state.problem,
        a=state.a,
        b=state.b,
        bounds=bounds,
        sizes=sizes,
        features=now,
        before=before,
        moving={p: _moving(state, p, values) for p in range(1, setting.depth + 1)},
        deltas=tuple(deltas),
    )


# --- parts --------------------------------------------------------------------------------------


def _refuse_uncovered(problem: Problem, updates: Mapping[str, OutputChange]) -> None:
    if problem.setting.alignments:
        raise NotCovered(
            "step 2 under a given alignment",
            "how dW^T meets delta, which that assumption does not say",
            "use --alignment derived, or --step 1",
        )
    for name, update in updates.items():
        if update.common is not None:
            raise NotCovered(
                f"step 2 after a first update of the {name} layer with a part that is common to "
                "all outputs",
                "the size of 1^T delta at the second step",
                "leave the column mean out, or use --step 1",
            )


def _stable(changes: list[Scale | None], state: NetworkState) -> list[Scale]:
    """The changes, if none outgrows what it changes."""
    found: list[Scale] = []
    bounds = state.bounds
    last = len(changes) - 1
    for position, (change, start) in enumerate(zip(changes, state.features, strict=True)):
        most = Scale.one(Size.ENTRY) if position == last else start
        if change is None or bounds.order(change.width, most.width) is Order.GREATER:
            what = "f" if position == last else f"h_{position}"
            by = "more than is predicted" if change is None else str(change)
            raise NotCovered(
                f"step 2 after a first step that moves {what} by {by}",
                "a stable first step: terms such as dW_l dh_{l-1} are unknown otherwise",
                "raise c, or use --step 1",
            )
        found.append(change)
    return found


def _refuse_overshooting(updates: Mapping[str, OutputChange], state: NetworkState) -> None:
    """Refuse a first step that takes more than all of the weights away."""
    for name, update in updates.items():
        if state.sizes[name].w.is_zero:
            continue
        if state.bounds.order(update.multiple.width, S.Zero) is Order.GREATER:
            raise NotCovered(
                f"step 2 after a first step that takes {update.multiple} times the weights of the "
                f"{name} layer away",
                "a decay that takes a part of them",
                "raise its d, or use --step 1",
            )


def _moved(
    layer: Layer, state: NetworkState, change: Value | None, moved: list[Scale], turned: bool
) -> frozenset[str]:
    """The matrices that the first step changed by their own size; A of the data never moves."""
    below, w, bounds = layer.position - 1, state.sizes[layer.name].w, state.bounds
    names = set("GBLR") if turned else set[str]()
    inner = not layer.is_bias and below > 0
    if inner and bounds.order(moved[below].width, state.features[below].width) is Order.EQUAL:
        names.add("A")
    _, noise = parts(change)
    shrunk = noise is not None and bounds.order(noise.entry.width, w.width) is Order.EQUAL
    if shrunk or (w.is_zero and change is not None):
        names.add("W")
    return frozenset(names)


def _moving(state: NetworkState, position: int, values: Mapping[str, Value | None]) -> Scale:
    """|dW_1 dh| per |dh| of the weight at a position, for dh along its input."""
    layer = _weight(state.problem.setting, position)
    stretch = Scale.of_width(
        HALF * (layer.fan_in - layer.fan_out) - state.a[layer.name], Size.SCALAR
    )
    signal = _aligned(values[layer.name])
    gain = Scale.zero(Size.SPECTRAL) if signal is None else signal.gain
    return gain.as_size_of(Size.SCALAR) * stretch


def _unless_zero(value: Value | None) -> Value | None:
    """dW_1, or None if it is exactly zero."""
    return None if value is None or value.main.is_zero else value


def _aligned(value: Value | None) -> Aligned | None:
    aligned, _ = parts(value)
    return None if aligned is None or aligned.entry.is_zero else aligned


def _weight(setting: Setting, position: int) -> Layer:
    return next(layer for layer in setting.at(position) if not layer.is_bias)


def _top(setting: Setting, output: Scale, bounds: Bounds) -> Scale:
    one = Scale.one(Size.ENTRY)
    return one.plus(output, bounds) if setting.loss is Loss.MSE else one


def _back(layer: Layer, signal: Aligned | None) -> Scale:
    """|dW^T delta| per |delta|, entry by entry."""
    if signal is None:
        return Scale.zero(Size.SCALAR)
    gain = signal.gain
    if signal.coherent:  # odd in delta, so it adds up over fan_out whatever it is in h
        spread = Scale.of_width(HALF * (layer.fan_in + layer.fan_out), Size.SCALAR)
        gain = (signal.entry * spread).as_size_of(Size.SPECTRAL)
    return gain.as_size_of(Size.SCALAR) * Scale.of_width(
        HALF * (layer.fan_out - layer.fan_in), Size.SCALAR
    )


def _backward(
    state: NetworkState,
    values: Mapping[str, Value | None],
    top: Scale,
    now: tuple[Scale, ...],
) -> tuple[list[Directions], list[Step]]:
    """delta_0 (unused) .. delta_L, and the step that gave each."""
    setting, bounds = state.problem.setting, state.bounds
    parts = [Directions(top, ZERO)]
    text = f"f + df - y with f {now[-1]} and y of order 1"
    assumption = "the batch is not fitted yet"
    lines = [Step(DATA, f"delta_{setting.depth}", top, text, assumption=assumption, time=2)]
    for position in range(setting.depth, 1, -1):
        layer = _weight(setting, position)
        name, delta, line = layer.name, parts[-1], lines[-1]
        multiplier = Scale.of_width(-state.a[name], Size.SCALAR)
        std = _std(state.b[name], values[name], bounds)
        out = Scale.of_width(HALF * layer.fan_out, Size.SCALAR)
        noise = std * out * multiplier * delta.noise
        stein = Scale.of_width(layer.fan_out - HALF * layer.fan_in, Size.SCALAR)
        along = std * stein * multiplier * delta.feature
        back = _back(layer, _aligned(values[name])) * multiplier
        met = delta.noise.plus(delta.feature * out**-1, bounds)
        aligned = back * met
        parts.append(Directions(noise, aligned.plus(along, bounds)))
        random = Step(
            BACKPROP,
            f"W_{position}^T delta_{position}",
            noise.plus(along, bounds),
            f"std {std} x multiplier {multiplier} x sqrt(fan_out) {out} x |delta_{position}|",
            (line,),
            time=2,
        )
        added = Step(
            LLN, f"dW_{position}^T delta_{position}", aligned, f"{back} per |delta_{position}|",
            (line,), time=2,
        )  # fmt: skip
        both = not random.result.is_zero and not aligned.is_zero
        lines.append(
            Step(
                DIFFERENCE,
                f"delta_{position - 1}",
                parts[-1].whole(bounds),
                f"{random.result} + {aligned}",
                (random, added),
                CANCEL if both else "",
                time=2,
            )
        )
    blank = Step(DATA, "delta_0", ZERO, time=2)
    return [Directions(ZERO, ZERO), *reversed(parts)], [blank, *reversed(lines)]


def _std(b: Expr, change: Value | None, bounds: Bounds) -> Scale:
    """The entry of what is Gaussian in W + dW."""
    std = ZERO if b is S.Infinity else Scale.of_width(-b, Size.ENTRY)
    _, noise = parts(change)
    std = std if noise is None else std.plus(noise.entry, bounds)
    return std.as_size_of(Size.SCALAR)


def _sizes(
    layer: Layer,
    state: NetworkState,
    moved: list[Scale],
    now: tuple[Scale, ...],
    deltas: list[Directions],
    lines: list[Step],
) -> LayerSizes:
    """One layer as the rule sees it."""
    setting, bounds = state.problem.setting, state.bounds
    first, below = state.sizes[layer.name], layer.position - 1
    delta = deltas[layer.position]
    whole = delta.whole(bounds)
    h, step = first.h, replace(first.h_step, time=2)
    if not layer.is_bias and below > 0:
        h = (
            first.h.plus(first.h * (moved[below] / state.features[below]), bounds)
            if (not moved[below].is_zero and not state.features[below].is_zero)
            else first.h
        )
        assumption = "" if moved[below].is_zero else CANCEL
        step = Step(
            DIFFERENCE, f"h_{below}", now[below], f"h {state.features[below]} + dh {moved[below]}",
            (first.h_step,), assumption, time=2,
        )  # fmt: skip
    ratio = (first.mean_h / first.h).as_size_of(Size.SCALAR) if not first.h.is_zero else None
    mean_h = h if ratio is None else h * ratio
    mean = mean_delta(setting, layer, whole)
    if layer.fan_out != 0:
        shrink = -HALF if setting.activation.zero_mean else S.Zero
        mean = mean.plus(delta.feature * Scale.of_width(shrink, Size.SCALAR), bounds)
    return LayerSizes(layer, h, whole, first.w, mean_h, mean, step, lines[layer.position])
