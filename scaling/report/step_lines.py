"""A derivation on paper: one numbered line a step, premises first.

A line refers to other lines by number, [15] / [22], where their expressions are long, and to the
parts of the rule by name: those that the rule has, and letters for what else is long and repeats.
The names are explained once, in the heading.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from scaling.report.as_latex import align
from scaling.report.references import abbreviated, quotable
from scaling.report.tables import Format, Table, render
from scaling.report.wrapping import Entry, listing, titled, wrapped
from scaling.rules.named_parts import one_line, repeated, written
from scaling.rules.rule import Rule
from scaling.rules.tree import Node
from scaling.sizes.derivation import Step
from scaling.sizes.scale import Size

SIZE_OF = {
    Size.ENTRY: "entry",
    Size.SPECTRAL: "spectral",
    Size.FROBENIUS: "Frobenius",
    Size.SCALAR: "",
}
"""The kind of size that a line of a derivation is, in a column of its own."""
OF = "entry: a typical entry; spectral: the spectral norm, on the span of the data if it acts there"
_LONG, _QUOTED = 34, 14


def timed(step: Step) -> str:
    """The subject of a step, and the step of training if it is not the first."""
    return step.subject if step.time == 1 else f"{step.subject} at step {step.time}"


@dataclass(frozen=True)
class PrintedLine:
    """One step on paper."""

    number: int
    step: Step
    subject: str
    numbers: str
    because: str
    assuming: str


@dataclass(frozen=True)
class Derivation:
    """The derivation of exponents in one place, with the texts that stand for long ones.

    ``place`` is a layer, as "hidden layer", or a tensor of a model.
    """

    rule: Rule
    place: str
    step: Step

    @cached_property
    def names(self) -> dict[Node, str]:
        """The nodes that have names, in the rule's text or here."""
        parts = repeated(self.rule.expression, self.rule.parts)
        return {node: name for name, node in reversed(parts.items())}

    def _repr_html_(self) -> str:
        return render_steps(self, Format.HTML)

    def _repr_latex_(self) -> str:
        return render_steps(self, Format.LATEX)

    @property
    def title(self) -> str:
        """The place, and the rule with its parts."""
        parts = {name: node for node, name in reversed(self.names.items())}
        text = one_line(*written(self.rule.expression, parts))
        return f"{self.label}: dW = {text}"

    @property
    def label(self) -> str:
        """The rule's name and the place."""
        return f"{self.rule.name or 'rule'}, {self.place}"

    def lines(self) -> Iterator[PrintedLine]:
        """Every step once, premises first."""
        steps = self.step.lines()
        numbers = {step: i for i, step in enumerate(steps, 1)}
        quoted = quotable(
            [self.rule.expression, *(x.node for x in steps if isinstance(x.node, Node))]
        )
        earlier: dict[int, dict[Node, str]] = {}
        for step, number in numbers.items():
            known = earlier.setdefault(step.time, dict(self.names))
            premises = {
                x.node: f"[{numbers[x]}]"
                for x in step.inputs
                if isinstance(x.node, Node) and self._is_long(x.node)
            }
            subject = self._subject(step, [premises, known])
            subject = abbreviated(subject, quoted, self.names)
            if isinstance(step.node, Node) and self._is_long(step.node):
                known[step.node] = f"[{number}]"
            short = {**known, **premises, **self.names}
            inputs = ", ".join(str(numbers[x]) for x in step.inputs)
            yield PrintedLine(
                number, step, subject, abbreviated(step.numbers, quoted, short),
                step.inference.name + (f" of {inputs}" if inputs else ""),
                abbreviated(step.assumption, quoted, short),
            )  # fmt: skip

    def _is_long(self, node: Node) -> bool:
        return node not in self.names and len(node.written(self.names)) > _QUOTED

    def _subject(self, step: Step, references: list[dict[Node, str]]) -> str:
        """The subject in terms of names, and of lines too if it is long."""
        if not isinstance(step.node, Node) or str(step.node) not in step.subject:
            return timed(step)
        text = step.node.written(self.names)
        for lines in references:
            if len(text) <= _LONG:
                break
            others = {node: line for node, line in lines.items() if node != step.node}
            text = step.node.written({**self.names, **others})
        return timed(step).replace(str(step.node), text)


def render_steps(derivation: Derivation, style: Format) -> str:
    """A derivation in one of the formats other than JSON."""
    lines = list(derivation.lines())
    if style is Format.TEXT:
        return _text(derivation.title, lines)
    if style is Format.LATEX:
        numbered = [(str(x.number), x.subject, x.step.result, x.step.inference.name) for x in lines]
        return align(derivation.title, numbered)
    columns = ("", "quantity", "size", "of", "numbers", "because", "assuming")
    rows = tuple(
        (
            str(x.number), x.subject, str(x.step.result), SIZE_OF[x.step.result.of], x.numbers,
            x.because, x.assuming,
        )
        for x in lines
    )  # fmt: skip
    inferences = dict.fromkeys(x.step.inference for x in lines)
    whys = (
        f"{i.name}: {i.statement}" + f" [{i.reference}]" * bool(i.reference) for i in inferences
    )
    return render(Table(derivation.title, columns, rows, (*whys, OF)), style)


def _text(title: str, lines: list[PrintedLine]) -> str:
    entries = []
    for x in lines:
        remarks = [f"= {x.numbers}"] if x.numbers else []
        remarks += [f"assuming {x.assuming}"] if x.assuming else []
        kind = SIZE_OF[x.step.result.of]
        cells = (f"~ {x.step.result}", kind, f"[{x.because}]")
        entries.append(Entry(x.subject, cells, tuple(remarks)))
    foot = ["", *wrapped(OF)] if any(SIZE_OF[x.step.result.of] for x in lines) else []
    return "\n".join([*titled(title), "", *listing(entries), *foot])
