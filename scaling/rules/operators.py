"""The operators and functions of the rule language: one row each.

    name, signature    how it is written                                   clip(X, bound)
    about, example     one line on what it is, and a use of it that is accepted
    shape              the shapes that it accepts, and the shape of the result (operand_shapes.py)
    second             the second operand, if it has one, and the check of it
    follows            where an entry of the result comes from: that decides how a rule is measured
                       at any width (dependence.py)
    reading            its size as mathematics, if one of these says all:
                           OfEntries      f(x), by its exponents at 0 and at oo and its symmetry
                           SumOfEntries   (sum |x|^p)^(1/p), or the mean
                           SpectralSum    the same of singular values
                           Extreme        the larger or the smaller of two, entry by entry
                           LargestEntry   the largest entry of a row, a column or all
                           Formula        the size of an expression in the operands
                       others have an inference of their own (scaling/calculus/calls.py), and until
                       they do, the calculus refuses them by name
    traits             what else is known of it, as that it is linear (`Trait`)

Whether a function is a norm, is linear, keeps signs .. is asked of its row: what follows from its
traits and from its reading are properties of `Operator`. Nothing else lists functions by name.

A new function is a row here and its numbers in empirical/numbers/operators.py. The builders of
language.py, the refusals of operands that do not fit, the table of functions in README, the rules
of inference for entries, sums and extremes, and the way it is measured at any width follow.

>>> print(FUNCTIONS["clip"].signature, "-", FUNCTIONS["clip"].about)
clip(X, bound) - each entry of X cut off at -bound and bound
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from scaling.rules import operand_shapes as shapes
from scaling.rules.operand_shapes import Accepted, ShapeOf
from scaling.rules.shapes import Shape


class SecondOperand(StrEnum):
    """The kind of a function's second operand."""

    LIKE_FIRST = "a second matrix of the shape of the first"
    SCALAR = "a scalar after the comma"
    BESIDE = "a scalar or entries that fit the first operand"
    DECAY = "a number in [0, 1) or a constant such as beta"
    FADING = "a number in [0, 1], 1 if nothing fades, or a constant such as beta"
    COUNT = "a positive whole number"
    OF_SINGULAR_VALUE = "a number made of sigma, a singular value of the first operand"


class Follows(StrEnum):
    """Where an entry of a result comes from. Several may hold: ema(X) is linear."""

    SPAN = "Gram matrices of what the operands are made of: the span of the data"
    ENTRY = "the same entry of the operands"
    BLOCK = "entries of one block on the diagonal"
    SAMPLES = "the same entry of every sample's own operand"
    WHOLE = "all of a matrix, so that a part of it is not enough"


class Trait(StrEnum):
    """A property that does not follow from the reading. X is the first operand."""

    POSITIVE = "the result is never negative"
    KEEPS_SIGN = "the result is not negative where no operand is"
    LINEAR = "linear in X"
    SCALE_FREE = "f(c X) = f(X) for every number c > 0"
    HOMOGENEOUS = "f(c X) = c f(X) for every number c > 0"
    SPECTRAL = "f(U S V^T) = U f(S) V^T, a function of the singular values"
    DESCENT = "<f(X), X> adds up numbers that are never negative: X falls in the direction -f(X)"
    BASIS = "the columns of the result are a basis of their own, named after X"
    AVERAGE = "a sum of X over the steps of training, each with its weight"
    RUNNING = "of X over the steps of training, and not linear; as large as its largest"
    DEBIASED = "at the first step the result is X itself"


class Symmetry(StrEnum):
    """The behaviour of a function as its argument changes sign."""

    ODD = "odd"
    EVEN = "even"
    NONE = "of numbers that are not negative"


@dataclass(frozen=True)
class OfEntries:
    """A function f of single entries with f(0) = 0.

    |f(x)| goes like |x|^at_zero as x goes to 0 and like |x|^at_infinity as x grows; if those differ
    it turns at 1, or at the second operand: f(x, bound) = bound f(x/bound). ``straight``: f(x) = x
    from 0 to there, not only in the limit.
    """

    at_zero: Fraction
    at_infinity: Fraction
    symmetry: Symmetry
    straight: bool = False

    @property
    def power(self) -> Fraction | None:
        """The power that it is up to a constant and signs, if it is one."""
        return self.at_zero if self.at_zero == self.at_infinity else None


@dataclass(frozen=True)
class SumOfEntries:
    """(sum |x|^power)^(1/power) or the ``mean`` in place of the sum; the sum itself of power 1.

    It runs over the sides that the operand has and the result has not.
    """

    power: int
    mean: bool


@dataclass(frozen=True)
class SpectralSum:
    """(sum s^power)^(1/power) over the singular values of X, the largest s without a power.

    Of power 1 it is the sum of the eigenvalues of a square X, each with its sign.
    """

    power: int | None


@dataclass(frozen=True)
class Extreme:
    """The ``larger`` of two numbers or entries, or the smaller."""

    larger: bool


@dataclass(frozen=True)
class LargestEntry:
    """The largest entry over the sides that the operand has and the result has not."""


@dataclass(frozen=True)
class Formula:
    """The size is that of an expression of the language, in x and y for the operands."""

    text: str


Reading = OfEntries | SumOfEntries | SpectralSum | Extreme | LargestEntry | Formula


@dataclass(frozen=True)
class StepWeights:
    """The weights of a sum of X over steps, as formulas in beta, its second operand.

    ``first``: of X_1 at the first step; ``now`` and ``before``: of X_2 and of X_1 at the second.
    """

    first: str
    now: str
    before: str


@dataclass(frozen=True)
class Operator:
    """An operator or a function of the language; see the head of this file.

    ``default``: the value of the second operand for who builds a rule in Python and leaves it out.
    ``builder``: the name of the function of Python that builds it.
    ``weights``: of a function that is linear in X and sums it over the steps of training.
    """

    name: str
    signature: str
    about: str
    shape: ShapeOf
    example: str = ""
    follows: frozenset[Follows] = frozenset()
    traits: frozenset[Trait] = frozenset()
    reading: Reading | None = None
    second: SecondOperand | None = None
    default: int | None = None
    builder: str = ""
    weights: StepWeights | None = None

    @property
    def sums(self) -> bool:
        """Whether it adds up entries of a matrix."""
        return isinstance(self.reading, SumOfEntries)

    @property
    def mean(self) -> bool:
        """Whether it is the mean of entries, or the root of that of their squares."""
        return isinstance(self.reading, SumOfEntries) and self.reading.mean

    @property
    def cuts(self) -> bool:
        """Whether it keeps diagonal blocks of a matrix."""
        return Follows.BLOCK in self.follows

    @property
    def basis(self) -> bool:
        """Whether the columns of the result are a basis of their own."""
        return Trait.BASIS in self.traits

    @property
    def average(self) -> bool:
        """Whether it sums over the steps of training, as an average does."""
        return Trait.AVERAGE in self.traits

    @property
    def remembers(self) -> bool:
        """Whether it is made of what X has been at each step of training."""
        return self.average or Trait.RUNNING in self.traits

    @property
    def debiased(self) -> bool:
        """Whether it is made of all steps, and X itself at the first."""
        return Trait.DEBIASED in self.traits

    @property
    def norm(self) -> bool:
        """Whether it is a norm of X, up to a constant: |c| comes out, and X = 0 alone has none."""
        match self.reading:
            case SumOfEntries(power=2) | SpectralSum(power=None):
                return True
        return False

    @property
    def linear(self) -> bool:
        """Whether it is linear in X."""
        match self.reading:
            case SumOfEntries(power=1) | SpectralSum(power=1):
                return True
        return self.cuts or self.average or Trait.LINEAR in self.traits

    @property
    def degree(self) -> Fraction | None:
        """The p of f(c X) = c^p f(X) for numbers c > 0, other ones at each step; None if unknown.

        >>> [FUNCTIONS[name].degree for name in ("orth", "norm", "sqrt", "tanh", "ema")]
        [Fraction(0, 1), Fraction(1, 1), Fraction(1, 2), None, None]
        """
        if isinstance(self.reading, OfEntries):
            return self.reading.power
        if self.average:
            return None
        if self.linear or self.norm or Trait.HOMOGENEOUS in self.traits:
            return Fraction(1)
        return Fraction(0) if Trait.SCALE_FREE in self.traits else None

    @property
    def spectral(self) -> bool:
        """Whether it acts on the singular values of X and leaves the singular vectors."""
        return Trait.SPECTRAL in self.traits

    @property
    def depends_on_rank(self) -> bool:
        """Whether its size depends on how many directions X has, not on entries alone."""
        return self.spectral or self.basis or isinstance(self.reading, SpectralSum)

    @property
    def descends(self) -> bool:
        """Whether <f(X), X> is a sum without cancellation, so that -f(X) leads down from X."""
        if isinstance(self.reading, OfEntries):
            return self.reading.symmetry is Symmetry.ODD
        return Trait.DESCENT in self.traits

    @property
    def never_negative(self) -> bool:
        """Whether its values are at least zero, whatever the operands are."""
        if isinstance(self.reading, OfEntries):
            return self.reading.symmetry is not Symmetry.ODD
        return self.norm or Trait.POSITIVE in self.traits

    @property
    def keeps_sign(self) -> bool:
        """Whether it is not negative where no operand is: no entry, or of squares no eigenvalue."""
        known = self.linear or self.never_negative or isinstance(self.reading, OfEntries)
        return known or Trait.KEEPS_SIGN in self.traits


def _infix(
    name: str, signature: str, about: str, shape: ShapeOf, example: str, *follows: Follows
) -> Operator:
    return Operator(name, signature, about, shape, example, frozenset(follows))


def _function(
    signature: str,
    about: str,
    accepts: Accepted,
    example: str,
    *known: Follows | Trait,
    result: Callable[[Shape], Shape] | None = None,
    reading: Reading | None = None,
    second: SecondOperand | None = None,
    default: int | None = None,
    builder: str = "",
    weights: StepWeights | None = None,
) -> Operator:
    name = signature.partition("(")[0]

    def shape(operands: shapes.Shapes, refuse: shapes.Refuse) -> Shape:
        if not accepts.fits(operands[0]):
            raise refuse(accepts.words, f"write for example {example}, {about}")
        if second is SecondOperand.BESIDE:
            return shapes.of_entries(operands, refuse)
        return operands[0] if result is None else result(operands[0])

    return Operator(
        name, signature, about, shape, example,
        frozenset(x for x in known if isinstance(x, Follows)),
        frozenset(x for x in known if isinstance(x, Trait)),
        reading, second, default, builder or name, weights,
    )  # fmt: skip


_SPAN, _ENTRY, _WHOLE = Follows.SPAN, Follows.ENTRY, Follows.WHOLE
_ZERO, _HALF, _ONE = Fraction(0), Fraction(1, 2), Fraction(1)
_ODD, _EVEN, _NONE = Symmetry


def _rows(*rows: Operator) -> Mapping[str, Operator]:
    return {row.name: row for row in rows}


# fmt: off
OPERATORS = _rows(
    _infix("+", "X + Y", "the sum", shapes.of_sum, "G + decay*W", _SPAN, _ENTRY),
    _infix("-", "X - Y", "the difference", shapes.of_sum, "G - row_mean(G)", _SPAN, _ENTRY),
    _infix("*", "X * Y", "a multiple, or the product of entries", shapes.of_product,
           "G * G", _SPAN, _ENTRY),
    _infix("/", "X / Y", "a fraction, or the quotient of entries; 0/0 is 0", shapes.of_quotient,
           "G / norm(G)", _SPAN, _ENTRY),
    _infix("@", "X @ Y", "the product of matrices", shapes.of_matrix_product,
           "G @ (A + rho*I)**(-1)", _SPAN, _WHOLE),
    _infix("**", "X**p", "a power of a square matrix, of each entry otherwise", shapes.same,
           "A**(-1/2)", _SPAN, _ENTRY),
    _infix("neg", "-X", "minus X", shapes.same, "-G", _SPAN, _ENTRY),
    _infix(".T", "X.T", "the transpose", shapes.transposed, "G.T", _SPAN, _ENTRY),
)

FUNCTIONS = _rows(
    _function("sign(X)", "the sign of each entry of X", shapes.ENTRIES, "sign(G)", _ENTRY,
              reading=OfEntries(_ZERO, _ZERO, _ODD)),
    _function("abs(X)", "the absolute value of each entry of X", shapes.ENTRIES, "abs(G)", _ENTRY,
              reading=OfEntries(_ONE, _ONE, _EVEN)),
    _function("sqrt(X)", "the square root of each entry; a square matrix takes X**(1/2)",
              shapes.ENTRIES, "sqrt(G*G)", _ENTRY, reading=OfEntries(_HALF, _HALF, _NONE)),
    _function("atan(X)", "the arctangent of each entry of X", shapes.ENTRIES, "atan(G)", _ENTRY,
              reading=OfEntries(_ONE, _ZERO, _ODD)),
    _function("tanh(X)", "the hyperbolic tangent of each entry of X", shapes.ENTRIES, "tanh(G)",
              _ENTRY, reading=OfEntries(_ONE, _ZERO, _ODD)),
    _function("clip(X, bound)", "each entry of X cut off at -bound and bound", shapes.ENTRIES,
              "clip(G, 1)", _ENTRY, reading=OfEntries(_ONE, _ZERO, _ODD, straight=True),
              second=SecondOperand.SCALAR),
    _function("agree(X, Y)", "1 where entries of X and Y have one sign, 0 elsewhere",
              shapes.ENTRIES, "agree(ema(G, beta), G)", _ENTRY, Trait.POSITIVE, Trait.SCALE_FREE,
              reading=Formula("(1 + sign(x)*sign(y))/2"), second=SecondOperand.LIKE_FIRST),
    _function("orth(X)", "the polar factor U V^T of X = U S V^T, on the span of X",
              shapes.GRADIENT_LIKE, "orth(G)", _SPAN, _WHOLE,
              Trait.SPECTRAL, Trait.SCALE_FREE, Trait.DESCENT),
    _function("newton_schulz(X, steps)",
              "X/norm(X) after so many steps of Muon's quintic iteration", shapes.GRADIENT_LIKE,
              "newton_schulz(G, 5)", _SPAN, _WHOLE,
              Trait.SPECTRAL, Trait.SCALE_FREE, Trait.DESCENT,
              second=SecondOperand.COUNT, default=5),
    _function("polar_express(X, steps)",
              "X/norm(X) after so many steps of the Polar Express", shapes.GRADIENT_LIKE,
              "polar_express(G, 5)", _SPAN, _WHOLE,
              Trait.SPECTRAL, Trait.SCALE_FREE, Trait.DESCENT,
              second=SecondOperand.COUNT, default=5),
    _function("spectral_map(X, f)",
              "U f(S) V^T of X = U S V^T on the span of X, f a number made of sigma",
              shapes.GRADIENT_LIKE, "spectral_map(G, min(sigma, 1))", _SPAN, _WHOLE,
              Trait.SPECTRAL, second=SecondOperand.OF_SINGULAR_VALUE),
    _function("project(X, r)", "X on its r largest singular directions, the best of rank r",
              shapes.GRADIENT_LIKE, "project(G, 4)", _SPAN, _WHOLE,
              Trait.SPECTRAL, Trait.HOMOGENEOUS, Trait.DESCENT, second=SecondOperand.SCALAR),
    _function("inner(X, Y)", "the sum over entries of X times Y, for X and Y of one shape",
              shapes.GRADIENT_LIKE, "inner(G, G)", _SPAN, Trait.LINEAR, result=shapes.to_scalar,
              second=SecondOperand.LIKE_FIRST),
    _function("trace(X)", "the trace of a square X", shapes.SQUARE, "trace(A)", _SPAN,
              result=shapes.to_scalar, reading=SpectralSum(1)),
    _function("norm(X)", "the Frobenius norm of X", shapes.MATRIX, "norm(G)", _SPAN,
              result=shapes.to_scalar, reading=SumOfEntries(2, mean=False)),
    _function("specnorm(X)", "the spectral norm of X", shapes.MATRIX, "specnorm(G)", _SPAN,
              result=shapes.to_scalar, reading=SpectralSum(None)),
    _function("rms(X)", "the root mean square entry of X", shapes.MATRIX, "rms(G)", _SPAN,
              result=shapes.to_scalar, reading=SumOfEntries(2, mean=True)),
    _function("diag(X)", "the diagonal part of a square X", shapes.SQUARE, "diag(A)",
              Follows.BLOCK),
    _function("row_mean(X)", "the mean of each row of X, a column", shapes.GRADIENT_LIKE,
              "row_mean(G*G)", result=shapes.to_column, reading=SumOfEntries(1, mean=True)),
    _function("col_mean(X)", "the mean of each column of X, a row", shapes.GRADIENT_LIKE,
              "col_mean(G*G)", result=shapes.to_row, reading=SumOfEntries(1, mean=True)),
    _function("mean(X)", "the mean of all entries of X",
              shapes.GRADIENT_LIKE, "mean(abs(G))", result=shapes.to_scalar,
              reading=SumOfEntries(1, mean=True)),
    _function("row_max(X)", "the largest entry of each row of X, a column",
              shapes.GRADIENT_LIKE, "row_max(abs(G))", Trait.HOMOGENEOUS, Trait.KEEPS_SIGN,
              result=shapes.to_column, reading=LargestEntry()),
    _function("col_max(X)", "the largest entry of each column of X, a row",
              shapes.GRADIENT_LIKE, "col_max(abs(G))", Trait.HOMOGENEOUS, Trait.KEEPS_SIGN,
              result=shapes.to_row, reading=LargestEntry()),
    _function("entry_max(X)", "the largest of all entries of X", shapes.GRADIENT_LIKE,
              "entry_max(abs(G))", Trait.HOMOGENEOUS, Trait.KEEPS_SIGN,
              result=shapes.to_scalar, reading=LargestEntry()),
    _function("block(X, size)", "the diagonal blocks of a square X, size x size each",
              shapes.SQUARE, "block(A, 64)", Follows.BLOCK, second=SecondOperand.COUNT),
    _function("ema(X, beta)", "the moving average (1 - beta) sum_t beta^t X_{now - t}",
              shapes.AVERAGED, "ema(G, beta)", _SPAN, _ENTRY, Trait.AVERAGE,
              second=SecondOperand.DECAY,
              weights=StepWeights("1 - beta", "1 - beta", "beta*(1 - beta)")),
    _function("debiased(X, beta)",
              "ema(X, beta) / (1 - beta^t) at step t, so X itself at the first",
              shapes.AVERAGED, "debiased(G, beta)", _SPAN, _ENTRY, Trait.AVERAGE, Trait.DEBIASED,
              second=SecondOperand.DECAY,
              weights=StepWeights("1", "1/(1 + beta)", "beta/(1 + beta)")),
    _function("running_sum(X)", "the sum of X over all steps so far, as in Adagrad",
              shapes.AVERAGED, "running_sum(G*G)", _SPAN, _ENTRY, Trait.AVERAGE, Trait.DEBIASED,
              weights=StepWeights("1", "1", "1")),
    _function("previous(X)", "X of the step before; at the first step X itself",
              shapes.ENTRIES_UNROTATED, "previous(G)", _SPAN, _ENTRY, Trait.AVERAGE,
              Trait.DEBIASED, weights=StepWeights("1", "0", "1")),
    _function("running_max(X, beta)",
              "the largest of X, beta times X of the step before, .., entry by entry",
              shapes.ENTRIES, "running_max(G*G, 1)", _ENTRY, Trait.RUNNING, Trait.DEBIASED,
              Trait.KEEPS_SIGN, second=SecondOperand.FADING, default=1),
    _function("yogi(X, beta)", "v + (1 - beta) sign(X - v) X, v being the yogi of the step before",
              shapes.ENTRIES, "yogi(G*G, beta)", _ENTRY, Trait.RUNNING, Trait.KEEPS_SIGN,
              second=SecondOperand.DECAY),
    _function("eig(X)", "the eigenvectors of a symmetric X as columns, by falling eigenvalue",
              shapes.SQUARE, "eig(L)", _SPAN, Trait.BASIS),
    _function("sample_square(X)",
              "the mean over samples of the squared entries of X, each sample's own gradient "
              "standing for G, in which X is linear", shapes.SAMPLED, "sample_square(G)",
              Follows.SAMPLES, Trait.POSITIVE),
    _function("max(X, Y)", "the larger of two, of matrices entry by entry", shapes.ENTRIES,
              "max(1, norm(G))", _ENTRY, reading=Extreme(larger=True),
              second=SecondOperand.BESIDE, builder="maximum"),
    _function("min(X, Y)", "the smaller of two, of matrices entry by entry", shapes.ENTRIES,
              "min(1, norm(G))", _ENTRY, reading=Extreme(larger=False),
              second=SecondOperand.BESIDE, builder="minimum"),
    _function("trust(x, y)", "x/y, the trust ratio of two scalars, and 1 where one of them is zero",
              shapes.NUMBER, "trust(norm(W), norm(G))", _ENTRY, Trait.KEEPS_SIGN,
              result=shapes.to_scalar, second=SecondOperand.SCALAR),
    _function("over_layers(x)", "the sum of a scalar over all layers of the network",
              shapes.NUMBER, "over_layers(inner(G, G))",
              Trait.KEEPS_SIGN),
    _function("ascended(X)", "the gradient after the weights of every layer have moved by X",
              shapes.CHANGE, "ascended(radius*G/norm(G))", _SPAN, _WHOLE),
)
# fmt: on
