"""Optimizers that are no rule of the language, by name: what each needs, and the nearest rule.

A rule says what a step makes of gradients of this step and of those before, on one batch. The page
docs/optimizers.md has the same list, with more words. Names are compared without case and marks.

>>> outside("Schedule-Free").nearest
'sgd'
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from scaling.sizes.errors import InvalidInput


@dataclass(frozen=True)
class Outside:
    """An optimizer outside of the language; ``nearest`` is a rule, by its name or as text."""

    names: tuple[str, ...]
    needs: str
    nearest: str
    relation: str

    def refusal(self, asked: str) -> InvalidInput:
        """The refusal of a name."""
        return InvalidInput(
            f"the optimizer '{asked}', which needs {self.needs}",
            "an update made of gradients, of this step and of those before, on one batch",
            f'write {self.relation}: scaling derive "{self.nearest}"',
        )


OUTSIDE = (
    Outside(
        ("lbfgs", "bfgs", "conjugategradient", "nonlinearcg"),
        "a closure: a line search calls the loss several times a step, and its memory has pairs of "
        "steps and differences of gradients",
        "lbfgs_first", "its first step, over all layers",
    ),
    Outside(
        ("svrg", "saga", "sarah", "spider", "storm"),
        "a second batch: a gradient over all data, or over the same samples at other weights",
        "sgd", "the rule whose noise it reduces",
    ),
    Outside(
        ("hessianfree", "newtoncg", "trustregion", "martens"),
        "a closure: products with the Hessian of a batch, several a step",
        "gauss_newton", "the curvature of single layers in their place",
    ),
    Outside(
        ("sophiah", "sophiag", "sophiahessian"),
        "a second batch, of sampled labels, or products with the Hessian",
        "sophia", "the rule with squares of single samples in their place",
    ),
    Outside(
        ("alig", "polyak", "polyakstep", "sps", "armijo", "linesearch", "momo"),
        "the value of the loss, by a closure: its step is the loss over a squared norm",
        "normalized_sgd", "the direction with a size of its own",
    ),
    Outside(
        ("schedulefree", "schedulefreesgd", "sgdschedulefree"),
        "gradients at an average of all weights so far: a second set of weights",
        "sgd", "its base, which its first step is",
    ),
    Outside(
        ("schedulefreeadamw", "adamwschedulefree", "prodigy", "dadaptation", "dadaptadam", "dog"),
        "a second set of weights, or the distance to the start, a number that grows over steps",
        "adamw", "its base",
    ),
    Outside(
        ("lookahead", "emaofweights", "swa", "averagedmodel"),
        "weights of several steps ago",
        "adam", "the rule inside, which it follows until it looks back",
    ),
    Outside(
        ("psgd", "kron", "psgdkron"),
        "a factor that is fitted by steps of its own on random vectors",
        "(L + rho*I)**(-1/4) @ G @ (R + rho*I)**(-1/4)", "what the factors are fitted to",
    ),
    Outside(
        ("apollo", "apollomini", "flora", "randomgalore", "countsketch"),
        "random matrices that no layer has",
        "galore", "the projection that they estimate",
    ),
    Outside(
        ("mezo", "zerothorder", "zosgd", "spsa", "evolutionstrategy"),
        "a closure: differences of the loss at random weights, and no gradient",
        "sgd", "the gradient that they estimate",
    ),
)  # fmt: skip
_MODULE = re.compile(r"(?P<module>[a-z]\w*(\.\w+)*)[.:](?P<name>[A-Z]\w*)(\(.*\))?")


def bare(name: str) -> str:
    """A name without case and marks."""
    return re.sub(r"[\W_]", "", name).lower()


def outside(name: str) -> Outside | None:
    """The optimizer of that name, if it is one that is no rule."""
    return next((x for x in OUTSIDE if bare(name) in x.names), None)


def class_named(text: str) -> tuple[str, str] | None:
    """The module and the name of a class of optimizers, if text is nothing but these.

    >>> class_named("torch.optim.AdamW(lr=1e-3)"), class_named("G.T"), class_named("torch.sign(G)")
    (('torch.optim', 'AdamW'), None, None)
    """
    found = _MODULE.fullmatch(text.strip())
    return None if found is None else (found["module"], found["name"])
