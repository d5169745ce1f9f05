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
_YOGI = "eps = 1e-3 drowns the second moment, as derived with this constant"
_LAMB_CUT = (
    "min(10, norm(W))/norm(U)*U where U = debiased(G, beta1)/(sqrt(debiased(G*G, beta2)) + eps)"
)
_ADADELTA = (
    "a crossover: entries of the gradient pass sqrt(eps) = 1e-3 at these widths; with eps = 1e-2 "
    "(a row of its own) the exponents are those derived, with 1e-14 those of signs, since the "
    "constant sqrt(eps) is then a factor of every step"
)
_AIDA = (
    "a crossover: eps = 1e-8 is added to a second moment that projections onto the average have "
    "made small; with eps = 1e-16 (a row of its own) the exponents are those as written"
)
_AMOS = (
    "relative to the scale that it supposes of weights, fan_in^(-1/2), and not to their own, as "
    "the rule of the paper and of the catalogue"
)
_AVAGRAD = "eps = 0.1 drowns the second moment; with eps = 1e-12 (a row of its own) it is Adam"
_CONDA = (
    "it rotates the smaller side, which in the input layer is the right one: entries of a row of "
    "the gradient, c = 0; the rule rotates the left side in every layer"
)
_KATE = (
    "its first steps go like 1/G where G is small, so that a few entries near zeros set their "
    "size; such a rule is refused by name"
)
_NERO = (
    "each step moves the weights to rows of mean zero and norm one first, and a probe puts the "
    "old weights back; without these constraints (a row of its own) the exponents are Nero's"
)
_RACS = (
    "the mean squares of columns start at one, so that at first a step is divided by those of "
    "rows alone, which has the same exponents"
)
_RANGER = (
    "a crossover: eps = 1e-5 is felt at these widths; with eps = 1e-12 (a row of its own) the "
    "exponents are those as written"
)
_SAI = (
    "gradient descent times a signal-to-noise ratio at the start, |G| over the standard deviation "
    "of its entries, which grows like the root of their number"
)
_SPLUS = (
    "off the corner where the data are, the rotated gradient is rounding noise, whose signs are "
    "+-1 in the library and 0 in the rule: the input and hidden layers move more, by M^(1/2)"
)
_SRMM = (
    "the average of weights that a step goes from starts at zero, so that a step of input and "
    "hidden layers is a multiple of the weights; averages of weights are outside of the language"
)
_CUT = "min(10, norm(W))/norm(U)*U where U = debiased(G, beta1)/(sqrt(debiased(G*G, beta2)) + eps)"
_ADADELTA = (
    "a crossover: entries of the gradient pass sqrt(eps) = 1e-3 at these widths; with eps = 1e-2 "
    "(a row of its own) the exponents are those derived, with 1e-14 those of signs, since the "
    "constant sqrt(eps) is then a factor of every step"
)
_AIDA = (
    "a crossover: eps = 1e-8 is added to a second moment that projections onto the average have "
    "made small; with eps = 1e-16 (a row of its own) the exponents are those as written"
)
_AMOS = (
    "relative to the scale that it supposes of weights, fan_in^(-1/2), and not to their own, as "
    "the rule of the paper and of the catalogue"
)
_AVAGRAD = "eps = 0.1 drowns the second moment; with eps = 1e-12 (a row of its own) it is Adam"
_CONDA = (
    "it rotates the smaller side, which in the input layer is the right one: entries of a row of "
    "the gradient, c = 0; the rule rotates the left side in every layer"
)
_KATE = (
    "its first steps go like 1/G where G is small, so that a few entries near zeros set their "
    "size; such a rule is refused by name"
)
_NERO = (
    "each step moves the weights to rows of mean zero and norm one first, and a probe puts the "
    "old weights back; without these constraints (a row of its own) the exponents are Nero's"
)
_RACS = (
    "the mean squares of columns start at one, so that at first a step is divided by those of "
    "rows alone, which has the same exponents"
)
_RANGER = (
    "a crossover: eps = 1e-5 is felt at these widths; with eps = 1e-12 (a row of its own) the "
    "exponents are those as written"
)
_SAI = (
    "gradient descent times a signal-to-noise ratio at the start, |G| over the standard deviation "
    "of its entries, which grows like the root of their number"
)
_SPLUS = (
    "off the corner where the data are, the rotated gradient is rounding noise, whose signs are "
    "+-1 in the library and 0 in the rule: the input and hidden layers move more, by M^(1/2)"
)
_SRMM = (
    "the average of weights that a step goes from starts at zero, so that a step of input and "
    "hidden layers is a multiple of the weights; averages of weights are outside of the language"
)


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
        ("Adagrad", "adagrad_sum", {}, _EPS),
        (
            "Adadelta",
            "adadelta",
            {},
            _EPS,
            _ADADELTA,
        ),
        ("Adadelta", "adadelta", {"eps": 1e-2}, _EPS),
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
        ("Adan", "adan", {}, _EPS),
        ("AdaNorm", "adam_debiased", {}, _EPS),
        ("AdaShift", "adam_scalar", {}, _EPS),
        ("AdamP", "adamp", {}, _EPS),
        ("AdEMAMix", "ademamix", {}, _EPS),
        ("ADOPT", "adopt", {}, _EPS),
        ("AggMo", "aggmo"),
        (
            "Aida",
            "adabelief",
            {},
            _EPS,
            _AIDA,
        ),
        ("Aida", "adabelief", {"eps": 1e-16}, _EPS),
        (
            "Amos",
            "fan_in**(-1/2)*G/(sqrt(debiased(mean(G*G), beta)) + eps)",
            {},
            _EPS,
            _AMOS,
        ),
        ("Ano", "ano", {}, _EPS),
        (
            "AvaGrad",
            "adam_debiased",
            {},
            _EPS,
            _AVAGRAD,
        ),
        ("AvaGrad", "adam_debiased", {"eps": 1e-12}, _EPS),
        ("CAME", "came", {}, _EPS),
        (
            "Conda",
            "conda",
            {},
            _EPS,
            _CONDA,
        ),
        ("DiffGrad", "adam_debiased", {}, _EPS),
        ("EXAdam", "adam_debiased", {}, _EPS),
        ("FAdam", "adam_debiased", {}, _EPS),
        ("Fromage", "fromage"),
        ("Grams", "grams", {}, _EPS),
        ("GrokFastAdamW", "adam_debiased", {}, _EPS),
        (
            "Kate",
            "G/(G*G)",
            {},
            (),
            _KATE,
        ),
        ("LaProp", "laprop", {}, _EPS),
        ("LARS", "lars", {}, _EPS),
        ("Lamb", _LAMB_CUT, {}, (), _CUT),
        ("Lion", "lion"),
        ("MADGRAD", "madgrad", {}, _EPS),
        ("MARS", "mars", {}, _EPS),
        ("MSVAG", "msvag"),
        (
            "Nero",
            "nero",
            {},
            _EPS,
            _NERO,
        ),
        ("Nero", "nero", {"constraints": False}, _EPS),
        ("NovoGrad", "novograd", {}, _EPS),
        ("PAdam", "ema(G, beta1) / sqrt(sqrt(ema(G*G, beta2)) + eps)", {}, _EPS),
        ("PID", "momentum"),
        ("PNM", "momentum"),
        ("QHAdam", "qhadam", {}, _EPS),
        ("QHM", "qhm"),
        (
            "RACS",
            "racs",
            {},
            _EPS,
            _RACS,
        ),
        (
            "Ranger",
            "adam_centred",
            {},
            _EPS,
            _RANGER,
        ),
        ("Ranger", "adam_centred", {"eps": 1e-12}, _EPS),
        ("SCION", "scion_spectral"),
        ("SGDP", "sgdp"),
        ("SGDW", "sgd"),
        (
            "SGDSaI",
            "norm(G)/rms(G)*G",
            {},
            (),
            _SAI,
        ),
        ("SM3", "adagrad"),
        ("SOAP", "soap", {}, _EPS),
        ("SPAM", "adam_debiased", {}, _EPS),
        (
            "SPlus",
            "2/(fan_in + fan_out)*(eig(L) @ sign(eig(L).T @ G @ eig(R)) @ eig(R).T)",
            {},
            (),
            _SPLUS,
        ),
        (
            "SRMM",
            "sgd",
            {},
            (),
            _SRMM,
        ),
        ("Shampoo", "shampoo"),
        ("SignSGD", "signum"),
        ("SimplifiedAdEMAMix", "adam", {}, _EPS),
        ("StableAdamW", "stable_adamw", {}, _EPS),
        ("TAM", "momentum"),
        ("Tiger", "tiger"),
        ("Yogi", "yogi", {}, _EPS, _YOGI),
    ),
    *_rows(
        "torch_optimizer",
        ("AccSGD", "sgd"),
        ("AdaMod", "adam_debiased", {}, _EPS),
        ("AggMo", "aggmo"),
        ("DiffGrad", "adam_debiased", {}, _EPS),
        ("Lamb", _LAMB_CUT, {}, (), _CUT),
        ("Lamb", "lamb", {"clamp_value": 1e9}, _EPS),
        ("NovoGrad", "novograd", {}, _EPS),
        ("QHAdam", "qhadam", {}, _EPS),
        ("QHM", "qhm", {"momentum": 0.9, "nu": 0.7}),
        ("SGDP", "sgdp"),
        ("SGDW", "sgd"),
        ("Shampoo", "shampoo"),
        ("Yogi", "yogi", {}, _EPS, _YOGI),
    ),
)
