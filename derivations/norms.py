"""Normalised updates: Muon with its size factors, normalised and clipped gradient descent.

    Muon              dW = s orth(G) = s U V^T   for G = U S V^T
    in practice       dW = newton_schulz(m, 5)   m the gradient with Nesterov's momentum
    normalised SGD    dW = G / norm(G)           layer by layer, Frobenius norm
    spectral SGD      dW = G / specnorm(G)
    clipped SGD       dW = G / max(1, norm(G) / bound)

The first three have spectral size s whatever the gradient's size, since a gradient of n samples
has O(1) singular values; what is left of the learning rate's exponent is the target
sqrt(fan_out/fan_in) (arXiv 2310.17813, Sec. 3). With that as the factor s the rate does not scale
with width at all. Practice has two others, s = sqrt(max(1, fan_out/fan_in)), which leaves an
exponent in the output layer, and s = 0.2 sqrt(max(fan_out, fan_in)), which gives entries the RMS
of Adam's and the exponents of Adam.

Newton-Schulz takes singular values of order one, relative to the norm, to order one: its exponents
are those of the polar factor, its constants not.

Clipping at a norm of order one sets in where the norm of the gradient grows with width: with a
readout of order 1/M that is the output layer alone, whose rate is then that of normalised SGD.
"""

from derivations.declaration import Optimizer

_LR = {"lr": "spectral norm of the change of W"}
OPTIMIZERS = (
    Optimizer(
        name="muon",
        update="orth(G)",
        about="Muon: the polar factor of the gradient",
        reference="Jordan 2024; arXiv 2409.20325",
        units=_LR,
    ),
    Optimizer(
        name="muon_spectral",
        update="sqrt(fan_out/fan_in) * orth(G)",
        about="Muon with the factor sqrt(fan_out/fan_in)",
        reference="arXiv 2310.17813; arXiv 2409.20325",
        units={"lr": "change of the output per input, root mean square"},
    ),
    Optimizer(
        name="muon_max",
        update="sqrt(max(1, fan_out/fan_in)) * orth(G)",
        about="Muon with the factor sqrt(max(1, fan_out/fan_in))",
        reference="Jordan 2024",
        units=_LR,
    ),
    Optimizer(
        name="muon_rms",
        update="1/5*sqrt(max(fan_out, fan_in)) * orth(G)",
        about="Muon with entries as large as Adam's",
        reference="arXiv 2502.16982",
        units={"lr": "weight: the RMS change of an entry"},
    ),
    Optimizer(
        name="muon_momentum",
        update="orth(ema(G, beta))",
        about="Muon along a moving average of the gradient",
        reference="Jordan 2024",
        units={**_LR, "beta": "decay per step"},
        values={"beta": 0.95},
    ),
    Optimizer(
        name="muon_ns",
        update="newton_schulz((1 - beta)*G + beta*ema(G, beta), 5)",
        about="Muon as it runs: Nesterov, five steps of Newton-Schulz",
        reference="Jordan 2024",
        units={**_LR, "beta": "decay per step"},
        values={"beta": 0.95},
    ),
    Optimizer(
        name="muon_rms_decay",
        update="1/5*sqrt(max(fan_out, fan_in)) * orth(G) + decay*W",
        about="Muon with entries as large as Adam's and weight decay",
        reference="arXiv 2502.16982",
        units={
            "lr": "weight: the RMS change of an entry",
            "decay": "1 / lr: lr decay is the part of the weights that a step takes away",
        },
    ),
    Optimizer(
        name="normalized_sgd",
        update="G / norm(G)",
        about="gradient descent over the gradient's Frobenius norm",
        reference="arXiv 1507.02030",
        units=_LR,
    ),
    Optimizer(
        name="spectral_sgd",
        update="G / specnorm(G)",
        about="gradient descent over the gradient's spectral norm",
        reference="arXiv 2310.17813",
        units=_LR,
    ),
    Optimizer(
        name="clipped_sgd",
        update="G / max(1, norm(G) / bound)",
        about="gradient descent clipped at a norm, layer by layer",
        reference="arXiv 1211.5063",
        units={"lr": "weight per gradient", "bound": "norm of the gradient"},
        values={"bound": 1.0},
    ),
)
