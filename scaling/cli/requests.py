"""The questions of the command line: a rule by name or text, as a problem with its answer.

With main.py this is where theory, catalogue and measurement meet. Nothing here imports sympy or
torch before it is needed: `scaling --help` must be quick, and verbs that derive must not wait for
torch.
"""

from __future__ import annotations

import gc
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from scaling.cli.options import FisherName, NetworkOptions, NumberOptions, RoundingName
from scaling.sizes.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from derivations.declaration import Optimizer
    from empirical.verify.subject import Subject
    from scaling.models.batch import Batch
    from scaling.sizes.scale import Bounds
    from scaling.solve.derive import Derived
    from scaling.solve.presets import MeasuredAlignment
    from scaling.states.problem import Exponents, Problem

NETWORK = NetworkOptions()


def catalogue_names() -> list[str]:
    """All names of the catalogue."""
    from derivations.catalogue import catalogue

    return list(catalogue())


def resolve(text: str) -> Optimizer:
    """A catalogue entry, or rule text as an undeclared optimizer."""
    from derivations.catalogue import resolve

    return resolve(text)


def problem_of(
    rule: str,
    settings: Sequence[str] | None,
    network: NetworkOptions = NETWORK,
    *,
    init: str | None = None,
    alignment: Sequence[str] | None = None,
    step: int = 1,
    rounding: RoundingName = RoundingName.exact,
    practice: bool = False,
    measured: MeasuredAlignment | None = None,
    numbers: Batch | None = None,
) -> Problem:
    """Everything that fixes what an exponent means.

    ``practice`` gives the rule's exponent symbols the values that its declaration names, where the
    user gave none: measurements need numbers, derivations keep the symbols. ``measured`` is what
    finds the alignment of that name, ``numbers`` those of the data.
    """
    from dataclasses import replace

    from sympy import Rational

    from scaling.models.batch import Batch, BatchGrowth
    from scaling.models.chain import Activation, Loss, Setting, mlp
    from scaling.models.settings import read_settings
    from scaling.solve.presets import alignments, parametrization
    from scaling.states.problem import Problem

    layers = mlp(network.depth, network.biases)
    phi = next(member for member in Activation if member.label == network.activation)
    declared = resolve(rule)
    named = [] if init is None else parametrization(init, layers)
    preset = read_settings(named, declared.rule, layers)
    chosen = read_settings([*named, *(settings or [])], declared.rule, layers)
    if practice:
        usual = {k: Rational(*x.as_integer_ratio()) for k, x in declared.exponents.items()}
        chosen = replace(chosen, exponents={**usual, **chosen.exponents}).closed()
    assumed = alignments(alignment or (), layers, measured)
    batch = replace(numbers or Batch(), growth=BatchGrowth(network.batch))
    setting = Setting(layers, phi, Loss(network.loss), assumed, batch)
    sampled = network.fisher == FisherName.true
    noise = rounding == RoundingName.noise
    return Problem(declared.rule, setting, chosen, sampled, preset, step, noise)


def numbers_given(numbers: NumberOptions, samples: int | None) -> Batch:
    """The numbers of samples, classes and features, and of classes drawn, as they are given."""
    from scaling.models.batch import Batch

    usual = Batch()
    found = Batch(
        samples or usual.samples,
        numbers.classes or usual.classes,
        numbers.features or usual.features,
        numbers.drawn or 0,
    )
    if found.drawn > min(found.samples, found.classes):
        raise InvalidInput(
            f"--drawn {found.drawn}, of {found.samples} samples among {found.classes} classes",
            "no more classes than there are, nor than samples",
            "give a smaller number, or leave --drawn out",
        )
    return found


def problem_with(rule: str, *settings: str, **options: Any) -> Problem:
    """The same with options by name, for what is measured: as if ``practice`` were asked for.

    ``options`` are fields of `NetworkOptions`, init, alignment, step, practice.

    >>> problem_with("sgd", "c_hidden=1", activation="tanh", step=2).step
    2
    """
    names = [field.name for field in fields(NetworkOptions) if field.name in options]
    network = NetworkOptions(**{name: options.pop(name) for name in names})
    return problem_of(rule, settings, network, **{"practice": True, **options})


def table_of(
    text: str, network: NetworkOptions = NETWORK, numbers: Batch | None = None
) -> tuple[Problem, Exponents]:
    """The derived table of ``RULE; key=value; ...``, with literal changes to its exponents.

    The keys ``init`` and ``alignment`` (also ``alignment_hidden`` and the like) say for what it is
    derived; they are no changes.
    """
    rule, *changes = (part.strip() for part in text.split(";"))
    keys = [change.partition("=")[0].strip() for change in changes]
    for key in keys:
        if keys.count(key) > 1:
            raise InvalidInput(f"'{key}' twice in '{text}'", "one value", "leave one of them out")
    init, alignment, settings = None, [], []
    for change in changes:
        key, equals, value = (part.strip() for part in change.partition("="))
        head, _, place = key.partition("_")
        if equals and key == "init":
            init = value
        elif equals and head == "alignment":
            alignment.append(f"{place}={value}" if place else value)
        else:
            settings.append(change)
    problem = problem_of(rule, settings, network, init=init, alignment=alignment, numbers=numbers)
    return problem, literal_of(problem)[0]


def solution_of(problem: Problem, literal: bool = False) -> Derived:
    """The derived exponents; ``literal`` ignores settings but the preset and the rule's symbols."""
    from dataclasses import replace

    from scaling.solve.derive import derive

    settings = problem.settings
    if literal:
        settings = replace(problem.preset, exponents=settings.exponents)
    return derive(
        problem.rule, settings, problem.setting, sampled_fisher=problem.sampled_fisher,
        step=problem.step, rounding_noise=problem.rounding_noise,
    )  # fmt: skip


def literal_of(problem: Problem) -> tuple[Exponents, Bounds]:
    """The derived table with what is set taken literally, and what is known of its symbols."""
    from sympy import S, Symbol

    solution = solution_of(problem, literal=True)
    table = solution.exponents.updated(problem.settings)
    known = {b.name: (S.Zero, S.Infinity) for b in table.b.values() if isinstance(b, Symbol)}
    return table, problem.bounds(known)


def subject_of(rule: str, problem: Problem, literal: bool = True) -> Subject:
    """A problem as the subject of a measurement: exponents derived, or as they are set."""
    if literal:
        table, bounds = literal_of(problem)
    else:
        solution = solution_of(problem)
        table, bounds = solution.exponents, solution.bounds
    subject: Subject = lazily("verify.subject").Subject(problem, table, bounds, resolve(rule))
    return subject


def lazily(module: str):  # type: ignore[no-untyped-def]
    """A module that measures, imported when it is needed."""
    import importlib

    gc.enable()
    try:
        return importlib.import_module(f"empirical.{module}")
    except ModuleNotFoundError as error:
        raise missing_package(error) from None


def missing_package(error: ModuleNotFoundError) -> InvalidInput:
    """The package to install; our own modules cannot be missing, so that is a bug and stays one."""
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
