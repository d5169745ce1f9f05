"""The optimizers of the atlas: classes of libraries, and the rule that each is held against.

A rule is a name of the catalogue or text. ``constants`` are dampings that the class leaves as they
are while the width grows: the rule is derived a second time with d = 0 for them. ``remark``
explains what a measurement and both derivations part by, or what the rule leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class AtlasRow:
    """One optimizer: ``module:Class``, its keywords, and the rule for it."""

    place: str
    rule: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    constants: tuple[str, ...] = ()
    remark: str = ""


_TORCH_FACTORED = (
    "max(eps, rms(W))*U/max(1, rms(U)) where V = debiased(row_mean(G*G), beta2) @ "
    "debiased(col_mean(G*G), beta2)/debiased(rms(G)**2, beta2), U = G/sqrt(V)"
)
_EPS = ("eps",)


def _rows(module: str, *rows: tuple[Any, ...]) -> tuple[AtlasRow, ...]:
    return tuple(AtlasRow(f"{module}:{name}", *rest) for name, *rest in rows)


ROWS: tuple[AtlasRow, ...] = (
    *_rows(
        "torch.optim",
        ("SGD", "sgd"),
        ("ASGD", "sgd"),
        ("Adam", "adam_debiased", {}, _EPS),
        ("AdamW", "adam_debiased", {}, _EPS),
        ("NAdam", "nadam", {}, _EPS),
        ("RAdam", "radam", {}, _EPS),
        ("Adamax", "adamax", {}, _EPS),
        ("Adagrad", "adagrad", {}, _EPS),
        ("Adadelta", "adadelta", {}, _EPS),
        ("RMSprop", "rmsprop", {}, _EPS),
        ("Rprop", "sign"),
        ("Muon", "muon_max"),
        ("Adafactor", _TORCH_FACTORED, {}, _EPS),
        ("LBFGS", "lbfgs_first", {"max_iter": 1}),
    ),
    *_rows("lion_pytorch", ("Lion", "lion")),
    *_rows("adabelief_pytorch", ("AdaBelief", "adabelief", {"rectify": False}, _EPS)),
    *_rows("prodigyopt", ("Prodigy", "adam_debiased", {}, _EPS)),
    *_rows(
        "schedulefree",
        ("AdamWScheduleFree", "adam_debiased", {}, _EPS),
        ("SGDScheduleFree", "sgd"),
    ),
    *_rows(
        "pytorch_optimizer",
        ("AdaBelief", "adabelief", {}, _EPS),
        ("AdaBound", "adam_debiased", {}, _EPS),
        ("AdaFactor", "adafactor_relative", {}, _EPS),
        ("AdaMax", "adamax", {}, _EPS),
        ("AdaMod", "adam_debiased", {}, _EPS),
        ("Adan", "adam_debiased", {}, _EPS),
        ("AdaNorm", "adam_debiased", {}, _EPS),
        ("AdaShift", "adam_scalar", {}, _EPS),
        ("AdamP", "adamp", {}, _EPS),
        ("AdEMAMix", "ademamix", {}, _EPS),
        ("ADOPT", "adam_debiased", {}, _EPS),
        ("AggMo", "aggmo"),
        ("Aida", "adabelief", {}, _EPS),
        ("Amos", "amos", {}, _EPS),
        ("Ano", "ano", {}, _EPS),
        ("AvaGrad", "adam_debiased", {}, _EPS),
        ("CAME", "came", {}, _EPS),
        ("Conda", "conda", {}, _EPS),
        ("DiffGrad", "adam_debiased", {}, _EPS),
        ("EXAdam", "adam_debiased", {}, _EPS),
        ("FAdam", "adam_debiased", {}, _EPS),
        ("Fromage", "fromage"),
        ("Grams", "grams", {}, _EPS),
        ("GrokFastAdamW", "adam_debiased", {}, _EPS),
        ("Kate", "adagrad", {}, _EPS),
        ("LaProp", "laprop", {}, _EPS),
        ("LARS", "lars", {}, _EPS),
        ("Lamb", "lamb", {}, _EPS),
        ("Lion", "lion"),
        ("MADGRAD", "madgrad", {}, _EPS),
        ("MARS", "adam_debiased", {}, _EPS),
        ("MSVAG", "msvag"),
        ("Nero", "nero", {}, _EPS),
        ("NovoGrad", "novograd", {}, _EPS),
        ("PAdam", "ema(G, beta1) / sqrt(sqrt(ema(G*G, beta2)) + eps)", {}, _EPS),
        ("PID", "momentum"),
        ("PNM", "momentum"),
        ("QHAdam", "qhadam", {}, _EPS),
        ("QHM", "qhm"),
        ("RACS", "racs", {}, _EPS),
        ("Ranger", "adam_centred", {}, _EPS),
        ("SCION", "scion_spectral"),
        ("SGDP", "sgdp"),
        ("SGDW", "sgd"),
        ("SGDSaI", "sgd"),
        ("SM3", "adagrad"),
        ("SOAP", "soap", {}, _EPS),
        ("SPAM", "adam_debiased", {}, _EPS),
        ("SPlus", "splus"),
        ("SRMM", "sgd"),
        ("Shampoo", "shampoo"),
        ("SignSGD", "signum"),
        ("SimplifiedAdEMAMix", "adam", {}, _EPS),
        ("StableAdamW", "stable_adamw", {}, _EPS),
        ("TAM", "momentum"),
        ("Tiger", "tiger"),
        ("Yogi", "yogi", {}, _EPS),
    ),
    *_rows(
        "torch_optimizer",
        ("AccSGD", "sgd"),
        ("AdaMod", "adam_debiased", {}, _EPS),
        ("AggMo", "aggmo"),
        ("DiffGrad", "adam_debiased", {}, _EPS),
        ("Lamb", "lamb", {}, _EPS),
        ("NovoGrad", "novograd", {}, _EPS),
        ("QHAdam", "qhadam", {}, _EPS),
        ("QHM", "qhm", {"momentum": 0.9, "nu": 0.7}),
        ("SGDP", "sgdp"),
        ("SGDW", "sgd"),
        ("Shampoo", "shampoo"),
        ("Yogi", "yogi", {}, _EPS),
    ),
)
