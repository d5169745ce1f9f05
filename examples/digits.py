"""A perceptron on the digits of scikit-learn, by gradient descent on the squared error.

    scaling tune sgd --model examples/digits.py --axis width=32 --at width=512 --strategy all

What docs/tuning.md measures; ``tasks`` names the digit of each sample, for strategies that weight
tasks. With ``--data-root DIR`` the same on CIFAR-10, of the folder DIR/cifar-10-batches-py.
"""

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import nn

from empirical.data.image_files import FOLDERS


@cache
def samples(data_root=None):
    """Inputs from -1 to 1, labels as rows, and the order in which they are divided."""
    if data_root is None:
        digits = load_digits()
        pixels, numbers, most = digits.data, digits.target, 16
    else:
        pixels, numbers = FOLDERS["cifar10"].read(data_root)
        most = 255
    inputs = torch.tensor(pixels.reshape(len(pixels), -1), dtype=torch.float32) / (most / 2) - 1
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    return inputs, nn.functional.one_hot(torch.tensor(numbers), 10).float(), order


def build(width=32, data_root=None):
    inputs, _, _ = samples(data_root)
    return nn.Sequential(
        nn.Linear(inputs.shape[1], width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, 10),
    )  # fmt: skip


def batch(seed=0, data_root=None):
    """Seeds 0 to 7 are held out: they draw from 256 samples that no other seed draws from."""
    inputs, labels, order = samples(data_root)
    part = order[:256] if seed < 8 else order[256:]
    chosen = part[torch.randint(len(part), (64,), generator=torch.Generator().manual_seed(seed))]
    return inputs[chosen], labels[chosen]


def tasks(inputs, targets):
    return targets.argmax(1)


def optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)
