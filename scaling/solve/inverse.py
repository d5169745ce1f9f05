"""The inverse question: which powers, dampings or other exponents make the answer what I ask for?

`derive` gives c, and all else that conditions fix, as formulas of the exponents that a rule leaves
open. Here the formulas are set equal to what is required and solved for some of these exponents:
maxima case by case, each case by elimination over the rationals, with the inequalities under which
it holds (affine_cases.py). Every answer is then put back into the rule, which is derived again; one
that does not give what was required is none.

>>> found = solve_for("(B + rho_B*I)**(-e_B) @ G @ (A + rho_A*I)**(-e_A)", "e_A,e_B", "c=0")
>>> print(found.answers[0])
e_A = 1, e_B = 1
>>> shampoo = "(L + rho_L*I)**(-e_L) @ G @ (R + rho_R*I)**(-e_R)"
>>> print(solve_for(shampoo, "e_L", "c=0").answers[0])
e_L = 1 - e_R; where e_R <= 1
>>> print(solve_for("G @ (A + rho*I)**(-1)", "d_rho_hidden", "c_hidden=-1").answers[0])
d_rho_hidden >= -1

Not covered, and refused by name: a product of two of the exponents that are solved for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import sympy
from sympy import Expr, S, Symbol

from scaling.models.chain import Setting
from scaling.models.settings import HasSymbols, Settings, read_settings
from scaling.rules.language import Node
from scaling.rules.parser import as_rule
from scaling.rules.rule import Rule
from scaling.sizes.affine_cases import (
    Elimination,
    cases,
    cleared,
    feasible,
    implied,
    solved,
    vanishes,
)
from scaling.sizes.errors import Conflict, InvalidInput, NotCovered, ScalingError, unknown
from scaling.sizes.in_notebook import InNotebook
from scaling.solve.asked_network import AskedNetwork, OnChain
from scaling.solve.derive import Derived
from scaling.solve.graph_solution import GraphDerived
from scaling.states.problem import Exponents, Problem

Answered = Derived | GraphDerived

STANDS_FOR = "unknown_"
"""The head of the symbol that stands for an exponent of a layer while it is solved for."""


@dataclass(frozen=True)
class Requirement:
    """An exponent of a layer that is to have a value.

    ``formula`` is what `derive` gives, ``alone`` what this requirement asks by itself, in words.
    """

    key: str
    layer: str
    value: Expr
    formula: Expr
    alone: str = ""


@dataclass(frozen=True)
class Answer:
    """Values of the unknowns that meet every requirement, where the conditions hold."""

    values: Mapping[str, Expr]
    where: tuple[str, ...]
    again: Answered
    exponents: Exponents
    """Derived again."""

    def exponent(self, of: Requirement) -> Expr:
        """The exponent of a requirement, derived again."""
        return _at(self.exponents, of.key, of.layer)

    def __str__(self) -> str:
        return _told(self.values, self.where)


@dataclass(frozen=True)
class Inverse(InNotebook):
    """The answers to an inverse question; at least one, or it is refused."""

    derived: Answered
    unknowns: tuple[str, ...]
    required: tuple[Requirement, ...]
    answers: tuple[Answer, ...]


def solve_for(
    rule: Rule | Node | str,
    unknowns: str | Sequence[str],
    require: str | Sequence[str],
    settings: Settings | Iterable[str] | None = None,
    setting: Setting | None = None,
    sampled_fisher: bool = False,
    step: int = 1,
    rounding_noise: bool = False,
) -> Inverse:
    """Solve for exponents that make derived ones what is required.

    Args:
        rule: the update rule, as an object, a tree or text.
        unknowns: keys as in ``--set``: exponents of the rule (e_A), or a, b, c, d_<name>, each bare
            (one unknown a layer) or of a layer (d_rho_A_hidden).
        require: ``key=value`` texts for a, b, c or d_<name>; bare: in all layers.
        settings: exponents and symbols held fixed, also as ``key=value`` texts.
        setting: network, activation and loss.
        sampled_fisher: K-FAC's B from sampled instead of the loss's own cotangents.
        step: 2 for what is stable at the second step too.
        rounding_noise: zeros in eigenbases are read as floating point has them.

    Raises:
        Conflict: if there is no answer; with what could be asked instead.
        NotCovered: if the calculus does not cover the rule, or unknowns multiply.
        InvalidInput: for a key that is none, or that is given as well.

    >>> print(solve_for("G/(norm(G) + eps)**e", "e", "c_input=0").answers[0])
    e = 2
    """
    asked, network = as_rule(rule), setting or Setting()
    if not isinstance(settings, Settings):
        settings = read_settings(settings or (), asked, network.layers)
    problem = Problem(
        asked, network, settings, sampled_fisher, step=step, rounding_noise=rounding_noise
    )
    return solve_on(OnChain(problem), unknowns, require)


def solve_on(
    asked: AskedNetwork, unknowns: str | Sequence[str], require: str | Sequence[str]
) -> Inverse:
    """The same on any network: c of the readout of a model, say, by the name of its tensor.

    >>> from scaling.models.architectures import perceptron
    >>> from scaling.models.recipe import as_recipe
    >>> from scaling.solve.asked_network import OnGraph
    >>> model = OnGraph(as_recipe("G @ (A + rho*I)**(-e)"), perceptron(3))
    >>> print(solve_on(model, "e", "c_output=0").answers[0])
    e = 1
    """
    question = _Question(asked, _unknowns(asked, _split(unknowns)), _split(require))
    return question.answered()


def _split(texts: str | Sequence[str]) -> list[str]:
    """The parts of a list that commas make."""
    joined = texts if isinstance(texts, str) else ",".join(texts)
    return list(dict.fromkeys(part.strip() for part in joined.split(",") if part.strip()))


def _unknowns(asked: AskedNetwork, keys: Sequence[str]) -> dict[str, Symbol]:
    """The names of what is solved for, and their symbols."""
    rule, found = asked.rule, dict[str, Symbol]()
    if not keys:
        raise InvalidInput("nothing to solve for", "names of exponents", _example(rule))
    for key in keys:
        if key in rule.exponents:
            found[key] = Symbol(key)
            continue
        if key in rule.scaled or key in rule.constants:
            do_this = f"solve for d_{key}" if key in rule.scaled else _example(rule)
            raise InvalidInput(f"the constant {key} to solve for", "an exponent", do_this)
        places = _flat(read_settings([f"{key}=x"], rule, asked.layers))
        found |= {name: Symbol(STANDS_FOR + name) for name in places}
    given = {*_flat(asked.settings), *asked.settings.exponents}
    for name in found:
        if name in given:
            raise InvalidInput(
                f"{name} given and solved for", "one of the two", f"leave out --set {name}=..."
            )
    return found


def _example(rule: HasSymbols) -> str:
    names = rule.exponents or tuple(f"d_{name}" for name in rule.scaled) or ("b_output",)
    return f"write for example --solve-for {','.join(names[:2])} --require c=0"


def _flat(settings: Settings) -> dict[str, Expr]:
    """Exponents of layers by name: c_hidden, d_rho_A_output."""
    named = {f"{k}_{name}": x for k in "abc" for name, x in getattr(settings, k).items()}
    return named | {f"d_{k}_{name}": x for (k, name), x in settings.d.items()}


def _has(x: Exponents, key: str, layer: str) -> bool:
    return layer in x.b and (not key.startswith("d_") or key[2:] in x.d[layer])


def _at(x: Exponents, key: str, layer: str) -> Expr:
    """The derived exponent of a layer."""
    return x.d[layer][key[2:]] if key.startswith("d_") else getattr(x, key)[layer]


def _told(values: Mapping[str, Expr], where: Sequence[str]) -> str:
    """An answer in one line."""
    equal = ", ".join(f"{name} = {value}" for name, value in values.items() if str(value) != name)
    return "; where ".join(filter(None, (equal, ", ".join(where)))) or "anything"


@dataclass(frozen=True)
class _Found:
    """Values that solve the equations where ``where`` is at least zero and ``nonzero`` is not."""

    values: Mapping[Symbol, Expr]
    where: tuple[Expr, ...]
    nonzero: tuple[Expr, ...]

    def holds(self, other: _Found) -> bool:
        """Whether every value of the other is one of this."""

        def put(x: Expr) -> Expr:
            return sympy.expand(x.subs(other.values, simultaneous=True))

        same = all(put(u - value) == 0 for u, value in self.values.items())
        return same and not self.nonzero and all(implied(put(x), other.where) for x in self.where)


class _Question:
    """A question about a rule: unknowns by name, and requirements as they were written."""

    def __init__(self, asked: AskedNetwork, symbols: Mapping[str, Symbol], require: Sequence[str]):
        self.asked, self.symbols = asked, symbols
        self.unknowns = list(symbols.values())
        self.free = {s: Symbol(n) for n, s in symbols.items()}
        self.bounds = tuple(
            Symbol(e) for e in asked.rule.exponents if e not in asked.settings.exponents
        )
        self.derived = self.again({s: s for s in self.unknowns})
        self.exponents = asked.exponents(self.derived)
        self.required = self._read(require)

    def answered(self) -> Inverse:
        """The answers, each put back and derived again."""
        found, refused = self.solutions(self.required)
        answers, failed = [], list[str]()
        for one in found:
            back, why = self._back(one, self.required)
            if back is None:
                told = _told(self._values(one), self._where(one))
                failed.append(f"{told} solves them, but {why}")
            else:
                values, where = self._values(one), self._where(one)
                answers.append(Answer(values, where, back, self.asked.exponents(back)))
        if not answers:
            raise self._none([*failed, *refused])
        alone = tuple(
            replace(r, formula=self._named(r.formula), alone=self._alone(r)) for r in self.required
        )
        return Inverse(self._shown(self.derived), tuple(self.symbols), alone, tuple(answers))

    def again(self, values: Mapping[Symbol, Expr]) -> Answered:
        """The rule derived with values for the unknowns."""
        settings, asked = self.asked.settings, self.asked
        changed = {"b": {**settings.b}, "a": {**settings.a}, "c": {**settings.c}}
        d, exponents = {**settings.d}, {**settings.exponents}
        places = {f"d_{k}_{n.name}": (k, n.name) for k in asked.rule.scaled for n in asked.layers}
        for name, symbol in self.symbols.items():
            value = values.get(symbol, symbol)
            if name in places:
                d[places[name]] = value
            elif symbol.name.startswith(STANDS_FOR):
                changed[name[0]][name[2:]] = value
            elif value != symbol:
                exponents[name] = value
        given = Settings(changed["a"], changed["b"], changed["c"], d, exponents, settings.values)
        try:
            found: Answered = asked.derived(given.closed())
        except ScalingError as error:
            raise _renamed(error) from None
        return found

    def _read(self, require: Sequence[str]) -> list[Requirement]:
        rule = self.asked.rule
        read = read_settings(require, rule, self.asked.layers)
        if not require or read.exponents or read.values:
            named = [*read.exponents, *read.values]
            raise InvalidInput(
                f"the requirement on {named[0]}" if named else "no requirement",
                "a value for a derived exponent: a, b, c or d_<name>, perhaps of a layer",
                _example(rule),
            )
        found, keys = [], ("a", "b", "c", *(f"d_{x}" for x in rule.scaled))
        for name, value in _flat(read).items():
            places = ((k, name[len(k) + 1 :]) for k in keys if name.startswith(f"{k}_"))
            for key, layer in places:
                if _has(self.exponents, key, layer):
                    formula = _at(self.exponents, key, layer)
                    found.append(Requirement(key, layer, value, formula))
        written = {text.partition("=")[0].strip() for text in require}
        known = {f"{r.key}_{r.layer}" for r in found}
        lacks = sorted((written & set(_flat(read))) - known)
        if lacks or not found:
            raise unknown("exponent", min(lacks or written), self._exponents())
        return found

    def _exponents(self) -> list[str]:
        """The names of all derived exponents."""
        x = self.exponents
        scaled = [f"d_{k}_{name}" for name, own in x.d.items() for k in own]
        return [*(f"{key}_{name}" for key in "cba" for name in x.b), *scaled]

    # --- solving ----------------------------------------------------------------------------------

    def solutions(self, required: Sequence[Requirement]) -> tuple[list[_Found], list[str]]:
        """Solutions of the equations, and for cases that have none: why not."""
        found, why = list[_Found](), dict[str, None]()
        equations = [r.formula - r.value for r in required]
        if any(x.has(S.Infinity, S.NaN) for x in equations):
            return [], ["an exponent that is required to be finite is oo"]
        for values, held in cases(equations, self.bounds):
            done = self._eliminated(values)
            if done.left:
                why[self._asked_of_others(done.left)] = None
                continue
            put = [cleared(x.subs(done.values, simultaneous=True), self.bounds) for x in held]
            if not feasible([*put, *self.bounds]):
                low = [u for u in self.bounds if done.values.get(u, S.Zero).is_negative]
                why |= {f"they need {u} = {done.values[u]}, a negative power": None for u in low}
                continue
            found.append(_Found(done.values, self._reduced(put), done.nonzero))
        kept = list[_Found]()
        for i, one in enumerate(found):
            others = [*kept, *found[i + 1 :]]
            if not any(other.holds(one) for other in others):
                kept.append(one)
        return kept, list(why)

    def _eliminated(self, zero: Sequence[Expr]) -> Elimination:
        try:
            return solved(zero, self.unknowns)
        except NotCovered as error:
            raise _renamed(error) from None

    def _reduced(self, conditions: Iterable[Expr]) -> tuple[Expr, ...]:
        """Without conditions that follow from the others."""
        kept = [x for x in dict.fromkeys(conditions) if x not in self.bounds and not x.is_number]
        for x in list(kept):
            rest = [y for y in kept if y is not x]
            if implied(x, [*rest, *self.bounds]):
                kept = rest
        return tuple(kept)

    def _back(self, found: _Found, required: Sequence[Requirement]) -> tuple[Answered | None, str]:
        """The rule derived with the answer, or what it gives in the place of what is required."""
        try:
            back = self.again(found.values)
        except ScalingError as error:
            return None, f"the rule is refused with it: {error.found}"
        where = (*found.where, *self.bounds)
        for r in required:
            value = _at(self.asked.exponents(back), r.key, r.layer)
            if value.has(S.Infinity, S.NaN) or not vanishes(value - r.value, where):
                return None, f"the rule has {r.key}_{r.layer} = {self._named(value)} with it"
        return self._shown(back), ""

    # --- words ------------------------------------------------------------------------------------

    def _shown(self, found: Answered) -> Answered:
        """With the names of unknowns in the place of what stands for them."""
        named = {s: x for s, x in self.free.items() if s != x}
        shown: Answered = self.asked.renamed(found, named)
        return shown

    def _named(self, x: Expr) -> Expr:
        return x.xreplace(self.free)

    def _values(self, found: _Found) -> dict[str, Expr]:
        return {
            name: self._named(found.values.get(symbol, symbol))
            for name, symbol in self.symbols.items()
        }

    def _where(self, found: _Found) -> tuple[str, ...]:
        return (
            *(_inequality(self._named(x)) for x in found.where),
            *(f"{self._named(x)} != 0" for x in found.nonzero),
        )

    def _asked_of_others(self, zero: Sequence[Expr]) -> str:
        """The demands of equations without an unknown on the other symbols."""
        others = sorted({s for x in zero for s in x.free_symbols}, key=str)
        done = solved(zero, others)
        if done.left or not others:
            return "no values meet all of that"
        return f"they need {_told({str(k): v for k, v in done.values.items()}, ())}"

    def _alone(self, r: Requirement) -> str:
        """The demands of one requirement by itself."""
        if vanishes(r.formula - r.value, self.bounds):
            return "nothing"
        found, why = self.solutions([r])
        told = [
            _told({n: x for n, x in self._values(one).items() if Symbol(n) != x}, self._where(one))
            for one in found
        ]
        return " or ".join(told) or "; ".join(why)

    def _none(self, why: Sequence[str]) -> Conflict:
        asked = [f"{r.key}_{r.layer} = {self._named(r.formula)}" for r in self.required]
        wanted = sorted({str(r.value) for r in self.required})
        return Conflict(
            f"no {', '.join(self.symbols)} with which {', '.join(asked)} is {' and '.join(wanted)}"
            + "".join(f"; {text}" for text in dict.fromkeys(why)),
            "requirements that some values of these exponents meet",
            self._instead(),
        )

    def _instead(self) -> str:
        """Another question, which has an answer."""
        rule = self.asked.rule
        free = {s.name for r in self.required for s in (r.formula - r.value).free_symbols}
        more = [e for e in rule.exponents if e in free and e not in self.symbols]
        if more:
            names = {**self.symbols, **{e: Symbol(e) for e in more}}
            texts = [f"{r.key}_{r.layer}={r.value}" for r in self.required]
            try:
                asked = _Question(self.asked, names, texts).answered()
                return f"solve for {', '.join(more)} as well: {asked.answers[0]}"
            except ScalingError:
                pass
        kept = list[Requirement]()
        for r in self.required:
            try:
                found = self.solutions([*kept, r])[0]
            except NotCovered:
                continue
            if any(self._back(one, [*kept, r])[0] for one in found):
                kept.append(r)
        if kept:
            texts = [f"{r.key}_{r.layer}={r.value}" for r in kept]
            return f"require less, for example --require {','.join(texts)}"
        r = self.required[0]
        reached = self._named(sympy.expand(r.formula.subs(dict.fromkeys(self.unknowns, 1)).doit()))
        return f"require what is reached, for example --require {r.key}_{r.layer}={reached}"


def _renamed(error: ScalingError) -> ScalingError:
    """The same refusal, with the names of unknowns in the place of what stands for them."""
    found, needed, do_this = (
        part.replace(STANDS_FOR, "") for part in (error.found, error.needed, error.do_this)
    )
    return type(error)(found, needed, do_this)


def _inequality(x: Expr) -> str:
    """The condition x >= 0, solved for its symbol where it has one."""
    symbols = sorted(x.free_symbols, key=str)
    first = symbols[0]
    factor = x.coeff(first)
    if len(symbols) > 1 or not factor.is_Rational or factor == 0:
        return f"{x} >= 0"
    bound = (factor * first - x) / factor
    return f"{first} {'>=' if factor > 0 else '<='} {bound}"
