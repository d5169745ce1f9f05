"""The loss of each task of a batch, summed under weights of the tasks.

    L = sum_k a_k (n_k / n) loss of task k,     a = K softmax(phi) of K tasks

Source: arXiv 2111.01754. The tasks are those of ``tasks(inputs, targets)`` in the model's file, or
the classes of whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from empirical.trace.model_file import Batch, ModelFile
from empirical.transfer.transfer_run import Diverged
from scaling.sizes.errors import InvalidInput

PRETRAINED = 10
"""Steps whose tasks are weighted, where a point has weights."""


def tasks_of(file: ModelFile, inputs: Sequence[Any], targets: Tensor) -> Tensor:
    """The number of the task of each sample.

    Raises:
        InvalidInput: for a model whose samples have no tasks.
    """
    if file.tasks_of is not None:
        found: Tensor = file.tasks_of(*inputs, targets)
        return found.long()
    if targets.ndim == 1 and not targets.is_floating_point():
        return targets
    raise no_tasks(file)


def no_tasks(file: ModelFile) -> InvalidInput:
    """The refusal of a model without tasks."""
    return InvalidInput(
        f"samples without tasks in {file.path}",
        "the number of a task for each sample, from 0",
        "write for example: def tasks(inputs, targets): return targets.argmax(1)",
    )


def weighted_loss(
    model: nn.Module, file: ModelFile, batch: Batch, weights: Tensor | Sequence[float]
) -> Tensor:
    """The sum over tasks of weight, share of the samples and loss: zero of one without samples.

    Raises:
        Diverged: for a task without a weight.
    """
    inputs, targets = batch
    tasks = tasks_of(file, inputs, targets)
    outputs, loss_of = model(*inputs), file.loss_for(targets)
    if not int(tasks.max()) < len(weights):
        raise Diverged(f"a task {int(tasks.max())}, and weights of {len(weights)}")
    parts, shares = [], []
    for k in range(len(weights)):
        chosen = tasks == k
        some = bool(chosen.any())
        parts.append(loss_of(outputs[chosen], targets[chosen]) if some else outputs.sum() * 0)
        shares.append(chosen.float().mean())
    losses = torch.stack(parts)
    a = torch.as_tensor(weights, dtype=losses.dtype, device=losses.device)
    return (losses * torch.stack(shares).to(losses) * a).sum()


def weights_of(phi: Tensor) -> Tensor:
    """a, of mean one.

    >>> import torch
    >>> weights_of(torch.zeros(3))
    tensor([1., 1., 1.])
    """
    return len(phi) * torch.softmax(phi, 0)
