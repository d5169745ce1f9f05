"""Ready-made recipes: optimizers as their libraries run them, one update for each kind of tensor.

A declaration of the catalogue is an optimizer as its paper has it; a ready-made recipe says what
the code does, where the two differ:

    Adam, AdamW        m and v without bias; eps outside the root, or inside
    Muon               Nesterov, Newton-Schulz, a size factor; AdamW for what is no hidden matrix
    Lion               the sign of beta1 m + (1 - beta1) G with m of the step before
    Adafactor          relative steps; decay lr W
    LAMB               m without bias outside of the ratio only; norm(W) cut off at 10
    SOAP               Adam with bias correction in the eigenbases; vectors get Adam
    DistributedShampoo averages of L, R, G without bias, roots of order 4 (2 of a vector), grafting
    K-FAC              the pi split of one damping, or a damping for each factor

``m_before = (ema(G, beta) - (1 - beta) G) / beta`` is the average before a gradient came in; so
Lion's is a mixture of ema(G, beta2) and G in the ratio beta1/beta2. tests/test_ready_made.py holds
every recipe against the library itself, on two steps. ``differs`` says what the language cannot.

Rates are lr of the library, which multiplies the whole update, decay W included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from types import MappingProxyType

from derivations.declaration import Optimizer
from scaling.models.recipe import Recipe
from scaling.models.recipe_text import parse_recipe


@dataclass(frozen=True)
class ReadyMade:
    """An optimizer of a library as a recipe.

    ``text``: groups, as scaling/models/recipe_text.py reads them. ``library``: the class and its
    options. ``package``: what to install. ``differs``: what of the library the recipe leaves out.
    """

    name: str
    text: str
    about: str
    library: str
    package: str = "torch"
    differs: str = ""

    @cached_property
    def recipe(self) -> Recipe:
        """The groups, each with its rule and constants."""
        return parse_recipe(self.text)

    @property
    def optimizer(self) -> Optimizer | None:
        """The same as one declaration, where one rule trains everything."""
        if not self.recipe.is_plain:
            return None
        (group,) = self.recipe.groups
        update = self.text.partition(":")[2].partition(" with ")[0].strip()
        exponents = {k: Fraction(str(x)) for k, x in group.exponents.items()}
        return Optimizer(
            self.name, update, self.about, self.library, exponents=exponents, values=group.values
        )


_M, _V = "debiased(G, beta1)", "debiased(G*G, beta2)"
_ADAM = f"{_M} / (sqrt({_V}) + eps)"
_BETAS = "beta1=0.9, beta2=0.999, eps=1e-8"
_ADAMW = f"{_ADAM} + decay*W with {_BETAS}, decay=0.01"
_NEWTON_SCHULZ = "newton_schulz((1 - beta)*G + beta*ema(G, beta), 5) + decay*W"
_MUON = "with beta=0.95, decay=0.1"
_BF16 = "its Newton-Schulz runs in bfloat16, with entries that are off by about 1/100"
_FACTORED = (
    "V = debiased(row_mean(G*G), beta2) @ debiased(col_mean(G*G), beta2) "
    "/ debiased(rms(G)**2, beta2), U = G / sqrt(V)"
)
_SOAP = (
    "Q_L @ (X / (sqrt(V) + eps)) @ Q_R.T + decay*W where "
    "Q_L = eig(ema(L, shampoo_beta)), Q_R = eig(ema(R, shampoo_beta)), "
    "X = Q_L.T @ debiased(G, beta1) @ Q_R, V = debiased((Q_L.T @ G @ Q_R)**2, beta2)"
)
_ROOTS = (
    "(debiased(L, beta2) + rho*I)**(-1/4) @ debiased(G, beta1) @ (debiased(R, beta2) + rho*I)"
    "**(-1/4)"
)
_ROOT = "(debiased(L, beta2) + rho*I)**(-1/2) @ debiased(G, beta1)"
_BLOCKS = (
    "matrices with a side above max_preconditioner_dim, whose blocks have factors and norms of "
    "their own: the same rates, and another damping, by 128/fan_in*block(L, 128) and "
    "128/fan_out*block(R, 128) in the place of L and R; matrices of so few entries that it merges "
    "their sides, unless target_parameter_dimensionality=2"
)

_CLASSES = "under MSELoss(reduction='mean') of C outputs its B is C times ours"


def _grafted(norm_of: str, values: str) -> str:
    """Groups of matrices and of vectors, with the norm of another update."""
    groups = (("bias, gain", _ROOT), ("rest", _ROOTS))
    return "; ".join(
        f"{kind}: norm(N)/norm(U)*U + decay*W where U = {update}, N = {norm_of} with {values}"
        for kind, update in groups
    )


READY_MADE = (
    ReadyMade(
        "torch_muon",
        f"hidden: sqrt(max(1, fan_out/fan_in))*{_NEWTON_SCHULZ} {_MUON}; rest: {_ADAMW}",
        "Muon for hidden matrices, AdamW for the rest",
        "torch.optim.Muon(adjust_lr_fn='original') and torch.optim.AdamW",
        differs=_BF16,
    ),
    ReadyMade(
        "torch_muon_match_rms",
        f"hidden: 1/5*sqrt(max(fan_out, fan_in))*{_NEWTON_SCHULZ} {_MUON}; rest: {_ADAMW}",
        "the same with entries as large as AdamW's",
        "torch.optim.Muon(adjust_lr_fn='match_rms_adamw') and torch.optim.AdamW",
        differs=_BF16,
    ),
    ReadyMade(
        "torch_adam",
        f"rest: {_ADAM} with {_BETAS}",
        "Adam without bias, eps outside the root",
        "torch.optim.Adam",
    ),
    ReadyMade(
        "torch_adamw",
        f"rest: {_ADAMW}",
        "the same with decoupled decay",
        "torch.optim.AdamW",
    ),
    ReadyMade(
        "adam_eps_inside",
        f"rest: {_M} / sqrt({_V} + eps) with {_BETAS}",
        "Adam without bias, eps inside the root",
        "optax.scale_by_adam(eps=0, eps_root=1e-8)",
        "optax",
    ),
    ReadyMade(
        "lion_pytorch",
        "rest: sign(beta1/beta2*ema(G, beta2) + (1 - beta1/beta2)*G) + decay*W "
        "with beta1=0.9, beta2=0.99, decay=0.1",
        "Lion with decoupled decay",
        "lion_pytorch.Lion(weight_decay=0.1)",
        "lion-pytorch",
    ),
    ReadyMade(
        "torch_adafactor",
        f"rest: max(eps, rms(W))*U/max(1, rms(U)) + decay*W where {_FACTORED} "
        "with beta2=0.7411011265922482, eps=0.001, decay=0.1",
        "Adafactor with steps relative to the weights",
        "torch.optim.Adafactor(weight_decay=0.1)",
        differs="the average forgets by t^(-0.8) at step t, which debiased(., 2^0.8 - 1) does in "
        "its first two steps; lr is cut off at 1/sqrt(t); the clamp of V at its tiny eps",
    ),
    ReadyMade(
        "lamb_clamped",
        "rest: min(10, norm(W))/(norm(U) + eps)*N where S = sqrt(ema(G*G, beta2)) + eps, "
        f"U = ema(G, beta1) / S, N = {_M} / S with beta1=0.9, beta2=0.999, eps=1e-6",
        "LAMB with weight norms cut off at 10, bias correction outside of the ratio",
        "pytorch_optimizer.Lamb",
        "pytorch_optimizer",
        differs="the ratio of one where the weights are zero",
    ),
    ReadyMade(
        "soap_as_run",
        f"bias, gain: {_ADAM} + decay*W with beta1=0.95, beta2=0.95, eps=1e-8, decay=0.01; "
        f"rest: {_SOAP} with beta1=0.95, beta2=0.95, shampoo_beta=0.95, eps=1e-8, decay=0.01",
        "SOAP: Adam in the eigenbases of Shampoo's factors, Adam for vectors",
        "soap.SOAP(precondition_frequency=1)",
        "github.com/nikhilvyas/SOAP",
        differs="its first step moves nothing; a step takes the eigenbases of the gradients before "
        "it, by a QR step from the third on, where the rule takes those of its own gradient too; "
        "eps is divided by sqrt(1 - beta2^t); the decay sees the weights after the step",
    ),
    ReadyMade(
        "distributed_shampoo_sgd",
        _grafted(_M, "beta1=0.9, beta2=0.999, rho=1e-12, decay=0.01"),
        "Shampoo with the norm of the averaged gradient",
        "DistributedShampoo(grafting_config=SGDPreconditionerConfig())",
        "github.com/facebookresearch/optimizers",
        differs=_BLOCKS,
    ),
    ReadyMade(
        "distributed_shampoo_adam",
        _grafted(_ADAM, "beta1=0.9, beta2=0.999, rho=1e-12, eps=1e-8, decay=0.01"),
        "Shampoo with the norm of Adam's update",
        "DistributedShampoo(grafting_config=AdamPreconditionerConfig())",
        "github.com/facebookresearch/optimizers",
        differs=_BLOCKS,
    ),
    ReadyMade(
        "kfac_pi_split",
        "rest: (B + sqrt(rho)/pi*I)**(-1) @ G @ (A + sqrt(rho)*pi*I)**(-1) where "
        "pi = sqrt((trace(A)/fan_in) / (trace(B)/fan_out)) with rho=1e-3",
        "K-FAC with one damping, split by the mean eigenvalues",
        "curvlinops.KFACInverseLinearOperator(use_heuristic_damping=True)",
        "curvlinops-for-pytorch",
        _CLASSES,
    ),
    ReadyMade(
        "kfac_two_dampings",
        "rest: (B + rho_B*I)**(-1) @ G @ (A + rho_A*I)**(-1) with rho_B=1e-3, rho_A=1e-3",
        "K-FAC with a damping for each factor",
        "curvlinops.KFACInverseLinearOperator(damping=(rho_A, rho_B))",
        "curvlinops-for-pytorch",
        _CLASSES,
    ),
)  # fmt: skip


def ready_made() -> Mapping[str, ReadyMade]:
    """All ready-made recipes by name."""
    return MappingProxyType({one.name: one for one in READY_MADE})
