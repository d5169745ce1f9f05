"""The samples of a layer: rows of a batch, patches of an image, words.

    Linear       u = w h + v             a sample is a row of the input; leading axes are samples
    Conv2d       u_p = w patch_p + v     a sample is a patch: w is (out, in * kh * kw), and there
                                         are N = n P of them, n images times P output positions
    Embedding    u = w onehot(word)      a sample is a word; w is the weight's transpose
    EmbeddingBag u = w sum_j onehot_j    a sample is a bag, with the mean or the sum of its words

Claim.  In each case the layer is a matrix (fan_out, fan_in) acting on samples h_1..h_N, so with H
their columns and D = N d loss / d u, D H^T / N is the gradient of that matrix, exactly.

Units of a convolution.  Positions are samples in their own right, as for the tokens of a sequence
("expand" in Eschenhagen et al., arXiv 2311.00636; KFC of Grosse and Martens, arXiv 1602.01407):
A = sum over images and positions of h h^T / (n P), which is expand's. A column of D is P times the
gradient of its image's own loss by u at that position, since the loss is a mean over n and not over
n P. So B = D D^T / (n P) is P times expand's (1/n) sum d d^T, and P^2 times KFC's Gamma. To run
K-FAC in the units of expand, multiply rho_B and the learning rate by P (for e_B = 1). P does not
grow with the width: no exponent depends on it.

One-hot inputs are never formed, one column for each of the N words. Words that repeat share a
column of length sqrt(count), and their cotangents are added up, so H and D have a column for each
distinct word; G and A are the same. B is a sum over all N, and gets them as ``fisher``.

Not covered, and refused by name: groups; padding_idx, max_norm, scale_grad_by_freq and sparse
gradients of embeddings; bags with offsets, weights or the maximum; every other kind of layer. Not
covered either: the "reduce" setting, which averages patches before it takes the second moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaling.sizes.errors import InvalidInput

Layered: TypeAlias = nn.Linear | nn.Conv2d | nn.Embedding | nn.EmbeddingBag

KINDS = "Linear, Conv2d or Embedding(Bag)"


class ScaledEmbedding(nn.Embedding):
    """An embedding with a multiplier at its one-hot input, as parametrizations with a != 0 have it.

    u = w (multiplier onehot(word)): the gradient and A hold the multiplier, B does not.

    >>> import torch
    >>> layer = ScaledEmbedding(4, 3, multiplier=0.5)
    >>> torch.equal(layer(torch.tensor(2)), 0.5 * layer.weight[2])
    True
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        multiplier: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, device=device, dtype=dtype)
        self.multiplier = multiplier

    def forward(self, input: Tensor) -> Tensor:
        """Embeddings (..., width) of word ids (...)."""
        return self.multiplier * super().forward(input)


@dataclass(frozen=True, eq=False)
class SampleColumns:
    """H (fan_in, k), D (fan_out, k) and, where k < N, all N cotangents, (fan_out, N)."""

    H: Tensor
    D: Tensor
    cotangents: Tensor | None = None


def columns(module: Layered, inputs: list[Tensor], gradients: list[Tensor]) -> SampleColumns:
    """The samples of a layer's weight, from inputs as the layer got them and d loss / d u.

    ``gradients`` are rows, see `cotangents`.
    """
    d = torch.cat(gradients)
    if isinstance(module, nn.Embedding):
        return _words(module, torch.cat([x.reshape(-1) for x in inputs]), d)
    h = torch.cat([_rows(module, x, d) for x in inputs])
    return SampleColumns(h.T, len(d) * d.T)


def cotangents(module: Layered, gradient: Tensor) -> Tensor:
    """The gradient by a layer's output as rows, (N, fan_out), in the order of its inputs."""
    if isinstance(module, nn.Conv2d):
        gradient = gradient.movedim(-3, -1)
    return gradient.reshape(-1, gradient.shape[-1])


def as_matrix(module: Layered, tensor: Tensor) -> Tensor:
    """A parameter, or its gradient, as a view of shape (fan_out, fan_in); a bias is a column.

    >>> import torch
    >>> from torch import nn
    >>> as_matrix(nn.Conv2d(2, 5, 3), torch.zeros(5, 2, 3, 3)).shape
    torch.Size([5, 18])
    >>> as_matrix(nn.Embedding(7, 5), torch.zeros(7, 5)).shape
    torch.Size([5, 7])
    """
    if tensor.ndim == 1:
        return tensor[:, None]
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return tensor.T
    return tensor.view(len(tensor), -1)


def refuse_shared(model: nn.Module) -> None:
    """Refuse a trainable parameter of two layers: its gradient is not D H^T of either."""
    owners: dict[nn.Parameter, str] = {}
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, Layered)]
    for name, layer in layers:
        for parameter in layer.parameters(recurse=False):
            owner = owners.setdefault(parameter, name)
            if parameter.requires_grad and owner != name:
                raise InvalidInput(
                    f"a parameter shared by '{owner}' and '{name}'",
                    "a weight of its own for every layer",
                    "use one module twice instead of sharing its weight",
                )


def refuse_unless_covered(name: str, module: nn.Module) -> Layered:
    """The module, if its weight is a matrix acting on samples. Raises `InvalidInput`."""
    if not isinstance(module, Layered):
        raise InvalidInput(
            f"trainable parameters of '{name or 'the model itself'}' ({type(module).__name__})",
            f"a model whose trainable parameters all belong to {KINDS} layers",
            "freeze them with requires_grad_(False), or replace the module",
        )
    for option, usual in _USUAL.get(_kind(module), {}).items():
        value = getattr(module, option)
        if value != usual:
            raise InvalidInput(
                f"{option}={value} in '{name}' ({type(module).__name__})",
                f"{option}={usual}: the gradient is that of one matrix acting on every sample",
                f"build the layer without {option}, or freeze it with requires_grad_(False)",
            )
    return module


_LOOKUP: dict[str, object] = {
    "padding_idx": None,
    "max_norm": None,
    "scale_grad_by_freq": False,
    "sparse": False,
}
_USUAL: dict[type[nn.Module], dict[str, object]] = {
    nn.Conv2d: {"groups": 1},
    nn.Embedding: _LOOKUP,
    nn.EmbeddingBag: _LOOKUP,
}


def _kind(module: nn.Module) -> type[nn.Module]:
    return next((kind for kind in _USUAL if isinstance(module, kind)), nn.Linear)


def source(
    name: str, module: Layered, args: Sequence[object], kwargs: Mapping[str, object]
) -> Tensor:
    """The input among the arguments that a layer was called with. Raises `InvalidInput`."""
    x = args[0] if args else kwargs["input"]
    assert isinstance(x, Tensor)
    if isinstance(module, nn.EmbeddingBag):
        others = (*args[1:], *(v for k, v in kwargs.items() if k != "input"))
        if x.ndim != 2 or module.mode == "max" or any(y is not None for y in others):
            raise InvalidInput(
                f"a call of '{name}' (EmbeddingBag, {module.mode}) on ids of shape "
                f"{tuple(x.shape)} and {sum(y is not None for y in others)} more arguments",
                "ids of shape (bags, words) alone, of which the mean or the sum is taken",
                "pad no bags, and pass neither offsets nor per_sample_weights",
            )
    return x


def _rows(module: nn.Linear | nn.Conv2d | nn.EmbeddingBag, x: Tensor, like: Tensor) -> Tensor:
    if isinstance(module, nn.EmbeddingBag):
        share = like.new_full(x.shape, 1 / x.shape[1] if module.mode == "mean" else 1.0)
        return like.new_zeros(len(x), module.num_embeddings).scatter_add_(1, x, share)
    if isinstance(module, nn.Conv2d):
        patches = _patches(module, x)  # (..., fan_in, P)
        return patches.mT.reshape(-1, patches.shape[-2])
    return x.reshape(-1, x.shape[-1])


def _patches(module: nn.Conv2d, x: Tensor) -> Tensor:
    """Each position's patch, in the order of the weights' view(out, -1): channel, row, column."""
    sides: list[int] = []  # from the last axis to the first, as functional.pad takes them
    for axis in (1, 0):
        match module.padding:
            case "valid":
                before = after = 0
            case "same":
                total = module.dilation[axis] * (module.kernel_size[axis] - 1)
                before, after = total // 2, total - total // 2
            case padding:
                before = after = int(padding[axis])
        sides += [before, after]
    if any(sides):
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        x = functional.pad(x, sides, mode=mode)
    return functional.unfold(x, module.kernel_size, module.dilation, stride=module.stride)


def _words(module: nn.Embedding, ids: Tensor, d: Tensor) -> SampleColumns:
    words, place, counts = torch.unique(ids, return_inverse=True, return_counts=True)
    n, k = len(ids), len(words)
    # Columns of length sqrt(k count / n), so that D H^T / k and H H^T / k are sums over n words / n
    length = (counts.to(d.dtype) * (k / n)).sqrt()
    multiplier = module.multiplier if isinstance(module, ScaledEmbedding) else 1.0
    h = d.new_zeros(module.num_embeddings, k)
    h[words, torch.arange(k, device=h.device)] = multiplier * length
    sums = d.new_zeros(k, d.shape[1]).index_add_(0, place, d)
    return SampleColumns(h, (k / length[:, None] * sums).T, n * d.T if k < n else None)
