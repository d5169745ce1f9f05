"""`scaling plan`: the numbers of a large model from those that were tuned at a small one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from scaling.cli.options import MODEL_HELP, Style, StyleOption, verb
from scaling.cli.requests import lazily
from scaling.sizes.errors import InvalidInput

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="Groups such as 'hidden: muon; rest: adamw', a TOML file, or one rule.",
    ),
]
BASE_HELP = "Where numbers were tuned."
AT_HELP = (
    "What is trained. Axes are keywords of build and batch; batch and samples take powers from the "
    "literature."
)
NUMBER = "[GROUP=]NUMBER"


def by_group(flag: str, what: str) -> Any:
    """An option for a number at the base, of all groups of a recipe or of one."""
    text = f"The {what} at the base, of all groups or of one. Repeatable."
    return typer.Option(flag, metavar=NUMBER, help=text)


EpsOption = Annotated[list[str] | None, by_group("--eps", "damping eps")]
DecayOption = Annotated[list[str] | None, by_group("--decay", "decay")]
ChangeCodeOption = Annotated[
    bool,
    typer.Option("--change-code", help="Numbers for the code with the listed changes made."),
]


@verb
def plan(
    recipe: RecipeArgument,
    model: Annotated[
        str,
        typer.Option("--model", metavar="FILE.py[:BUILD]", help=MODEL_HELP),
    ],
    base: Annotated[str, typer.Option("--base", metavar="NAME=SIZE,...", help=BASE_HELP)],
    at: Annotated[
        str,
        typer.Option(
            "--at",
            metavar="NAME=SIZE,...",
            help=AT_HELP,
        ),
    ],
    lr: Annotated[list[str] | None, by_group("--lr", "learning rate")] = None,
    eps: EpsOption = None,
    decay: DecayOption = None,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="PATTERN", help="Tensors that start as the code has them."),
    ] = None,
    power: Annotated[
        list[str] | None,
        typer.Option(
            "--power",
            metavar="SIZE:NUMBER=POWER",
            help="batch:lr=1/2, samples:decay=-1 (of lr, decay, damping, 1-beta), in the place of "
            "the literature's. Repeatable.",
        ),
    ] = None,
    change_code: ChangeCodeOption = False,
    compose: Annotated[
        bool,
        typer.Option(
            "--compose",
            help="Leave out of the rates what optimizer(model, groups) of the file multiplies "
            "steps by itself.",
        ),
    ] = False,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Write the plan as JSON.")
    ] = None,
    style: StyleOption = Style.text,
) -> None:
    """Plan a large model: the numbers of every tensor.

    Example: scaling plan adamw --model gpt.py --base width=128 --at width=1024 --lr 3e-3.
    """
    from scaling.report.as_json import to_json
    from scaling.report.tables import Format, render

    sizes, larger = sizes_of("--base", base), sizes_of("--at", at)
    tuned = tuned_of({"lr": lr, "eps": eps, "decay": decay})
    file = lazily("trace.model_file").read_model(model)
    found = lazily("plans.making").plan_of_file(
        file, recipe, sizes, larger, tuned, tuple(keep or ()), _powers(power or ()), change_code
    )
    if compose:
        found = lazily("checks.composing").compose_file(found, file, found.recipe)
    if save is not None:
        found.save(save)
    if style is Style.json:
        typer.echo(to_json(found.as_json()))
    else:
        typer.echo(render(found.table(), Format(style)))


def sizes_of(option: str, text: str) -> dict[str, int]:
    """Sizes by axis, from ``width=128,depth=4``.

    Raises:
        InvalidInput: for anything else.

    >>> sizes_of("--base", "width=128,depth=4")
    {'width': 128, 'depth': 4}
    """
    found: dict[str, int] = {}
    for pair in text.split(","):
        name, equals, size = (part.strip() for part in pair.partition("="))
        if not equals or not name.isidentifier() or not size.isdecimal() or name in found:
            raise InvalidInput(
                f"{option} {text}, with '{pair}'" + (" twice" if name in found else ""),
                "axes with a whole number each",
                f"write for example {option} width=128,depth=4",
            )
        found[name] = int(size)
    return found


def tuned_of(given: Mapping[str, Sequence[str] | None]) -> dict[str, float | dict[str, float]]:
    """Numbers at the base by symbol, from the words of the options of that name.

    Raises:
        InvalidInput: for words that are none.

    >>> tuned_of({"lr": ["3e-3"], "decay": ["rest=0.1", "gain, bias=0"], "eps": None})
    {'lr': 0.003, 'decay': {'rest': 0.1, 'gain, bias': 0.0}}
    """
    return {symbol: _by_group(f"--{symbol}", texts) for symbol, texts in given.items() if texts}


def _by_group(option: str, texts: Sequence[str]) -> float | dict[str, float]:
    """One number, or one for each group."""
    found: dict[str, float] = {}
    for text in texts:
        group, equals, number = text.rpartition("=")
        try:
            found[group.strip() if equals else ""] = float(number)
        except ValueError:
            raise InvalidInput(
                f"{option} {text}",
                "a number, or GROUP=NUMBER",
                f"write {option} 3e-3, or {option} hidden=0.02",
            ) from None
    if "" in found and len(texts) > 1:
        raise InvalidInput(
            f"{len(texts)} numbers of {option}, one of them for all groups",
            "one number, or one for each group",
            f"write {option} hidden=0.02 {option} rest=3e-3",
        )
    return found.get("", found)


def _powers(texts: Sequence[str]) -> dict[str, dict[str, object]] | None:
    from scaling.models.settings import exact
    from scaling.solve.sourced_powers import SIZES

    found: dict[str, dict[str, object]] = {}
    for text in texts:
        size, colon, pair = text.partition(":")
        quantity, equals, power = pair.partition("=")
        known = ("lr", "decay", "damping", "1-beta")
        if not (colon and equals) or size not in SIZES or quantity not in known:
            raise InvalidInput(
                f"--power {text}",
                f"SIZE:NUMBER=POWER, with {' or '.join(SIZES)} and one of {', '.join(known)}",
                "write for example --power batch:lr=1/2",
            )
        found.setdefault(size, {})[quantity] = exact(power)
    return found or None
