"""The change of a layer's output in one step: the sizes of dW h for an update dW.

    coherent   dW = D C H^T, aligned with the layer's input:  |dW h| = gain |h| sqrt(fan_in/fan_out)
    random     dW = m W, independent of it, a CLT:            |dW h| = m |W| |h| sqrt(fan_in)
               likewise rounding noise, where it is read so (rounding_noise.py)

Only the first adds up in the layers above (readback.py), so both are kept. An update that is full
rank but odd in G adds up over fan_in like the first (LLN); its gain says by how much. Terms that
move all outputs of the layer alike are told apart (shared_direction.py) and count as random. Where
a user gives the layer's alignment alpha (alignment.py), fan_in^(alpha - 1) multiplies the first.

Refused: what is even in the gradient, which has no direction of descent; and what is no function of
G and W at all, such as a square matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from scaling.calculus import instead
from scaling.calculus.context import Context
from scaling.calculus.entrywise import check_tails
from scaling.calculus.shared_direction import Read, apart
from scaling.calculus.values import Aligned, Noisy, Parity, Value, describe, parts, times
from scaling.rules.shapes import Dim
from scaling.rules.tree import Node
from scaling.sizes.derivation import ALIGNED_UPDATE, CLT, LLN, Step
from scaling.sizes.scale import HALF, Scale, Size

NOTHING = Scale.zero(Size.SCALAR)


@dataclass(frozen=True)
class OutputChange:
    """The change of a layer's output in one step, per unit of learning rate.

    ``coherent``: entry size of the part of dW h that follows the gradient; ``random``: of the part
    in random directions (a multiple of W, or ``common``: what is none of W, common to all outputs
    or rounding noise). Only the first adds up in the layers above. ``entry``: the typical entry of
    dW itself, ``value`` all that is known of it. ``multiple``: the size of that multiple of W; zero
    if there is none.
    """

    coherent: Scale
    random: Scale
    step: Step
    entry: Scale
    multiple: Scale = NOTHING
    value: Value | None = None
    common: Scale | None = None

    def times(self, rate: Scale) -> OutputChange:
        """The change at a learning rate of that size."""
        return replace(
            self,
            coherent=self.coherent * rate,
            random=self.random * rate,
            entry=self.entry * rate,
            multiple=self.multiple * rate,
            value=None if self.value is None else times(self.value, rate),
            common=None if self.common is None else self.common * rate,
        )


def along_data(context: Context, signal: Aligned) -> Scale:
    """The entry of X h that follows the gradient, for a gradient-like X."""
    return signal.gain.as_size_of(Size.SCALAR) * context.sizes.h * _stretch(context)


def _stretch(context: Context) -> Scale:
    return (context.fan(Dim.FAN_IN) / context.fan(Dim.FAN_OUT)).root()


def effect(context: Context, node: Node, read: Read) -> OutputChange:
    """The sizes of dW h for an update dW = node, with learning rate 1.

    Raises:
        NotCovered: for an update that is even in the gradient (it has no descent direction).
    """
    value, step = read(context, node)
    sizes = context.sizes
    signal, noise = parts(value)
    rounding = value.noise if isinstance(value, Noisy) else Scale.zero(Size.ENTRY)
    coherent = entry = Scale.zero(Size.ENTRY)
    multiple = NOTHING
    numbers = []
    inference = ALIGNED_UPDATE
    common: Scale | None = None
    told_apart: tuple[Step, ...] = ()
    if signal is not None and signal.left.parity is Parity.MIXED:
        signal, common, told_apart = apart(context, node, signal, read)
    if signal is not None:
        if signal.left.parity is not Parity.ODD and not signal.entry.is_zero:
            raise context.not_covered(
                node,
                f"an update that is {signal.left.parity} in the gradient",
                "an odd one: it must change sign with G to descend",
                instead.odd,
            )
        check_tails(context, node, signal)
        stretch = _stretch(context)
        coherent = along_data(context, signal)
        entry = signal.entry
        numbers.append(f"gain {signal.gain} x |h| {sizes.h} x sqrt(fan_in/fan_out) {stretch}")
        if context.alignment is not None:  # fan_in^1 is what the gain and the stretch amount to
            assumed = context.fan(Dim.FAN_IN) ** (context.alignment.of_update - 1)
            coherent = coherent * assumed
            numbers.append(f"fan_in^(alignment - 1) {assumed}")
        if not signal.low_rank:
            inference = LLN
    random = common or Scale.zero(Size.ENTRY)
    if common is not None:
        numbers.append(f"what is common to all outputs {common}")
    if noise is not None:
        random = context.plus(random, noise.entry * sizes.h * context.fan(Dim.FAN_IN) ** HALF)
        entry = context.plus(entry, noise.entry)
        multiple = noise.multiple
        numbers.append(f"std {noise.entry} x |h| {sizes.h} x sqrt(fan_in)")
        inference = CLT if signal is None else inference
    if not rounding.is_zero:
        met = rounding * sizes.h * context.fan(Dim.FAN_IN) ** HALF
        random = context.plus(random, met)
        common = met if common is None else context.plus(common, met)
        entry = context.plus(entry, rounding)
        numbers.append(f"rounding noise {rounding} x |h| {sizes.h} x sqrt(fan_in)")
    if signal is None and noise is None:
        raise context.not_covered(
            node, f"{describe(value)} as an update", "a function of G", instead.apart
        )
    total = context.plus(coherent, random)
    line = Step(
        inference, "dW h per learning rate", total, " + ".join(numbers), (step, *told_apart)
    )
    if context.alignment is not None:
        line = line.because(context.alignment.assumption)
    line = replace(line, time=context.step)
    return OutputChange(coherent, random, line, entry, multiple, value, common)
