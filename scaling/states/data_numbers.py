"""The numbers of samples, classes and features as an assumption, where they decide an update.

They decide which directions there are beside the gradient's own (models/batch.py). An update is
read again as other numbers would have it, layer by layer; where its size is another one, or the
calculus is silent, the line of the update says so.

>>> from scaling.solve.derive import derive
>>> said, otherwise = derive("B**(-1) @ G @ A**(-1)").assumptions[-1].split(" (")
>>> said
'dW h of the output layer is that of 16 samples of all 10 classes, with 64 features'
>>> otherwise
'with 16 samples of 5 of 10 classes, with 64 features it is M^(1/2), not 1)'
>>> derive("(B + rho_B*I)**(-1) @ G @ (A + rho_A*I)**(-1)").assumptions
('the batch is not fitted yet',)
"""

from __future__ import annotations

from dataclasses import replace

from scaling.calculus.context import Context
from scaling.calculus.output_change import OutputChange
from scaling.calculus.read import read_update
from scaling.models.batch import DataSpan
from scaling.models.chain import Setting
from scaling.rules.tree import Node
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import Order, Scale


def with_numbers(
    setting: Setting, output: Scale, context: Context, node: Node, found: OutputChange
) -> OutputChange:
    """An update, with the numbers of the data as an assumption where others would change it.

    ``output`` is the size of f, ``found`` what a step by ``node`` does in the layer.
    """
    if not any(part.shape.is_square for part in node.walk()):
        return found  # directions are told apart by square matrices alone
    layer, seen = context.sizes.layer, {_directions(context.spans)}
    for other in setting.batch.others:
        spans = setting.spans(layer, output, other)
        if _directions(spans) in seen:
            continue
        seen.add(_directions(spans))
        try:
            changed = read_update(_with(context, spans), node)
        except NotCovered:
            text = "it is not covered"
        else:
            if _alike(changed, found, context):
                continue
            one, two = _whole(changed, context), _whole(found, context)
            known = one.width.is_number and two.width.is_number
            text = f"it is {one}, not {two}" if known else "it is another one"
        assumed = f"dW h of the {layer.name} layer is that of {setting.batch} (with {other} {text})"
        return replace(found, step=found.step.because(assumed))
    return found


def _directions(spans: tuple[DataSpan, DataSpan]) -> tuple[DataSpan, ...]:
    return tuple(replace(span, rank=0) for span in spans)


def _with(context: Context, spans: tuple[DataSpan, DataSpan]) -> Context:
    before = context.before
    if before is not None:
        before = replace(before, context=replace(before.context, data=spans))
    return replace(context, data=spans, before=before)


def _alike(one: OutputChange, other: OutputChange, context: Context) -> bool:
    pairs = ((one.coherent, other.coherent), (one.random, other.random))
    return all(context.bounds.order(x.width, y.width) is Order.EQUAL for x, y in pairs)


def _whole(update: OutputChange, context: Context) -> Scale:
    return update.coherent.plus(update.random, context.bounds)
