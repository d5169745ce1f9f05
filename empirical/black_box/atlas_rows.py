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
    """One optimizer: ``module:Class``, its keywords, and the rule for it.

    ``widths``: where others than those of the atlas are needed.
    """

    place: str
    rule: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    constants: tuple[str, ...] = ()
    remark: str = ""
    widths: tuple[int, ...] = ()


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
_ASDL_EKFAC = (
    "it is gradient descent: this release (0.1a5) overrides methods that nothing calls, so that "
    "the gradient is never divided"
)
_ASDL_DIAGONAL = (
    "a crossover: the damping 1e-7 is felt in part; and where few samples reach an entry, what is "
    "divided goes like 1/x, whose mean square rests on a few entries; with damping = 100 (a row of "
    "its own) it is drowned, as derived"
)
_ASDL_SHAMPOO = (
    "its powers are found by iterations to 1e-6, and it leaves its damping in the sums, so that "
    "the second step is another than the rule's; the first is the rule's to 1e-7"
)
_FEW_SAMPLES = (
    "16 samples span a part of 32 to 256 directions that is not small: the least eigenvalues of "
    "the factors rise with the width, and where the damping is felt there is a crossover as well; "
    "at widths 256 to 1024 and a damping that is not felt (a row of its own) the exponents are "
    "those as written"
)
_BETWEEN = (
    "a crossover to the exponents with this constant: the damping 1e-3 is below the eigenvalues of "
    "A and meets those of B, which fall as 1/M"
)
_ABOVE = (
    "the damping is above the eigenvalues of both factors at these widths, where it is gradient "
    "descent; those of A, which grow as M, pass it at a width of about 10^4"
)
_MSAM = (
    "a step goes 0.1/|U|*U beyond lr*U, and weights are where it leads: with sam_step_size = 0 (a "
    "row of its own) the exponents are those as written"
)
_PSGD = (
    "the factors are fitted by a step of their own at each step, on random vectors: at first they "
    "are multiples of the identity of a size taken from the gradient, and the step is this rule's; "
    "what they tend to is (L + rho*I)**(-1/4) @ G @ (R + rho*I)**(-1/4)"
)
_AS_PSGD = "as PSGDKron"
_PSGD_UNIT = "from the identity, the first steps are gradient descent: the factors have not moved"
_QSGD = "as PSGDPRO, with one factor in the place of its square"
_KL_FACTORS = (
    "in the eigenbases of KL-Shampoo's factors, which are those of Shampoo's but for the weights "
    "of their directions"
)
_HB_SHAMPOO = (
    "its factors start at 0.1*I, which what is added to them meets: a crossover from gradient "
    "descent, which it is with init_factor = 1e6 (a row of its own); and they are whitened by each "
    "other, so that steps turn for longer than the probe looks, and step 5 on the way is measured"
)
_LATHER = (
    "Adam in coordinates of PSGD's factors, on random vectors: steps turn for longer than the "
    "probe looks, and step 7 on the way is measured"
)
_SUDS = (
    "Adam after a reflection of all entries of a matrix, as one vector, that takes its gradient to "
    "one coordinate: with one gradient the update is that coordinate, a multiple of the gradient "
    "of fixed length"
)
_UNSCALED = "divided by the root of its second moment and multiplied by it again: momentum"
_SIGN_GRAFT = "the sign of the update, of the update's own length"
_DROWNED = "the damping drowns the factors, as derived with this constant"
_LAPROP = "debiased(G/(sqrt(debiased(G*G, beta2)) + eps), beta1)"
_SCALED = "X/(sqrt(debiased(X*X, beta2)) + eps)"
_ACROSS = "X = G - inner(W, G)/norm(W)**2*W"
_LAPROP_ACROSS = f"norm(U)/norm(X)*X where U = {_LAPROP}, X = U - inner(W, U)/norm(W)**2*W"
_IN_FLOAT64 = {"storage_dtype": "float64", "q_dtype": "float64"}
_BOTH, _WIDER = ("rho_A", "rho_B"), (256, 512, 1024)


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
    *_rows(
        "heavyball",
        ("SGD", "momentum"),
        ("AdamW", "adam_debiased", {}, _EPS),
        ("AdamC", "adam_debiased", {}, _EPS),
        ("NAdam", "nadam", {}, _EPS),
        ("RMSprop", "rmsprop", {}, _EPS),
        ("ADOPT", "adopt", {}, _EPS),
        ("AdEMAMix", "ademamix", {}, _EPS),
        ("LaProp", "laprop", {}, _EPS),
        ("SignLaProp", "sign", {}, (), _SIGN_GRAFT),
        ("OrthoLaProp", f"debiased({_SCALED}, beta1) where {_ACROSS}", {}, _EPS),
        ("LaPropOrtho", _LAPROP_ACROSS, {}, _EPS),
        ("MuonLaProp", f"sqrt(max(1, fan_out/fan_in))*orth({_LAPROP})", {}, _EPS),
        ("HyperBallAdamW", "adam_hyperball", {}, _EPS),
        ("UnscaledAdamW", "momentum", {}, (), _UNSCALED),
        ("SFAdamW", "adam_debiased", {}, _EPS),
        ("MSAMLaProp", "adam_debiased", {}, _EPS, _MSAM),
        ("MSAMLaProp", "adam_debiased", {"sam_step_size": 0.0}, _EPS),
        ("Muon", "muon_max"),
        ("MuonAdamW", "muon_max"),
        ("Scion", "scion_spectral"),
        ("SOAP", "soap", {}, _EPS),
        ("SOAPNAdam", "soap", {}, _EPS),
        ("SOAPAdEMAMix", "soap", {}, _EPS),
        ("SOLP", "soap", {}, _EPS),
        ("KLSOAP", "soap", {}, _EPS, _KL_FACTORS),
        ("KLShampoo", "kl_shampoo", {"storage_dtype": "float64"}, (), _HB_SHAMPOO),
        ("KLShampoo", "sgd", {"storage_dtype": "float64", "init_factor": 1e6}),
        ("SUDSAdamW", "normalized_sgd", {}, (), _SUDS),
        ("PSGDKron", "G/sqrt(rms(G))", _IN_FLOAT64, (), _PSGD),
        ("PSGDKron", "sgd", {**_IN_FLOAT64, "precond_init_scale": 1.0}, (), _PSGD_UNIT),
        ("PSGDPRO", "G/sqrt(rms(G))", _IN_FLOAT64, (), _AS_PSGD),
        ("PSGDLRA", "G/sqrt(rms(G))", _IN_FLOAT64, (), _AS_PSGD),
        ("QSGD", "G/rms(G)**(1/4)", _IN_FLOAT64, (), _QSGD),
        ("LATHER", "adam", _IN_FLOAT64, (), _LATHER),
    ),
    *_rows(
        "empirical.black_box.through_asdl",
        ("AsdlKfac", "kfac_pi", {}, ("rho",), _FEW_SAMPLES),
        ("AsdlKfac", "kfac_pi", {"damping": 1e-12}, ("rho",), "", _WIDER),
        ("AsdlEkfac", "sgd", {}, (), _ASDL_EKFAC),
        ("AsdlDiagonal", "G/(sample_square(G) + rho)", {}, ("rho",), _ASDL_DIAGONAL),
        ("AsdlDiagonal", "G/(sample_square(G) + rho)", {"damping": 100.0}, ("rho",), _DROWNED),
        ("AsdlShampoo", "shampoo_relative", {}, (), _ASDL_SHAMPOO),
    ),
    *_rows(
        "empirical.black_box.through_curvlinops",
        ("CurvlinopsKfac", "kfac", {}, _BOTH, _BETWEEN),
        ("CurvlinopsKfac", "kfac", {"damping": 1e4}, _BOTH, _ABOVE),
        ("CurvlinopsKfacSplit", "kfac_pi", {}, ("rho",), _FEW_SAMPLES),
        ("CurvlinopsKfacSplit", "kfac_pi", {"damping": 1e-12}, ("rho",), "", _WIDER),
    ),
)
