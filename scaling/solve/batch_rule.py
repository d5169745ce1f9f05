"""The batch as the axis that grows: powers of the number of samples n, for any rule.

The claim.  G = D H^T / n is a mean over samples. In directions that samples agree on it is as large
as one sample's, in those where they are independent n^(-1/2) of it, while A, B and squares of
single samples, means of what is positive, are of the same size at any n. So the same calculus reads
the powers of n of a rule (models/batch.py), first of the width and then, M >> n, of the batch:

    own       dW h at one learning rate, n^u, with dampings that follow what they are added to
    rate      a pass over the data is N/n steps, and moves a network as far at any n for rates

                  independent   n^(1/2 - u)    changes of different steps are independent, too: they
                                               add up by a CLT, (N/n)^(1/2) of one
                  aligned       n^(1 - u)      they add up, N/n of one
    decay     what a pass takes away of the weights, rate x decay x N/n, is the same: n^(1 - rate)

Where the noise of samples dominates, as late in training, the first holds: the linear rule of SGD
(u = -1/2), the square root of Adam (u = 0), whose eps follows as n^(-1/2).

>>> found = batch_rule("ema(G, beta1)/(sqrt(ema(G*G, beta2)) + eps)")
>>> found.rate("hidden", BatchGrowth.INDEPENDENT), found.powers("hidden", BatchGrowth.INDEPENDENT)
(1/2, {'eps': -1/2})

References: arXiv 2205.10287 (Malladi et al.: the square root of Adam, from stochastic differential
equations), arXiv 1706.02677 (Goyal et al.: the linear rule). Measured by `scaling verify RULE
--axis batch=4:64` (empirical/verify/batch_sweep.py). Not covered: what rank.py refuses of a batch
that grows; the second step; samples beyond the critical batch, which are a matter of training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import sympy
from sympy import Expr, S

from scaling.models.batch import SAMPLES, BatchGrowth
from scaling.models.chain import Setting
from scaling.models.settings import Settings
from scaling.rules.parser import as_rule
from scaling.rules.rule import Rule
from scaling.rules.tree import Node
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import HALF
from scaling.solve.derive import derive
from scaling.solve.solution import Derived

GROWTHS = BatchGrowth.INDEPENDENT, BatchGrowth.ALIGNED
STEPS = {BatchGrowth.INDEPENDENT: HALF, BatchGrowth.ALIGNED: S.One}
"""The power of the number of steps by which their changes add up."""


@dataclass(frozen=True)
class BatchRule:
    """Powers of n, by layer; ``derived`` has both answers, with the powers of n in them."""

    rule: Rule
    derived: dict[BatchGrowth, Derived]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(self.derived[GROWTHS[0]].exponents.c)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """Statements that either answer rests on."""
        return tuple(dict.fromkeys(x for found in self.derived.values() for x in found.assumptions))

    def own(self, layer: str, growth: BatchGrowth) -> Expr:
        """The power of n of dW h, at one learning rate."""
        return _power(self.derived[growth].exponents.c[layer])

    def rate(self, layer: str, growth: BatchGrowth) -> Expr:
        """The power of n of a learning rate at which a pass moves the layer as far at any n."""
        return sympy.expand(STEPS[growth] - self.own(layer, growth))

    def powers(self, layer: str, growth: BatchGrowth) -> dict[str, Expr]:
        """Powers of n of the dampings, radii and decays that are derived."""
        d, decays = self.derived[growth].exponents.d[layer], self.rule.decays
        return {
            k: sympy.expand(1 - self.rate(layer, growth)) if k in decays else -_power(x)
            for k, x in d.items()
        }

    def at_one_rate(self, layer: str, growth: BatchGrowth) -> dict[str, Expr]:
        """The same where learning rates stay: a decay then follows the descent."""
        return {k: -_power(x) for k, x in self.derived[growth].exponents.d[layer].items()}


def batch_rule(
    rule: Rule | Node | str, settings: Settings | None = None, setting: Setting | None = None
) -> BatchRule:
    """Derive the powers of the number of samples.

    Raises:
        NotCovered: if the calculus does not cover the rule under a batch that grows.

    >>> found = batch_rule("G")
    >>> [str(found.rate(layer, BatchGrowth.INDEPENDENT)) for layer in found.layers]
    ['1', '1', '1']
    """
    parsed, setting = as_rule(rule), setting or Setting()
    derived = {
        growth: derive(
            parsed, settings, replace(setting, batch=replace(setting.batch, growth=growth))
        )
        for growth in GROWTHS
    }
    return BatchRule(parsed, derived)


def _power(x: Expr) -> Expr:
    """The factor of the logarithm of n in an exponent of the width."""
    expanded = sympy.expand(x)
    power = expanded.coeff(SAMPLES)
    if power.has(SAMPLES) or sympy.expand(expanded - power * SAMPLES).has(SAMPLES):
        names = sorted(str(s) for s in expanded.free_symbols - {SAMPLES})
        raise NotCovered(
            f"a power of the batch that {', '.join(names)} leave open",
            "a case of its own",
            f"give a value: --set {names[0] if names else 'e'}=1/2",
        )
    return power
