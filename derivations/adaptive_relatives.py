"""Relatives of Adam: another numerator, another denominator, another order of the two.

    NAdam, AdEMAMix, QHAdam    other averages of the gradient over sqrt(v)
    RAdam, AMSGrad, Yogi       Adam up to a number, with a maximum, by signs of differences
    Adan, MARS, ADOPT          the gradient of the step before
    AdaBelief                  v averages (G - m)^2
    LaProp                     the average of G / sqrt(v), where Adam divides the average
    Ano, Grams, Cautious       the sign of one of m, G and the size of the other, or both where
                               they agree
    StableAdamW, AdamP         cut off at an RMS of one; without its part along the weights
    PAdam, GradPower, MADGRAD  powers of v or of G
    Adam with an L2 penalty    the gradient of the loss and of the penalty, in both moments

Every one of them is a quotient of numbers that scale with the gradient, of degree zero but for
PAdam, MADGRAD and M-SVAG, and its entries are coherent with the layer's input: Adam's exponents, c
= 0, 1, 1, and an eps that follows the gradient. A power of v below 1/2 leaves a power of the
gradient's size, which shifts c from Adam's to SGD's.

Simplified: schedules of beta are at their constant values; MADGRAD and Adadelta are those of the
first step; AdamP projects always, where the code asks first whether the update is along the
weights; MARS's cut at a norm of one is left out.
"""

from fractions import Fraction

from derivations.declaration import Optimizer

_LR = {"lr": "weight: the change of every entry"}
_EPS = {"eps": "entry of the gradient"}
_DECAY = {"decay": "1 / lr: lr decay is the part of the weights that a step takes away"}
_BETAS = {"beta1": "decay per step", "beta2": "decay per step"}
_UNITS = {**_LR, **_EPS, **_BETAS}
_USUAL = {"beta1": 0.9, "beta2": 0.999}
_M, _V = "debiased(G, beta1)", "debiased(G*G, beta2)"
_ADAM = f"{_M} / (sqrt({_V}) + eps)"
OPTIMIZERS = (
    Optimizer(
        name="adam_penalised",
        update="debiased(X, beta1) / (sqrt(debiased(X*X, beta2)) + eps) where X = G + rho*W",
        about="Adam with an L2 penalty, a damping of the gradient",
        reference="arXiv 1711.05101, Algorithm 2",
        units={**_UNITS, "rho": "gradient per weight: the penalty is rho/2 times their squares"},
        values=_USUAL,
        library="torch.optim.Adam(weight_decay=0.1, eps=1e-3)",
    ),
    Optimizer(
        name="nadam",
        update=f"(beta1*{_M} + (1 - beta1)*G) / (sqrt({_V}) + eps)",
        about="NAdam: Adam with Nesterov's momentum, a constant beta1",
        reference="Dozat 2016",
        units=_UNITS,
        values=_USUAL,
    ),
    Optimizer(
        name="radam",
        update=f"rectified*{_ADAM}",
        about="RAdam from its sixth step on: Adam times a number",
        reference="arXiv 1908.03265, Algorithm 2",
        units={**_UNITS, "rectified": "a number of the step, between 0 and 1"},
        values={**_USUAL, "rectified": 0.1},
    ),
    Optimizer(
        name="radam_start",
        update=_M,
        about="RAdam in its first five steps: momentum",
        reference="arXiv 1908.03265, Algorithm 2",
        units={"lr": "weight per gradient", "beta1": "decay per step"},
        values={"beta1": 0.9},
        library="torch.optim.RAdam()",
    ),
    Optimizer(
        name="amsgrad",
        update="ema(G, beta1) / (sqrt(running_max(ema(G*G, beta2), 1)) + eps)",
        about="AMSGrad: the largest second moment so far",
        reference="arXiv 1904.09237",
        units=_UNITS,
        values=_USUAL,
    ),
    Optimizer(
        name="yogi",
        update=f"{_M} / (sqrt(yogi(G*G, beta2)) + eps)",
        about="Yogi: a second moment that moves by signs, from zero",
        reference="Zaheer et al. 2018",
        units=_UNITS,
        values=_USUAL,
    ),
    Optimizer(
        name="adamax",
        update=f"{_M} / running_max(abs(G) + eps, beta2)",
        about="Adamax: the largest gradient so far, fading",
        reference="arXiv 1412.6980, Alg. 2",
        units=_UNITS,
        values=_USUAL,
        library="torch.optim.Adamax(eps=1e-3)",
    ),
    Optimizer(
        name="adagrad_sum",
        update="G / (sqrt(running_sum(G*G)) + eps)",
        about="Adagrad: the sum of squares over all steps",
        reference="Duchi et al. 2011",
        units={**_LR, **_EPS},
        library="torch.optim.Adagrad(eps=1e-3)",
    ),
    Optimizer(
        name="adan",
        update=f"({_M} + beta2*debiased(D, beta2)) "
        "/ (sqrt(debiased((G + beta2*D)**2, beta3)) + eps) where D = G - previous(G)",
        about="Adan: averages of gradients and of their differences",
        reference="arXiv 2208.06677",
        units={**_UNITS, "beta3": "decay per step"},
        values={"beta1": 0.98, "beta2": 0.92, "beta3": 0.99},
        library="pytorch_optimizer.Adan(eps=1e-3)",
    ),
    Optimizer(
        name="mars",
        update="ema(C, beta1) / (sqrt(ema(C*C, beta2)) + eps) "
        "where C = G + gamma*beta1/(1 - beta1)*(G - previous(G))",
        about="MARS with Adam, its corrected gradient not cut off",
        reference="arXiv 2411.10438",
        units={**_UNITS, "gamma": "a number"},
        values={"beta1": 0.95, "beta2": 0.99, "gamma": 0.025},
    ),
    Optimizer(
        name="adopt",
        update="ema(G / (sqrt(ema(previous(G)**2, beta2)) + eps), beta1)",
        about="ADOPT: by the second moment of the step before",
        reference="arXiv 2411.02853",
        units=_UNITS,
        values={"beta1": 0.9, "beta2": 0.9999},
    ),
    Optimizer(
        name="adabelief",
        update=f"{_M} / (sqrt(debiased((G - ema(G, beta1))**2, beta2)) + eps)",
        about="AdaBelief: the second moment of G less its average",
        reference="arXiv 2010.07468",
        units=_UNITS,
        values=_USUAL,
        library="pytorch_optimizer.AdaBelief(eps=1e-16)",
    ),
    Optimizer(
        name="ademamix",
        update=f"({_M} + alpha*ema(G, beta3)) / (sqrt({_V}) + eps) + decay*W",
        about="AdEMAMix: Adam with a second, slower average",
        reference="arXiv 2409.03137",
        units={**_UNITS, **_DECAY, "beta3": "decay per step", "alpha": "a number"},
        values={**_USUAL, "beta3": 0.9999, "alpha": 5.0},
        library="pytorch_optimizer.AdEMAMix(weight_decay=0.1, weight_decouple=True, eps=1e-3)",
    ),
    Optimizer(
        name="qhadam",
        update=f"((1 - nu1)*G + nu1*{_M}) / (sqrt((1 - nu2)*G*G + nu2*{_V}) + eps)",
        about="QHAdam: averages mixed with the gradient of the step",
        reference="arXiv 1810.06801",
        units={**_UNITS, "nu1": "a part", "nu2": "a part"},
        values={**_USUAL, "nu1": 0.7, "nu2": 0.9},
        library="pytorch_optimizer.QHAdam(nus=(0.7, 0.9), eps=1e-3)",
    ),
    Optimizer(
        name="laprop",
        update=f"debiased(G / (sqrt({_V}) + eps), beta1)",
        about="LaProp: the average of the normalised gradient",
        reference="arXiv 2002.04839",
        units=_UNITS,
        values={"beta1": 0.9, "beta2": 0.999},
        library="pytorch_optimizer.LaProp(eps=1e-15)",
    ),
    Optimizer(
        name="ano",
        update="sign(ema(G, beta1))*abs(G) / (sqrt(yogi(G*G, beta2)) + eps) + decay*W",
        about="Ano: the sign of the average, the size of the gradient",
        reference="arXiv 2508.18258",
        units={**_UNITS, **_DECAY},
        values={"beta1": 0.92, "beta2": 0.99},
    ),
    Optimizer(
        name="grams",
        update=f"sign(G)*abs({_ADAM}) + decay*W",
        about="Grams: the sign of the gradient, the size of Adam's step",
        reference="arXiv 2412.17107",
        units={**_UNITS, **_DECAY},
        values=_USUAL,
        library="pytorch_optimizer.Grams(weight_decay=0.1, eps=1e-3)",
    ),
    Optimizer(
        name="cautious_adamw",
        update="agree(U, G)*U / (mean(agree(U, G)) + 1/(fan_in*fan_out)) + decay*W "
        f"where U = {_ADAM}",
        about="Cautious AdamW: no step where it would be uphill",
        reference="arXiv 2411.16085",
        units={**_UNITS, **_DECAY},
        values=_USUAL,
    ),
    Optimizer(
        name="stable_adamw",
        update=f"(U + decay*W) / max(1, rms(G/sqrt({_V}))) where U = {_ADAM}",
        about="StableAdamW: updates of RMS <= 1",
        reference="arXiv 2304.13013, Algorithm 2",
        units={**_UNITS, **_DECAY},
        values={"beta1": 0.9, "beta2": 0.99},
        library="pytorch_optimizer.StableAdamW(weight_decay=0.1)",
    ),
    Optimizer(
        name="adamp",
        update=f"U - inner(W, U)/norm(W)**2*W where U = {_ADAM}",
        about="AdamP: Adam without its part along the weights",
        reference="arXiv 2006.08217",
        units=_UNITS,
        values=_USUAL,
    ),
    Optimizer(
        name="padam",
        update="ema(G, beta1) / (sqrt(ema(G*G, beta2)) + eps)**(2*e)",
        about="PAdam: a power of the second moment below 1/2",
        reference="arXiv 1806.06763",
        units={**_UNITS, "lr": "weight per gradient^(1 - 2e)", "e": "power of the second moment"},
        exponents={"e": Fraction(1, 8)},
        values=_USUAL,
    ),
    Optimizer(
        name="grad_power",
        update="ema(X, beta1) / (sqrt(ema(X*X, beta2)) + eps) where X = sign(G)*abs(G)**e",
        about="GradPower before Adam: a power of every entry",
        reference="arXiv 2505.24275",
        units={**_UNITS, "eps": "entry of the gradient to its power", "e": "power of entries"},
        exponents={"e": Fraction(6, 5)},
        values=_USUAL,
    ),
    Optimizer(
        name="madgrad",
        update="G / ((G*G)**(1/3) + eps)",
        about="MADGRAD at its first step: a cube root",
        reference="arXiv 2101.11075",
        units={"lr": "weight per gradient^(1/3)", "eps": "gradient^(2/3)"},
    ),
    Optimizer(
        name="adadelta",
        update="sqrt(eps)/sqrt(debiased(G*G, beta) + eps)*G",
        about="Adadelta at its first step: the RMS of no steps is eps",
        reference="arXiv 1212.5701",
        units={
            "lr": "weight per gradient",
            "eps": "squared entry of the gradient",
            "beta": "decay",
        },
        values={"beta": 0.9},
    ),
    Optimizer(
        name="adahessian",
        update="ema(G, beta1) / (sqrt(ema(D*D, beta2)) + eps) where D = sample_square(G)",
        about="AdaHessian with the diagonal of the Fisher matrix for D",
        reference="arXiv 2006.00719",
        units={
            **_UNITS,
            "lr": "weight per natural gradient",
            "eps": "squared entry of the gradient",
        },
        values=_USUAL,
    ),
    Optimizer(
        name="soft_sign",
        update="ema(G, beta) / (ema(abs(G), beta) + eps)",
        about="SoftSign descent: the average over that of absolute values",
        reference="arXiv 2507.06464",
        units={**_LR, **_EPS, "beta": "decay per step"},
        values={"beta": 0.9},
    ),
    Optimizer(
        name="adam_scalar",
        update="ema(G, beta1) / (sqrt(ema(mean(G*G), beta2)) + eps)",
        about="Adam with one second moment a matrix",
        reference="arXiv 1605.09774",
        units=_UNITS,
        values=_USUAL,
    ),
)
