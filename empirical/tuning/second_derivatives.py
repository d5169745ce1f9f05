"""Gradients of a model's loss, and products of its Hessian with a vector, as lists of tensors.

    H v = d <grad L, v> / dw        one more backward pass through the gradient

>>> import torch
>>> w = torch.tensor([1.0, 2.0], requires_grad=True)
>>> gradient = gradients((w**3).sum(), [w])
>>> hessian_vector(gradient, [w], [torch.ones(2)])
[tensor([ 6., 12.])]
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scaling.sizes.errors import InvalidInput


def gradients(loss: Tensor, tensors: Sequence[Tensor], again: bool = True) -> list[Tensor]:
    """The gradient of a loss; ``again``: so that it may be differentiated."""
    found = torch.autograd.grad(loss, tensors, create_graph=again, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for g, w in zip(found, tensors, strict=True)]


def hessian_vector(
    gradient: Sequence[Tensor], tensors: Sequence[Tensor], vector: Sequence[Tensor]
) -> list[Tensor]:
    """H v, from a gradient with its graph, which stays.

    Raises:
        InvalidInput: for a model whose operations have no second derivatives.
    """
    product = inner(gradient, vector)
    if not product.requires_grad:  # a loss that is linear in these weights
        return [torch.zeros_like(w) for w in tensors]
    try:
        found = torch.autograd.grad(product, tensors, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        raise _none(str(error).partition("\n")[0]) from None
    if any(h is None for h in found) and _ends_in_error(product):
        raise _none("one of its operations is differentiated once alone")
    return [torch.zeros_like(w) if h is None else h for h, w in zip(found, tensors, strict=True)]


def _none(why: str) -> InvalidInput:
    return InvalidInput(
        f"a model without second derivatives: {why}",
        "operations that torch differentiates twice",
        "compute attention with torch.nn.attention.sdpa_kernel(SDPBackend.MATH), or take a "
        "strategy without second derivatives: --strategy hozog",
    )


def _ends_in_error(product: Tensor) -> bool:
    """Whether torch cut the graph where an operation is ``once_differentiable``."""
    seen, waiting = set(), [product.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node.name().endswith("Error"):
            return True
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
    return False


def inner(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """The inner product of two lists of tensors."""
    return torch.stack([(x * y).sum() for x, y in zip(one, other, strict=True)]).sum()
