"""Named parts of a rule: ``P @ orth(G) where P = (B + rho*I)**(-1)``.

A part is an abbreviation of the text. The tree of the rule is the one without names, so a rule has
one meaning however it is spelt; names serve those who read it.

    split       text -> the rule itself and the definitions after ``where``, each with its place
    faults      names that clash, parts out of order or without use: column and refusal
    written     tree and names -> text
    repeated    names for what is long and stands in a tree more than once

A part may use those before it. Its name is a word that means nothing else: no matrix of the layer,
no function, no hyper-parameter that scales.
"""

from __future__ import annotations

import keyword
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from scaling.rules.operators import FUNCTIONS
from scaling.rules.symbols import FANS, MATRICES, SymbolKind, kind_of
from scaling.rules.tree import Node
from scaling.sizes.errors import RuleError

WHERE = "where"
LETTERS = ("P", "Q", "S", "T", "U", "V", "X", "Y", "Z", "C", "D", "E", "F", "H", "J", "K", "M", "N")
"""Names for parts that have none: upper case letters that are no matrix of the layer."""
_WORTH = 16
_DEFINITION = re.compile(r"\s*(\w+)\s*=(?!=)\s*")
_WORD = re.compile(r"(?<![\w.])[^\W\d]\w*")


@dataclass(frozen=True)
class Part:
    """A stretch of text that is one expression; ``name`` is empty for the rule itself.

    ``at`` is the column of the name, ``start`` that of the expression.
    """

    name: str
    at: int
    start: int
    text: str

    def column(self, word: str) -> int:
        """Where a word of the expression stands in the whole text."""
        return self.start + next(x.start() for x in _WORD.finditer(self.text) if x[0] == word)

    def __str__(self) -> str:
        return f"{self.name} = {self.text.strip()}"


def words(text: str) -> set[str]:
    """The words in a text, attributes such as .T apart."""
    return set(_WORD.findall(text))


def one_line(text: str, parts: Mapping[str, str]) -> str:
    """A rule and its parts as one line, which parses to the same tree."""
    listed = ", ".join(f"{name} = {part}" for name, part in parts.items())
    return f"{text} {WHERE} {listed}" if parts else text


# --- from text ------------------------------------------------------------------------------------


def split(text: str) -> tuple[Part, list[Part]]:
    """The rule itself, and what is defined after ``where``; a part without '=' has no name.

    >>> head, parts = split("P @ G where P = (B + rho*I)**(-1)")
    >>> head.text, [str(part) for part in parts]
    ('P @ G ', ['P = (B + rho*I)**(-1)'])
    """
    found = re.search(rf"\b{WHERE}\b", text)
    if found is None:
        return Part("", 0, 0, text), []
    head = Part("", 0, 0, text[: found.start()])
    return head, [_part(text, start, end) for start, end in _pieces(text, found.end())]


def _pieces(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Where each stretch between commas outside of brackets begins and ends."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] in "([") - (text[i] in ")]")
        if text[i] == "," and depth == 0:
            yield start, i
            start = i + 1
    yield start, len(text)


def _part(text: str, start: int, end: int) -> Part:
    definition = _DEFINITION.match(text, start, end)
    if definition is None:
        first = end - len(text[start:end].lstrip())
        return Part("", first, first, text[first:end])
    return Part(definition[1], definition.start(1), definition.end(), text[definition.end() : end])


def faults(head: Part, parts: Sequence[Part]) -> Iterator[tuple[int, RuleError]]:
    """Everything wrong with the names and the order of parts: the column, and the refusal.

    >>> for text in ("P @ G where P = P + B", "P @ G where P = Q + B, Q = L"):
    ...     for column, error in faults(*split(text)):
    ...         print(column, error.found, "->", error.do_this)
    16 the part 'P' in terms of itself -> give the P on the right another name, or write it out
    16 'Q', which is defined after it is used -> define it first: P @ G where Q = L, P = Q + B
    """
    for part in parts:
        if WHERE in words(part.text):
            yield part.column(WHERE), _second_where(head, parts)
            return
    taken = {name for part in (head, *parts) for name in (part.name, *words(part.text))}
    for i, part in enumerate(parts):
        error = _misnamed(part, [x.name for x in parts[:i]], another_name(taken), head)
        if error is not None:
            yield part.at, error
    names = [part.name for part in parts]
    for i, part in enumerate(parts):
        for name in (name for name in names[i:] if name in words(part.text)):
            yield part.column(name), _too_early(part, parts[names.index(name)], head, parts)
    for part in parts:
        rest = [x for x in parts if x is not part]
        if not any(part.name in words(x.text) for x in (head, *rest)):
            yield (
                part.at,
                RuleError(
                    f"the part '{part.name}', which nothing uses",
                    "parts that the rule uses",
                    f"leave it out: {_rule(head, rest)}",
                ),
            )


def meaning(name: str) -> str:
    """Another meaning of a name in the language; empty if a part may have it.

    >>> [meaning(name) for name in ("A", "norm", "rho_A", "fan_in", "P", "pi")]
    ['a matrix of the layer', 'a function', 'a damping', 'a side of the layer', '', '']
    """
    if name in MATRICES:
        return "a matrix of the layer"
    if name in FUNCTIONS:
        return "a function"
    if name in FANS:
        return "a side of the layer"
    if keyword.iskeyword(name) or not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        return "no word of letters and digits"
    kind = SymbolKind.CONSTANT if name[0].isupper() else kind_of(name)
    return "" if kind is SymbolKind.CONSTANT else f"a{'n' * (kind[0] in 'aeiou')} {kind}"


def another_name(taken: Collection[str]) -> str:
    """A name for a part that is not taken yet."""
    numbered = (f"P_{i}" for i in range(1, len(taken) + 2))
    return next(name for name in (*LETTERS, *numbered) if name not in taken)


def _rule(head: Part, parts: Sequence[Part]) -> str:
    return one_line(head.text.strip(), {part.name: part.text.strip() for part in parts})


def _second_where(head: Part, parts: Sequence[Part]) -> RuleError:
    text = re.sub(rf",?\s*\b{WHERE}\b", ",", ", ".join(map(str, parts)))
    return RuleError(
        f"a second '{WHERE}'",
        f"one '{WHERE}', and commas between the parts after it",
        f"write {head.text.strip()} {WHERE} {text}",
    )


def _misnamed(part: Part, before: Sequence[str], free: str, head: Part) -> RuleError | None:
    if not part.name and not part.text.strip():
        return RuleError(
            f"no part after '{WHERE}' or a comma",
            "a name, '=' and an expression",
            f"end the rule before it: {head.text.strip()}",
        )
    if not part.text.strip():
        return RuleError(
            f"the part '{part.name}' without an expression",
            "a name, '=' and an expression",
            f"write for example {part.name} = G",
        )
    if not part.name:
        return RuleError(
            f"'{part.text.strip()}' in place of a part",
            "a name, '=' and an expression",
            f"give it a name, and use that: {WHERE} {free} = {part.text.strip()}",
        )
    if part.name in before:
        found = f"a second part '{part.name}'"
    elif other := meaning(part.name):
        found = f"'{part.name}', {other}, as the name of a part"
    else:
        return None
    return RuleError(
        found,
        "a word that means nothing else in the rule",
        f"call it {free}: {WHERE} {free} = {part.text.strip()}",
    )


def _too_early(part: Part, other: Part, head: Part, parts: Sequence[Part]) -> RuleError:
    needed = "parts made of matrices, names and the parts before them"
    if other is part:
        return RuleError(
            f"the part '{part.name}' in terms of itself",
            needed,
            f"give the {part.name} on the right another name, or write it out",
        )
    if part.name in _reached(other, parts):
        return RuleError(
            f"the parts '{part.name}' and '{other.name}', each in terms of the other",
            needed,
            f"write one of them out: '{other.name}' without '{part.name}'",
        )
    return RuleError(
        f"'{other.name}', which is defined after it is used",
        needed,
        f"define it first: {_rule(head, _sorted(parts))}",
    )


def _sorted(parts: Sequence[Part]) -> list[Part]:
    """The parts, each after those that it is made of, as far as that is possible."""
    left, done = list(parts), list[Part]()
    while left:
        names = {x.name for x in left}
        ready = (x for x in left if not words(x.text) & names)
        done.append(next(ready, left[0]))
        left.remove(done[-1])
    return done


def _reached(part: Part, parts: Sequence[Part]) -> set[str]:
    """The names of the parts that a part is made of, directly or not."""
    texts = {x.name: x.text for x in parts}
    found, new = set[str](), words(part.text) & set(texts)
    while new - found:
        found |= new
        new = {name for x in found for name in words(texts[x]) & set(texts)}
    return found


# --- to text --------------------------------------------------------------------------------------


def written(node: Node, parts: Mapping[str, Node]) -> tuple[str, dict[str, str]]:
    """The text of a node in terms of named parts, and of each part that it needs.

    >>> from scaling.rules.language import B, G, orth
    >>> written(B @ orth(G) + orth(G), {"P": orth(G), "Q": B @ orth(G)})
    ('Q + P', {'P': 'orth(G)', 'Q': 'B @ P'})
    """
    names: dict[Node, str] = {}
    texts: dict[str, str] = {}
    for name, part in parts.items():
        texts[name] = part.written(names)
        names.setdefault(part, name)
    text = node.written(names)
    needed = words(text)
    for name in reversed(texts):
        if name in needed:
            needed |= words(texts[name])
    return text, {name: x for name, x in texts.items() if name in needed}


def repeated(node: Node, parts: Mapping[str, Node]) -> dict[str, Node]:
    """The parts of a rule, and names for what else is long and stands in it more than once.

    Each name goes where it saves most, until nothing long is left that repeats.

    >>> from scaling.rules.parser import parse
    >>> rule = parse("norm(G) / norm((B + rho*I)**(-1) @ G) * ((B + rho*I)**(-1) @ G)")
    >>> written(rule.expression, repeated(rule.expression, {}))
    ('norm(G)/norm(P)*P', {'P': '(B + rho*I)**(-1) @ G'})
    """
    found = dict(parts)
    while True:
        names = {part: name for name, part in found.items()}
        roots = (node, *found.values())
        counts = Counter(x for root in roots for x in _shown(root, names))
        texts = {x: x.written(names) for x, count in counts.items() if count > 1}
        long = [x for x, text in texts.items() if len(text) >= _WORTH]
        if not long:
            return _in_order(found) if len(found) > len(parts) else found
        best = max(long, key=lambda x: (counts[x] - 1) * len(texts[x]))
        found[another_name({*found, *words(str(node))})] = best


def _shown(root: Node, names: Mapping[Node, str]) -> Iterator[Node]:
    """The nodes below a root that its text spells out, given names for some."""
    for child in root.children:
        if child not in names:
            yield child
            yield from _shown(child, names)


def _in_order(parts: Mapping[str, Node]) -> dict[str, Node]:
    """The parts, each before those that are made of it."""
    return dict(sorted(parts.items(), key=lambda part: len(str(part[1]))))
