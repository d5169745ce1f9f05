"""Networks of growing width, with an explicit multiplier at every weight: MLP, CNN, ResNet, CBOW.

All of them have ``hidden(x)``, the list of features layer by layer with the output f as the last,
and weights that are NaN until they are drawn.
"""

from empirical.networks.dense import MLP
from empirical.networks.images import CNN, ResNet
from empirical.networks.parts import Activation
from empirical.networks.words import CBOW

__all__ = ["CBOW", "CNN", "MLP", "Activation", "ResNet"]
