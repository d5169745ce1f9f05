"""What a user of the command line asks: a rule by name or text, as a problem with its answer.

With cli.py this is where theory, catalogue and measurement meet. Nothing here imports sympy or
torch before it is needed: `scaling --help` must be quick, and verbs that derive must not wait for
torch.
"""

from __future__ import annotations

import gc
import re
from typing import TYPE_CHECKING

from scaling.errors import InvalidInput
from scaling.options import FisherName, LossName, Phi

if TYPE_CHECKING:
    from derivations.declaration import Optimizer
    from scaling.problem import Exponents, Problem
    from scaling.scale import Bounds
    from scaling.solve import Derived


def catalogue_names() -> list[str]:
    """All names of the catalogue."""
    from derivations.catalogue import catalogue

    return list(catalogue())


def resolve(text: str) -> Optimizer:
    """A catalogue entry, or rule text as an undeclared optimizer."""
    from derivations.catalogue import catalogue, find
    from derivations.declaration import Optimizer
    from scaling.parser import parse

    name = text.strip()
    if name in catalogue() or re.fullmatch(r"[A-Za-z]\w{1,}", name):
        return find(name)
    parse(name)
    return Optimizer(name="", update=name, about="", reference="")


def problem_of(
    rule: str,
    settings: list[str] | None,
    depth: int = 3,
    biases: bool = False,
    activation: Phi = Phi.relu,
    loss: LossName = LossName.mse,
    fisher: FisherName = FisherName.empirical,
    init: str | None = None,
    alignment: str = "derived",
    practice: bool = False,
) -> Problem:
    """Everything that fixes what an exponent means.

    ``practice`` gives the rule's exponent symbols the values that its declaration names, where the
    user gave none: measurements need numbers, derivations keep the symbols.
    """
    from dataclasses import replace

    from sympy import Rational

    from scaling.ledger import Activation, Loss, Setting, mlp
    from scaling.presets import alignment as read_alignment
    from scaling.presets import parametrization
    from scaling.problem import Problem
    from scaling.settings import read_settings

    layers = mlp(depth, biases)
    phi = next(member for member in Activation if member.label == activation)
    declared = resolve(rule)
    preset = [] if init is None else parametrization(init, layers)
    chosen = read_settings([*preset, *(settings or [])], declared.rule, layers)
    if practice:
        usual = {k: Rational(*x.as_integer_ratio()) for k, x in declared.exponents.items()}
        chosen = replace(chosen, exponents={**usual, **chosen.exponents})
    setting = Setting(layers, phi, Loss(loss), read_alignment(alignment))
    return Problem(declared.rule, setting, chosen, fisher is FisherName.true)


def solution_of(problem: Problem, literal: bool = False) -> Derived:
    """The derived exponents; ``literal`` ignores all settings but symbols of the rule."""
    from scaling.settings import Settings
    from scaling.solve import derive

    settings = problem.settings
    if literal:
        settings = Settings(exponents=settings.exponents)
    return derive(problem.rule, settings, problem.setting, sampled_fisher=problem.sampled_fisher)


def literal_of(problem: Problem) -> tuple[Exponents, Bounds]:
    """The derived table with what is set taken literally, and what is known of its symbols."""
    from sympy import S, Symbol

    solution = solution_of(problem, literal=True)
    table = solution.exponents.updated(problem.settings)
    known = {b.name: (S.Zero, S.Infinity) for b in table.b.values() if isinstance(b, Symbol)}
    return table, problem.bounds(known)


def lazily(module: str):  # type: ignore[no-untyped-def]
    """A module that measures, imported when it is needed."""
    import importlib

    gc.enable()
    try:
        return importlib.import_module(f"empirical.{module}")
    except ModuleNotFoundError as error:
        raise missing_package(error) from None


def missing_package(error: ModuleNotFoundError) -> InvalidInput:
    """What to install; our own modules cannot be missing, so that is a bug and stays one."""
    if error.name is None or error.name.split(".")[0] in ("empirical", "scaling", "derivations"):
        raise error
    if error.name.split(".")[0] in ("dask", "distributed"):
        extra, what = "cluster", "a Dask cluster needs"
    else:
        extra, what = "empirical", "measuring needs"
    return InvalidInput(
        f"no package '{error.name}', which {what}",
        f"the extra '{extra}' of this package",
        f"pip install 'scaling[{extra}]'",
    )
