"""Networks of growing width, with an explicit multiplier at every weight: MLP, CNN, ResNet, CBOW.

All of them have ``hidden(x)``, the list of features layer by layer with the output f as the last,
and weights that are NaN until they are drawn.

    perceptron images words   the networks
    building_blocks           what they are made of
    stacked                   many of one shape, trained side by side
"""

from empirical.networks.building_blocks import Nonlinearity
from empirical.networks.images import CNN, ResNet
from empirical.networks.perceptron import MLP
from empirical.networks.words import CBOW

__all__ = ["CBOW", "CNN", "MLP", "Nonlinearity", "ResNet"]
