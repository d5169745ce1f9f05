"""A derivation is data: a tree of steps, each an instance of a named rule of inference.

A step says which rule was applied, to what, with which numbers, what came out and what had to be
assumed. Renderers (tables.py) print the tree; measurements can be set beside each of its nodes.
The shape follows sympy's `manualintegrate`: nested rule objects, with an explicit "not covered"
(`scaling.sizes.errors.NotCovered`) where no rule applies.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from scaling.sizes.in_notebook import InNotebook
from scaling.sizes.scale import Scale

PAPER = "arXiv 2312.12226"


@dataclass(frozen=True)
class Inference:
    """A rule of inference: its name, what it states, and where it comes from."""

    name: str
    statement: str
    reference: str = ""


DATA = Inference("data", "inputs, targets and batch do not grow with the width")
CLT = Inference(
    "CLT",
    "Gaussian W independent of x: entries of W x have size std(W) sqrt(fan_in) |x|",
    "central limit theorem",
)
LLN = Inference("LLN", "x and y aligned: x^T y has size (length) |x| |y|", "law of large numbers")
BACKPROP = Inference(
    "backprop",
    "delta_(l-1) = W^T delta_l * phi': a CLT over fan_out",
    "gradient independence, arXiv 2006.14548",
)
GRAM = Inference(
    "Gram",
    "n samples: the second moments have rank <= n and eigenvalues fan |x|^2 on the data's span",
    f"{PAPER}, Prop. 4.1",
)
PUSH_THROUGH = Inference(
    "push-through",
    "f(D D^T) D = D f(D^T D): a spectral function acts on aligned vectors as f(eigenvalue)",
    f"{PAPER}, proof of Prop. 4.1",
)
DAMPING = Inference(
    "damping",
    "(lambda + rho)^(-e) has size max(lambda, rho)^(-e); balanced when the two are equal",
    f"{PAPER}, Sec. 4",
)
SPECTRAL_POWER = Inference(
    "spectral power", "a power of a symmetric matrix takes the power of each eigenvalue"
)
ALIGNED_UPDATE = Inference(
    "aligned update",
    "dW = D C H^T with spectral size sigma moves its output by sigma |h| sqrt(fan_in/fan_out)",
    "arXiv 2310.17813",
)
ENTRYWISE = Inference(
    "entrywise",
    "an odd function of G stays coherent with D H^T, so dW h adds up over fan_in",
    "arXiv 2310.02244",
)
MEANS = Inference(
    "means",
    "a row mean of G follows the mean of h, a column mean that of delta: of the entry's size if "
    "the mean does not vanish (ReLU), smaller by M^(-1/2) if it does (odd activations, delta)",
)
NORMS = Inference(
    "norms",
    "rank O(1): Frobenius and spectral norm agree, and spread over sqrt(fan_in fan_out) entries",
)
DIFFERENCE = Inference(
    "second step",
    "h + dh and (W + dW)^T delta after the first step: the larger term, if the two do not cancel",
)
AVERAGE = Inference(
    "average",
    "a moving average of two steps is as large as the larger of them, if they do not cancel",
)
COMMON = Inference(
    "common direction",
    "a mean over the outputs moves all of them alike: dW = 1 v^T, and W above it is a CLT of 1",
)
ROTATION = Inference(
    "rotation",
    "in eigenbases of the data a gradient-like matrix is a corner of n = Theta(1) rows and columns "
    "with entries of its spectral size, and exactly zero elsewhere",
    "arXiv 2409.11321; arXiv 1806.03884",
)
SAMPLES = Inference(
    "samples",
    "squares of n = Theta(1) samples do not cancel: their mean has the size of a squared entry",
    "arXiv 1806.03884",
)
NEWTON_SCHULZ = Inference(
    "Newton-Schulz",
    "a fixed number of steps from X/norm(X) takes singular values of order one to order one",
    "Jordan 2024",
)
POLAR_EXPRESS = Inference(
    "Polar Express",
    "a fixed number of steps from X/norm(X) takes singular values of order one to order one",
    "arXiv 2505.16932",
)
INNER = Inference(
    "inner product",
    "<f(B) G g(A), G> = |f(B)^(1/2) G g(A)^(1/2)|^2 for positive f and g: nothing cancels",
)
ASCENT = Inference(
    "ascent",
    "the gradient at W + X is D' H'^T, with the sizes of h and delta after a step dW = X",
    "arXiv 2411.00075",
)
OVER_LAYERS = Inference("sum over layers", "the largest layer sets the size of a positive sum")
READBACK = Inference(
    "readback", "W_L dh with dh along W_L^T delta: LLN over fan_in, M^(1-b_L) |dh|"
)
ALIGNMENT = Inference(
    "alignment",
    "W dh has entries of fan_in^omega |W| |dh|, with omega as it is given or measured",
    "arXiv 2407.05872",
)
SUM = Inference("sum", "the larger term sets the size, if the terms do not cancel")
PRODUCT = Inference("product", "sizes multiply")
CONDITION = Inference("condition", "imposed, then solved for")
GIVEN = Inference("given", "a hyper-parameter's scale, M^-(its exponent)")


@dataclass(frozen=True)
class Step(InNotebook):
    """One line of a derivation.

    ``subject`` is what has the size ``result``; ``numbers`` is the right-hand side with the
    inputs' sizes substituted; ``assumption`` is what had to be supposed beyond the rule itself;
    ``node`` is the part of a rule (or of a network) of which it
    is the size; ``time`` is the step of training of which it speaks; ``decision`` is the comparison
    of sizes that the result rests on, if it rests on one.
    """

    inference: Inference
    subject: str
    result: Scale
    numbers: str = ""
    inputs: tuple[Step, ...] = ()
    assumption: str = ""
    node: Hashable | None = None
    time: int = 1
    decision: Hashable | None = field(default=None, compare=False)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Taken once: steps share premises, which share theirs, level by level."""
        return hash((self.inference, self.subject, self.result, self.inputs, self.time))

    def walk(self) -> Iterator[Step]:
        """All steps, premises first, each object once however many rest on it."""
        return self._walk(set())

    def _walk(self, seen: set[int]) -> Iterator[Step]:
        for step in self.inputs:
            if id(step) not in seen:
                yield from step._walk(seen)
        seen.add(id(self))
        yield self

    def lines(self) -> list[Step]:
        """All steps, premises first, each once."""
        return list(dict.fromkeys(self.walk()))

    def assumptions(self) -> list[str]:
        """The assumptions on the way, each once."""
        texts = (s.assumption.split("; ") for s in self.walk() if s.assumption)
        return list(dict.fromkeys(text for several in texts for text in several))

    def because(self, assumption: str) -> Step:
        """The same step, resting on one more assumption."""
        joined = f"{self.assumption}; {assumption}" if self.assumption else assumption
        return replace(self, assumption=joined)
