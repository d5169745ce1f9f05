"""Every refusal has three parts: what was found, what is needed, what to do.

The command line prints them and exits with code 2; a traceback is reserved for our own bugs.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Hashable, Iterable


class ScalingError(Exception):
    """A refusal that a user can act on.

    >>> print(InvalidInput("width 0", "a width of at least 1", "pass --widths 64:4096"))
    found: width 0
    needed: a width of at least 1
    do this: pass --widths 64:4096
    """

    def __init__(self, found: str, needed: str, do_this: str) -> None:
        super().__init__(found, needed, do_this)
        self.found = found
        self.needed = needed
        self.do_this = do_this

    def __str__(self) -> str:
        return f"found: {self.found}\nneeded: {self.needed}\ndo this: {self.do_this}"


class InvalidInput(ScalingError):
    """The input is malformed: a value out of range, an unknown name, an unreadable file.

    >>> from scaling import mlp, parse, read_settings
    >>> try:
    ...     read_settings(["z=1"], parse("G"), mlp())
    ... except InvalidInput as error:
    ...     print(error.found)
    setting 'z'
    """


class RuleError(InvalidInput):
    """The rule is malformed. Raised while its tree is built; the parser adds the caret.

    >>> from scaling import parse
    >>> try:
    ...     parse("G @ G")
    ... except RuleError as error:
    ...     print(error.do_this)
    transpose one side with .T, such as G @ G.T @ G
    """


class NotCovered(ScalingError):
    """The calculus has no rule of inference for this; it refuses rather than guesses.

    ``node`` is the part of a rule that is refused, ``instead`` what could stand in its place.

    >>> from scaling import derive
    >>> try:
    ...     derive("1/G")
    ... except NotCovered as error:
    ...     print(error.do_this)
    write for example G
    """

    def __init__(
        self,
        found: str,
        needed: str,
        do_this: str,
        node: Hashable | None = None,
        instead: tuple[Hashable, ...] = (),
    ) -> None:
        super().__init__(found, needed, do_this)
        self.node, self.instead = node, instead


class Conflict(ScalingError):
    """The given exponents contradict a condition that was asked for.

    >>> from scaling import solve_for
    >>> try:
    ...     solve_for("G/(norm(G) + eps)**e", "e", "c_hidden=1")
    ... except Conflict as error:
    ...     print(error.do_this)
    require what is reached, for example --require c_hidden=0
    """


def unknown(
    kind: str, name: str, known: Iterable[str], error: type[InvalidInput] = InvalidInput
) -> InvalidInput:
    """The error for a misspelt name, with the nearest known one.

    >>> print(unknown("rule", "kfca", ["kfac", "sgd"]).do_this)
    did you mean 'kfac'?
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else "choose one of these"
    if not names:
        return error(f"{kind} '{name}'", f"no {kind} at all: there is none here", "leave it out")
    return error(f"{kind} '{name}'", f"one of {', '.join(names)}", hint)


def is_finite(x: object) -> bool:
    """Whether something that a user passed is a finite number.

    >>> is_finite(0.1), is_finite(math.nan), is_finite("x")
    (True, False, False)
    """
    return isinstance(x, (int, float)) and math.isfinite(x)
