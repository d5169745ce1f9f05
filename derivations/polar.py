"""Relatives of Muon: what is done before the polar factor, after it, and its size.

    before   MuonEq      orth(M / rms of its rows or columns)         M an average of G
             Newton-Muon orth(M A^-1)
             K-FAC       orth(B^-1 G A^-1)
    around   Mousse      L^-1/4 orth(L^-1/4 G R^-1/4) R^-1/4
             FISMO       the same with roots of order 2, L and R of trace fan_out, fan_in
    after    NorMuon     O / rms of its rows, of the norm of Adam's   O = orth(M)
             OLion       sign(O) + decay W
             NAMO        |M| / sqrt(average of |G|^2) O
             PolarGrad   <G, O> O, the sum of singular values times the polar factor
    size     Scion       sqrt(fan_out/fan_in) O of hidden layers, sign(M) / fan_in of the last
             SSO, MuonH  as long as the weights, in spectral or Frobenius norm
             MuonClip    1/5 sqrt(max(fan_out, fan_in)) O + decay W

A polar factor has spectral size one on the span of the data whatever comes before it; so factors
before it shift no learning rate. Its entries are those of a matrix of n directions, so that rows
divided by their RMS, or signs, have the exponents of Adam.

Simplified: averages of factors are those of the step; MuonClip's rescaling of queries and keys by
their logits, SSO's and hyperball's retraction to the sphere, Dion's low rank and error feedback
are left out: Dion is here at full rank, where nothing is left to feed back.
"""

from derivations.declaration import Optimizer

_SPECTRAL = {"lr": "spectral norm of the change of W"}
_RMS = {"lr": "weight: the RMS change of an entry"}
_BETA = {"beta": "decay per step"}
_DECAY = {"decay": "1 / lr: lr decay is the part of the weights that a step takes away"}
_TARGET = {"lr": "change of the output per input, root mean square"}
_M = "ema(G, beta)"
OPTIMIZERS = (
    Optimizer(
        name="normuon",
        update="1/5*sqrt(fan_in*fan_out)*U/norm(U) where O = orth(ema(G, beta1)), "
        "U = O / (sqrt(ema(row_mean(O*O), beta2)) + eps)",
        about="NorMuon: the polar factor with rows of one length",
        reference="arXiv 2510.05491",
        units={**_RMS, "beta1": "decay", "beta2": "decay", "eps": "entry of the polar factor"},
        values={"beta1": 0.95, "beta2": 0.95},
    ),
    Optimizer(
        name="adamuon",
        update="1/5*sqrt(fan_in*fan_out)*U/norm(U) where O = orth(ema(G, beta)), "
        "U = O / (sqrt(ema(O*O, beta)) + eps)",
        about="AdaMuon without the signs before its polar factor",
        reference="arXiv 2507.11005",
        units={**_RMS, **_BETA, "eps": "entry of the polar factor"},
        values={"beta": 0.95},
    ),
    Optimizer(
        name="namo",
        update="norm(debiased(G, beta1))/(sqrt(debiased(norm(G)**2, beta2)) + eps)"
        "*orth(ema(G, beta1))",
        about="NAMO: Muon with Adam's step size, one a matrix",
        reference="arXiv 2602.17080",
        units={**_SPECTRAL, "beta1": "decay", "beta2": "decay", "eps": "norm of the gradient"},
        values={"beta1": 0.95, "beta2": 0.99},
    ),
    Optimizer(
        name="polargrad",
        update="inner(M, O)*O where M = ema(G, beta), O = orth(M)",
        about="PolarGrad, momentum first: the nuclear norm restored",
        reference="arXiv 2505.21799",
        units={"lr": "weight per gradient", **_BETA},
        values={"beta": 0.95},
    ),
    Optimizer(
        name="polargrad_polar_first",
        update="ema(inner(G, orth(G))*orth(G), beta)",
        about="PolarGrad, the polar factor first, then momentum",
        reference="arXiv 2505.21799",
        units={"lr": "weight per gradient", **_BETA},
        values={"beta": 0.95},
    ),
    Optimizer(
        name="scion_spectral",
        update=f"sqrt(fan_out/fan_in)*orth({_M})",
        about="Scion and Gluon, hidden layers: steepest in spectral norm",
        reference="arXiv 2502.07529; arXiv 2505.13416",
        units={**_TARGET, **_BETA},
        values={"beta": 0.9},
    ),
    Optimizer(
        name="scion_sign",
        update=f"sign({_M})/fan_in",
        about="Scion and Gluon, last layer: steepest in the largest entry",
        reference="arXiv 2502.07529; arXiv 2505.13416",
        units={**_TARGET, **_BETA},
        values={"beta": 0.9},
        library="pytorch_optimizer.SCION(norm_type=4, norm_kwargs={'normalize': True})",
    ),
    Optimizer(
        name="scion_row",
        update=f"M / sqrt(row_mean(M*M))/fan_in where M = {_M}",
        about="Scion and Gluon, row norm: rows of one length",
        reference="arXiv 2502.07529, Table 2; arXiv 2505.13416",
        units={**_TARGET, **_BETA},
        values={"beta": 0.9},
        library="pytorch_optimizer.SCION(norm_type=7, norm_kwargs={'normalized': True})",
    ),
    Optimizer(
        name="scion_column",
        update=f"M / sqrt(col_mean(M*M)) where M = {_M}",
        about="Scion and Gluon, column norm: embeddings of one length",
        reference="arXiv 2502.07529, Table 2; arXiv 2505.13416",
        units={**_RMS, **_BETA},
        values={"beta": 0.9},
        library="pytorch_optimizer.SCION(norm_type=6)",
    ),
    Optimizer(
        name="scion_convolution",
        update=f"1/kernel**2*sqrt(fan_out/fan_in)*orth({_M})",
        about="Scion's and Muon's factor of convolutions: kernel^2 sides",
        reference="arXiv 2502.07529, Table 2",
        units={**_TARGET, **_BETA, "kernel": "side of the kernel"},
        values={"beta": 0.9, "kernel": 3.0},
    ),
    Optimizer(
        name="dion",
        update=f"sqrt(fan_out/fan_in)*orth({_M}) + decay*W",
        about="Dion at full rank, where no error is fed back",
        reference="arXiv 2504.05295",
        units={**_TARGET, **_BETA, **_DECAY},
        values={"beta": 0.95},
    ),
    Optimizer(
        name="dion_low_rank",
        update=f"sqrt(fan_out/fan_in)*orth(project({_M}, 4))",
        about="Dion at rank 4, before an error is fed back",
        reference="arXiv 2504.05295",
        units={**_TARGET, **_BETA},
        values={"beta": 0.95},
    ),
    Optimizer(
        name="soft_muon",
        update=f"spectral_map({_M}, sigma/sqrt(sigma**2 + rho))",
        about="Muon with singular values that saturate smoothly",
        reference="arXiv 2605.19781",
        units={**_SPECTRAL, **_BETA, "rho": "squared spectral norm of the gradient"},
        values={"beta": 0.95},
    ),
    Optimizer(
        name="sso",
        update=f"specnorm(W)*orth({_M})",
        about="SSO: steps on the sphere of the weights' spectral norm",
        reference="arXiv 2601.08393",
        units={"lr": "relative change in spectral norm", **_BETA},
        values={"beta": 0.95},
    ),
    Optimizer(
        name="muon_hyperball",
        update=f"norm(W)/norm(O)*O where O = orth({_M})",
        about="Muon hyperball: steps as long as the weights",
        reference="arXiv 2606.16899",
        units={"lr": "relative change of the weights", **_BETA},
        values={"beta": 0.95},
    ),
    Optimizer(
        name="adam_hyperball",
        update="norm(W)/norm(U)*U where U = ema(G, beta1) / (sqrt(ema(G*G, beta2)) + eps)",
        about="Adam hyperball: steps as long as the weights",
        reference="arXiv 2606.16899",
        units={
            "lr": "relative change of the weights", "eps": "entry of the gradient",
            "beta1": "decay", "beta2": "decay",
        },
        values={"beta1": 0.9, "beta2": 0.999},
    ),
    Optimizer(
        name="newton_muon",
        update="orth(ema(G, beta) @ (A + rho_A*I)**(-1))",
        about="Newton-Muon: the polar factor of G A^-1",
        reference="arXiv 2604.01472",
        units={**_SPECTRAL, **_BETA, "rho_A": "squared norm of the layer's input"},
        values={"beta": 0.95},
    ),
    Optimizer(
        name="kfac_muon",
        update="orth((B + rho_B*I)**(-1) @ G @ (A + rho_A*I)**(-1))",
        about="K-FAC before Muon: the polar factor of its update",
        reference="arXiv 1503.05671; Jordan 2024",
        units={
            **_SPECTRAL,
            "rho_A": "squared norm of the layer's input",
            "rho_B": "squared norm of the layer's cotangent",
        },
    ),
    Optimizer(
        name="mousse",
        update="S_L @ orth(S_L @ G @ S_R) @ S_R "
        "where S_L = (L + rho_L*I)**(-1/4), S_R = (R + rho_R*I)**(-1/4)",
        about="Mousse: Muon in the coordinates that Shampoo whitens",
        reference="arXiv 2603.09697",
        units={
            "lr": "weight per 1/gradient",
            "rho_L": "squared spectral norm of the gradient",
            "rho_R": "squared spectral norm of the gradient",
        },
    ),
    Optimizer(
        name="fismo",
        update="P @ orth(P @ G @ Q) @ Q where P = (fan_out*L/trace(L) + rho_L*I)**(-1/2), "
        "Q = (fan_in*R/trace(R) + rho_R*I)**(-1/2)",
        about="FISMO: Muon whitened by factors of fixed trace",
        reference="arXiv 2601.21750",
        units={**_SPECTRAL, "rho_L": "fan_out", "rho_R": "fan_in"},
    ),
    Optimizer(
        name="muon_eq_rows",
        update=f"orth(M / (sqrt(row_mean(M*M)) + eps)) where M = {_M}",
        about="MuonEq (R): the polar factor of rows of one length",
        reference="arXiv 2603.28254",
        units={**_SPECTRAL, **_BETA, "eps": "entry of the gradient"},
        values={"beta": 0.95},
    ),
    Optimizer(
        name="muon_eq_columns",
        update=f"orth(M / (sqrt(col_mean(M*M)) + eps)) where M = {_M}",
        about="MuonEq (C): the polar factor of columns of one length",
        reference="arXiv 2603.28254",
        units={**_SPECTRAL, **_BETA, "eps": "entry of the gradient"},
        values={"beta": 0.95},
    ),
    Optimizer(
        name="swan",
        update="sqrt(fan_in)*orth(G / (sqrt(row_mean(G*G)) + eps))",
        about="SWAN: rows of one length, then whitened, no state",
        reference="arXiv 2412.13148",
        units={"lr": "weight: the RMS change of an entry", "eps": "entry of the gradient"},
    ),
    Optimizer(
        name="sign_muon",
        update=f"sign(orth({_M}))",
        about="SignMuon: signs of the polar factor",
        reference="arXiv 2602.01105",
        units={**_RMS, **_BETA},
        values={"beta": 0.95},
    ),
    Optimizer(
        name="olion",
        update="sign(orth(beta1*ema(G, beta2) + (1 - beta1)*G)) + decay*W",
        about="OLion: signs of the polar factor of Lion's average",
        reference="arXiv 2602.01105",
        units={**_RMS, **_DECAY, "beta1": "decay", "beta2": "decay"},
        values={"beta1": 0.95, "beta2": 0.98},
    ),
    Optimizer(
        name="cautious_muon",
        update=f"agree(U, G)*U / mean(agree(U, G)) where U = orth({_M})",
        about="Cautious Muon: no entry where it would be uphill",
        reference="arXiv 2411.16085; Jordan 2024",
        units={**_SPECTRAL, **_BETA},
        values={"beta": 0.95},
    ),
    Optimizer(
        name="muon_clip",
        update="1/5*sqrt(max(fan_out, fan_in))*newton_schulz(ema(G, beta), 5) + decay*W",
        about="MuonClip without its cut of attention logits",
        reference="arXiv 2507.20534",
        units={**_RMS, **_BETA, **_DECAY},
        values={"beta": 0.95},
        library="torch.optim.Muon(adjust_lr_fn='match_rms_adamw', nesterov=False, "
        "weight_decay=0.1)",
    ),
    Optimizer(
        name="muon_polar_express",
        update="polar_express(ema(G, beta), 5)",
        about="Muon with the coefficients of the Polar Express",
        reference="arXiv 2505.16932",
        units={**_SPECTRAL, **_BETA},
        values={"beta": 0.95},
    ),
)  # fmt: skip
