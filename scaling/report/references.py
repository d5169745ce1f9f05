"""Short texts in the place of long ones, where a sentence quotes parts of a rule.

Sentences of a derivation quote nodes as their text. A text is put in place of another only where
the brackets and operators around it cannot come to mean something else: a call anywhere, anything
else between quotes, commas, brackets, or words that are no operators.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from scaling.rules.tree import Call, Node

_BEFORE, _AFTER = r"(?:^|(?<=[('])|(?<=[^-+@] ))", r"(?=$|[)',:;]| (?![-+@]))"
_ATOM = re.compile(r"\[\d+\]|\w+")


def quotable(roots: Iterable[Node]) -> dict[str, Node]:
    """Every node below the roots by its text, the longest text first."""
    texts = {str(node): node for root in roots for node in root.walk()}
    return dict(sorted(texts.items(), key=lambda x: len(x[0]), reverse=True))


def abbreviated(sentence: str, quoted: Mapping[str, Node], names: Mapping[Node, str]) -> str:
    """A sentence that quotes nodes in terms of names.

    >>> from scaling.rules.language import A, I, G, norm, symbol
    >>> damped = A + symbol("rho") * I
    >>> known = quotable([norm(G @ damped)])
    >>> abbreviated("A + rho*I ~ M, norm(G @ (A + rho*I))/2 ~ 1", known, {damped: "[3]"})
    '[3] ~ M, norm(G @ [3])/2 ~ 1'
    >>> abbreviated("G @ A + rho*I", known, {damped: "[3]"})  # (G @ A) + rho*I
    'G @ A + rho*I'
    """
    for text, node in quoted.items():
        if text not in sentence or (short := node.written(names)) == text:
            continue
        exact, literal = re.escape(text), short.replace("\\", r"\\")
        if _ATOM.fullmatch(short):
            sentence = re.sub(rf"(?<!\w)\({exact}\)", literal, sentence)
        alone = rf"(?<![\w.]){exact}" if isinstance(node, Call) else f"{_BEFORE}{exact}{_AFTER}"
        sentence = re.sub(alone, literal, sentence)
    return sentence
