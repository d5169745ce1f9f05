"""A perceptron on the digits of scikit-learn, by gradient descent on the squared error.

    scaling tune sgd --model examples/digits.py --axis width=32 --at width=512 --strategy all

What docs/tuning.md measures; ``tasks`` names the digit of each sample, for strategies that weight
tasks.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

DIGITS = load_digits()
PIXELS = torch.tensor(DIGITS.data, dtype=torch.float32) / 8 - 1
LABELS = nn.functional.one_hot(torch.tensor(DIGITS.target)).float()
ORDER = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(0))
PARTS = ORDER[256:], ORDER[:256]


def build(width=32):
    return nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


def batch(seed=0):
    """Seeds 0 to 7 are held out: they draw from the last 256 digits."""
    part = PARTS[seed < 8]
    chosen = part[torch.randint(len(part), (64,), generator=torch.Generator().manual_seed(seed))]
    return PIXELS[chosen], LABELS[chosen]


def tasks(inputs, targets):
    return targets.argmax(1)


def optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)
