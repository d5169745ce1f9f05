"""The continuous bag of words: predict a word from the mean of its neighbours' embeddings.

    h = m_1 mean_j W_1 onehot(x_j)        f = W_2 (m_2 h)

W_1 is an embedding, that is an input layer with one-hot inputs, stored transposed: (words, width).
The embedding dimension is the width, the vocabulary is fixed; there is no hidden layer. Every word
of a context is one sample of the first layer.

Reference: Mikolov et al., "Efficient Estimation of Word Representations in Vector Space", arXiv
1301.3781; as an experiment on width, arXiv 2312.12226.

Not covered: negative sampling, hierarchical softmax, weights shared by both layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from empirical.networks.building_blocks import (
    Nonlinearity,
    activation_named,
    blank,
    check_at_least,
    checked_multipliers,
)
from empirical.numbers.layer_samples import ScaledEmbedding


class CBOW(nn.Module):
    """``embedding`` (vocabulary, width) and ``head`` (vocabulary, width).

    ``multipliers`` holds one positive number for each. Inputs are word ids, (n, context).

    InvalidInput is raised on sizes below 1 and multipliers that do not fit.

    >>> import torch
    >>> network = CBOW(width=6, vocabulary=20)
    >>> network(torch.zeros(5, 4, dtype=torch.int64)).shape
    torch.Size([5, 20])
    """

    def __init__(
        self,
        width: int,
        vocabulary: int,
        activation: Nonlinearity | str = Nonlinearity.linear,
        bias: bool = False,
        multipliers: Sequence[float] | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        check_at_least(1, width=width, vocabulary=vocabulary)
        self.activation = activation_named(activation)
        self.multipliers = checked_multipliers(multipliers, 2)
        embedding = ScaledEmbedding(vocabulary, width, self.multipliers[0], device="meta")
        self.embedding = blank(embedding, dtype, device)
        self.head = blank(nn.Linear(width, vocabulary, bias=bias, device="meta"), dtype, device)

    def hidden(self, x: Tensor) -> list[Tensor]:
        """[h, f]: (n, width) and (n, vocabulary)."""
        h = self.activation(self.embedding(x).mean(dim=-2))
        return [h, self.head(self.multipliers[1] * h)]

    def forward(self, x: Tensor) -> Tensor:
        """The output f, (n, vocabulary), on word ids (n, context)."""
        return self.hidden(x)[-1]
