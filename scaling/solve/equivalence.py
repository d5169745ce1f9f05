"""Tables of exponents that describe the same training: classes under the abc symmetry.

    a -> a + t    b -> b - t    c -> c + gamma t    d -> d + kappa t        (t by layer)

leaves every step of training unchanged at every width (symmetry.py), so tables fall into its
orbits. Of the four parametrizations of arXiv 2407.05872 (presets.py), standard and ntk are one
orbit and mup and mean_field another, for SGD, Adam and Adafactor alike: a + b agrees within a
class, and c and the exponent of epsilon follow. gamma and kappa are read off what `derive` answers
and are nowhere written down.

Not covered: rules that are not homogeneous in the layer's input, which `shift` refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scaling.models.chain import Setting
from scaling.models.settings import read_settings
from scaling.rules.rule import Rule
from scaling.solve.derive import derive
from scaling.solve.presets import PARAMETRIZATIONS, parametrization
from scaling.solve.symmetry import compare, difference
from scaling.states.problem import Exponents, Problem


@dataclass(frozen=True)
class EquivalenceClass:
    """Names of tables in one orbit; ``shifts`` lead from the first of them to each."""

    names: tuple[str, ...]
    shifts: Mapping[str, Exponents]


def equivalence_classes(
    tables: Mapping[str, tuple[Problem, Exponents]],
) -> tuple[EquivalenceClass, ...]:
    """The classes of named tables, in the order of their first members.

    Raises:
        NotCovered: for a table with a != 0 of a rule that has no such symmetry.
    """
    classes: list[list[str]] = []
    for name, table in tables.items():
        home = next((c for c in classes if compare(*tables[c[0]], *table).equivalent), None)
        if home is None:
            classes.append([name])
        else:
            home.append(name)
    return tuple(
        EquivalenceClass(
            tuple(names), {x: difference(tables[x][1], tables[names[0]][1]) for x in names}
        )
        for names in classes
    )


def parametrization_classes(
    rule: Rule, setting: Setting | None = None
) -> tuple[EquivalenceClass, ...]:
    """The classes of the named parametrizations, c and d derived for each.

    >>> from scaling.rules.parser import parse
    >>> for found in parametrization_classes(parse("G")):
    ...     print(found.names, {k: str(found.shifts[found.names[1]].c[k]) for k in ("hidden",)})
    ('standard', 'ntk') {'hidden': '-1'}
    ('mup', 'mean_field') {'hidden': '-1'}
    """
    setting = setting or Setting()
    tables = {}
    for name in PARAMETRIZATIONS:
        chosen = read_settings(parametrization(name, setting.layers), rule, setting.layers)
        solution = derive(rule, chosen, setting)
        tables[name] = (solution.problem, solution.exponents)
    return equivalence_classes(tables)
