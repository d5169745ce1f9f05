"""A sum of positive numbers over all layers: the largest layer sets its size.

    over_layers(x) ~ M^max_l x_l

The number is read in the context of every layer (`Context.network`). Terms of one order do not
cancel, since all are positive; which layer leads is a regime, because what is divided by
the sum, in any layer, scales with that layer's number.

Not covered: numbers of both signs, and a damping of unknown scale added to a sum of numbers that
follow from dampings (sums.py): it would make one equation of all layers.
"""

from __future__ import annotations

from collections.abc import Callable

from scaling.calculus import instead
from scaling.calculus.context import Context
from scaling.calculus.entrywise import Reading
from scaling.calculus.values import Scalar
from scaling.rules.like_terms import is_joint
from scaling.rules.tree import Call, Node
from scaling.sizes.derivation import OVER_LAYERS, Step


def over_layers(
    context: Context, node: Call, own: Reading, read: Callable[[Context, Node], Reading]
) -> Reading:
    """The sum over the layers of the network; ``own`` is the reading in this one."""
    value, step = own
    if not isinstance(value, Scalar) or not value.positive:
        raise context.not_covered(
            node,
            "a sum over layers of numbers that may cancel",
            "a positive scalar",
            instead.positive,
        )
    if context.unknown and is_joint(node):  # before the dampings of other layers are known
        return value, Step(OVER_LAYERS, str(node), value.size, "", (step,), node=node)
    if not context.network:
        raise context.not_covered(
            node, "a sum over layers, of which one is read alone", "them all", instead.apart
        )
    here = context.sizes.layer.name
    total, steps, numbers = value.size, [step], [f"{here} {value.size}"]
    for name, other in context.network.items():
        if name != here:
            term, _ = read(other, node.argument)
            total = context.plus(total, term.main)
            steps.append(Step(OVER_LAYERS, f"{node.argument} of {name}", term.main))
            numbers.append(f"{name} {term.main}")
    regime = context.decide(node, node.argument, node, value.size, total)
    text = " + ".join(numbers)
    return Scalar(total), Step(
        OVER_LAYERS, str(node), total, text, tuple(steps), node=node, decision=regime
    )
