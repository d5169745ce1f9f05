"""The tour: the rules of the catalogue that the long sweeps of `make test` go through.

A sweep that takes a second a rule (nodes measured at growing widths, derivations in every format,
the abc symmetry in numbers) runs over `tour()`: the first fifty declarations, which have every
operator and every inference between them. What is cheap runs over the whole `catalogue()`: every
rule is parsed, written, derived, taken a step with and, where it names a library, held against it.

`make catalogue` (WHOLE_CATALOGUE=1) runs the sweeps over all of it.
"""

import os
from collections.abc import Mapping

from derivations.catalogue import catalogue
from derivations.declaration import Optimizer

# fmt: off
TOUR = (
    "sign", "lion", "adam", "adam_debiased", "adamw", "adam_atan2", "rmsprop", "adagrad", "sophia",
    "adafactor", "adafactor_relative",
    "sgd", "momentum", "nesterov", "sgd_penalised", "momentum_penalised", "sgdw",
    "h_fac",
    "kfac", "foof", "kfac_right_only", "kfac_left_only", "kfac_relative", "kfac_trace", "kfac_mean",
    "kfac_pi", "kfac_clipped", "gauss_newton",
    "lars", "lamb",
    "muon", "muon_spectral", "muon_max", "muon_rms", "muon_momentum", "muon_ns", "muon_rms_decay",
    "normalized_sgd", "spectral_sgd", "clipped_sgd",
    "soap", "soap_one_sided", "ekfac",
    "shampoo", "shampoo_blocked", "shampoo_grafted", "shampoo_grafted_adam", "shampoo_relative",
    "kl_shampoo", "one_sided_shampoo",
    "sam",
)
# fmt: on

KINDS = (
    "lion", "adamw", "adafactor_relative", "momentum", "h_fac", "kfac", "kfac_pi", "kfac_clipped",
    "lamb", "muon_rms_decay", "soap_one_sided", "ekfac", "shampoo_grafted_adam", "kl_shampoo",
    "sam", "adam_atan2", "sophia", "spectral_sgd", "muon_ns", "shampoo_blocked",
)  # fmt: skip


def kinds() -> Mapping[str, Optimizer]:
    """One rule of every kind, with every function of the tour, for sweeps that cost seconds a rule.

    All rules where `tour` has all.
    """
    return tour() if os.environ.get("WHOLE_CATALOGUE") else {name: tour()[name] for name in KINDS}


def tour() -> Mapping[str, Optimizer]:
    """The rules of the tour by name; all of the catalogue where WHOLE_CATALOGUE is set."""
    whole = catalogue()
    return whole if os.environ.get("WHOLE_CATALOGUE") else {name: whole[name] for name in TOUR}
