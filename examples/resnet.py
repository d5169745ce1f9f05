"""A residual network with batch norms on the digits of scikit-learn, by Adam.

scaling derive adam --model examples/resnet.py
python examples/tune_small_train_large.py examples/resnet.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

DIGITS = load_digits()
IMAGES = torch.tensor(DIGITS.images, dtype=torch.float32)[:, None] / 8 - 1
LABELS = torch.tensor(DIGITS.target)
ORDER = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(0))
PARTS = ORDER[256:], ORDER[:256]

RECIPE, TUNED = "adam", {"eps": 1e-8}
SMALL = {"base": {"width": 4, "depth": 2}, "steps": 6, "rates": (-6, -5, -4), "seeds": 1}
DESK = {
    "base": {"width": 8, "depth": 2},
    "steps": 30,
    "rates": (-8, -7, -6, -5, -4, -3),
    "seeds": 4,
}


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.one, self.two = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.norm, self.again = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x):
        return x + self.two(self.again(self.one(self.norm(x).relu())).relu())


class ResNet(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.norm, self.head = nn.BatchNorm2d(width), nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.stem(x))).relu().mean((2, 3)))


def build(width=8, depth=2):
    return ResNet(width, depth)


def batch(seed=0):
    """Seeds 0 to 7 are held out: they draw from the last 256 digits."""
    part = PARTS[seed < 8]
    chosen = part[torch.randint(len(part), (32,), generator=torch.Generator().manual_seed(seed))]
    return IMAGES[chosen], LABELS[chosen]


def optimizer(model, groups=None):
    return torch.optim.Adam(groups or model.parameters(), lr=2**-7)
