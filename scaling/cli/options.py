"""The options of the command line: name, type, help and default of each, said once.

Options that go together are the fields of a class, which verbs take and pass on whole; `verb` turns
such a parameter into its fields for typer. What a few verbs share alone is a type of its own here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from scaling.cli.failures import details_in
from scaling.sizes.errors import InvalidInput


def folder(name: str) -> Path:
    """The folder of that name; an empty one, as of an unset variable, is refused."""
    if not name.strip():
        raise InvalidInput(
            "an empty name of a folder", "its name", "write one, or '.' for the folder you are in"
        )
    return Path(name)


class Style(StrEnum):
    """Output formats."""

    text = "text"
    markdown = "markdown"
    latex = "latex"
    json = "json"
    html = "html"


class Phi(StrEnum):
    """Activations."""

    relu = "relu"
    tanh = "tanh"
    gelu = "gelu"
    erf = "erf"
    linear = "linear"


class LossName(StrEnum):
    """Losses."""

    mse = "mse"
    cross_entropy = "cross_entropy"


class FisherName(StrEnum):
    """Where the cotangents in K-FAC's B come from."""

    empirical = "empirical"
    true = "true"


class RoundingName(StrEnum):
    """How zeros are read that floating point does not keep."""

    exact = "exact"
    noise = "noise"


class BatchName(StrEnum):
    """The batch as the width grows."""

    fixed = "fixed"
    proportional = "proportional"


class ModeName(StrEnum):
    """How networks are measured."""

    auto = "auto"
    dense = "dense"
    wide = "wide"


class QuantityName(StrEnum):
    """The quantities of a measurement."""

    all = "all"
    own = "own"


class BackendName(StrEnum):
    """Who does the work of wide mode."""

    local = "local"
    dask = "dask"


class DeviceName(StrEnum):
    """Devices."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def names_of_rules(begun: str) -> list[str]:
    """Names of the catalogue that begin so, for the completion of a shell."""
    from derivations.catalogue import catalogue

    return [name for name in catalogue() if name.startswith(begun)]


RuleArgument = Annotated[
    str,
    typer.Argument(
        metavar="RULE",
        help="A catalogue name or a rule such as 'orth(G)'.",
        autocompletion=names_of_rules,
    ),
]
AXIS_HELP = (
    "What grows in it, and at which sizes it is read: width=64,128,192, depth=2:16. "
    "Several are taken one after the other, the others at their smallest. "
    "Default: width at 1, 2 and 3 times its default."
)
SEEDS_HELP = (
    "Seeds; they vary the weights. Default: 6 wide (entrywise: 20, or "
    "8 with --quantity own), 16 dense; `verify` adds up to three times as many while noise "
    "leaves a verdict open. With --model: as many as given, or 4 to 16 by need; `transfer`: 4; "
    "`tune`: 3."
)
BACKEND_HELP = "This machine, or a Dask cluster (`verify`, `measure`: in wide mode)."
SCHEDULER_HELP = "Of the Dask cluster: tcp://HOST:8786."
MODEL_HELP = (
    "Your own model: a file with build(**axes) -> module, batch() -> (inputs, targets), and "
    "perhaps loss(outputs, targets)."
)
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Fix a, b, c, d_<damping or decay> (bare: all layers; or _input, _hidden, "
        "_output), or a symbol of the rule. Repeatable.",
    ),
]
SolveForOption = Annotated[
    str | None,
    typer.Option(
        "--solve-for",
        metavar="KEY,KEY",
        help="Exponents to solve for, so that --require holds: of the rule (e_A), or as in --set "
        "(d_rho_A_hidden; bare: one for each layer).",
    ),
]
RequireOption = Annotated[
    list[str] | None,
    typer.Option(
        "--require",
        metavar="KEY=VALUE",
        help="With --solve-for: what derived exponents are to be, as in --set. Repeatable.",
    ),
]
StyleOption = Annotated[Style, typer.Option("--format", help="Output format.")]
InitOption = Annotated[
    str | None,
    typer.Option("--init", metavar="NAME", help="a and b: standard, ntk, mup or mean_field."),
]
AlignmentOption = Annotated[
    list[str] | None,
    typer.Option(
        "--alignment",
        metavar="[LAYER=]NAME",
        help="derived, or as assumed in arXiv 2407.05872: full, none, or alpha,omega,u; all layers "
        "or hidden=..., output=... `derive` can also train for it: measured. Repeatable.",
    ),
]
StepOption = Annotated[
    int,
    typer.Option(
        "--step",
        help="1: the first step. 2: the second, where the weights are W + dW_1 and terms appear "
        "that vanish at the first.",
    ),
]
RoundingOption = Annotated[
    RoundingName,
    typer.Option(
        "--rounding",
        help="What is exactly zero in an eigenbasis (SPlus): exact zeros, or noise of random sign "
        "as in floating point.",
    ),
]
StepsOption = Annotated[int, typer.Option("--steps", min=1, help="Steps of training.")]
MarginOption = Annotated[
    float | None,
    typer.Option(
        "--margin",
        help="Around a prediction; default 0.02 wide, 0.05 dense, 0.1 for alignments, 0.2 on a "
        "model, 0.25 for drifts and in check.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        parser=folder,
        help="Folder for records, report and figures; a run is taken up there. `report`: the file "
        "of the page.",
    ),
]
DataRootOption = Annotated[
    Path | None,
    typer.Option("--data-root", parser=folder, help="Folder that holds the data set."),
]
SamplesOption = Annotated[
    int | None,
    typer.Option(
        "--samples",
        min=1,
        help="Training batch size n; default 16, or all rows of a FILE that has fewer.",
    ),
]
DeviceOption = Annotated[DeviceName, typer.Option("--device", help="Where tensors live.")]
ThreadsOption = Annotated[
    int,
    typer.Option(
        "--threads", min=0, help="Threads of BLAS and torch, processes in wide mode; 0: all cores."
    ),
]
SeedOption = Annotated[
    int,
    typer.Option(
        "--seed",
        min=0,
        max=10**6,
        help="Base seed: another one draws other weights (in `claims`, other data as well).",
    ),
]


DivergedOption = Annotated[
    float,
    typer.Option("--diverged", help="A loss above so many times that before training ends a run."),
]
JobsOption = Annotated[
    int, typer.Option("--jobs", min=0, help="Processes, of a thread each; 0: all cores.")
]
SeedsOption = Annotated[int | None, typer.Option("--seeds", min=1, help=SEEDS_HELP)]
AxisOption = Annotated[
    list[str] | None, typer.Option("--axis", metavar="NAME=SIZES", help=AXIS_HELP)
]


# --- options that go together -------------------------------------------------------------------


@dataclass(frozen=True)
class NetworkOptions:
    """The network, and what it is trained on."""

    depth: Annotated[int, typer.Option(min=2, max=64, help="Number of weight matrices.")] = 3
    biases: Annotated[bool, typer.Option("--biases", help="Include biases as layers.")] = False
    activation: Annotated[Phi, typer.Option("--activation", help="Activation.")] = Phi.relu
    loss: Annotated[LossName, typer.Option("--loss", help="Loss.")] = LossName.mse
    fisher: Annotated[
        FisherName, typer.Option("--fisher", help="Cotangents in B: the loss's own, or sampled.")
    ] = FisherName.empirical
    batch: Annotated[
        BatchName,
        typer.Option("--batch", help="Whether the batch is fixed or grows with the width, n ~ M."),
    ] = BatchName.fixed


@dataclass(frozen=True)
class NumberOptions:
    """The numbers of the data beside that of samples, where nothing is measured."""

    classes: Annotated[
        int | None, typer.Option("--classes", min=1, help="Number of classes; default 10.")
    ] = None
    drawn: Annotated[
        int | None,
        typer.Option("--drawn", min=1, help="How many of them the samples have; default: all."),
    ] = None
    features: Annotated[
        int | None, typer.Option("--features", min=1, help="Number of features; default 64.")
    ] = None


@dataclass(frozen=True)
class SampleOptions(NumberOptions):
    """All numbers of the data."""

    samples: SamplesOption = None


@dataclass(frozen=True)
class Run:
    """On what, where and with which seed something is measured."""

    data: Annotated[
        str, typer.Option("--data", help="digits, mnist, fashionmnist, cifar10.., or FILE.npz.")
    ] = "digits"
    data_root: DataRootOption = None
    samples: SamplesOption = None
    device: DeviceOption = DeviceName.auto
    threads: ThreadsOption = 0
    seed: SeedOption = 0


@dataclass(frozen=True)
class SweepRun(Run):
    """The same over widths and seeds."""

    widths: Annotated[
        str | None,
        typer.Option(
            "--widths",
            help="From:to in doublings (64:4096), or a list (64,100,1e6). Default: 256 to 1048576 "
            "in steps of 4 wide (for entrywise rules to 16384, or with --quantity own 4096 to "
            "1048576), 64 to 4096 dense.",
        ),
    ] = None
    seeds: SeedsOption = None


@dataclass(frozen=True)
class ModeOptions:
    """How networks are measured, what of them, and by whom."""

    mode: Annotated[
        ModeName,
        typer.Option(
            "--mode",
            help="dense: real networks. wide: exact in law at any width, up to 262144 for "
            "entrywise rules (beyond with --quantity own). auto: wide where it can, with dense "
            "networks beside it as a cross-check.",
        ),
    ] = ModeName.auto
    quantity: Annotated[
        QuantityName,
        typer.Option(
            "--quantity",
            help="all: init, own updates, feature changes. own: init and own updates, with no "
            "forward pass after the step; entrywise rules then need but some rows of every layer "
            "and reach widths of 6e7, unless they add up entries over whole matrices.",
        ),
    ] = QuantityName.all
    memory_limit: Annotated[
        str | None,
        typer.Option(
            "--memory-limit",
            metavar="SIZE",
            help="What neurons may fill in wide mode, beside the libraries; default 1GiB, on CUDA "
            "8GiB.",
        ),
    ] = None
    backend: Annotated[BackendName, typer.Option("--backend", help=BACKEND_HELP)] = (
        BackendName.local
    )
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", metavar="ADDRESS", help=SCHEDULER_HELP),
    ] = None


USUAL: dict[str, Any] = {"step": 1, "rounding": RoundingName.exact, "steps": 8, "layer": "hidden"}
"""Values of options that nobody asked for, where these are not None or False."""


@dataclass(frozen=True)
class ModelOptions:
    """A model of the user's own, in place of the chain of dense layers."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="FILE.py[:BUILD]",
            help=MODEL_HELP,
        ),
    ] = None
    axis: AxisOption = None

    @property
    def batch(self) -> str | None:
        """The sizes of the batch where that is the axis, of a chain; "" where none are given."""
        if self.model is not None or not self.axis or len(self.axis) != 1:
            return None
        name, _, sizes = self.axis[0].partition("=")
        return sizes.strip() if name.strip() == "batch" else None

    def given(self, *groups: Any, taken: Collection[str] = (), **options: Any) -> bool:
        """Whether a model is given, which says itself what the options of the chain say.

        Args:
            groups: classes of options that only the chain takes.
            taken: names of options in them that a model takes too.
            options: others that only the chain takes; None, False or the usual value is not asked.

        Raises:
            InvalidInput: for options of the chain beside it, or an axis without a model.
        """
        if self.model is None:
            if self.axis:
                raise InvalidInput(
                    f"--axis {self.axis[0]} without a model",
                    "a file in which the axis is a keyword of build, or the batch of a chain",
                    "add --model FILE.py, or write --axis batch",
                )
            return False
        odd = [
            f.name
            for group in groups
            for f in fields(group)
            if f.name not in taken and getattr(group, f.name) != getattr(type(group)(), f.name)
        ]
        odd += [
            name for name, value in options.items() if value not in (None, False, USUAL.get(name))
        ]
        if odd:
            option = f"--{odd[0].replace('_', '-')}"
            raise InvalidInput(
                f"{option} beside --model",
                "one of the two: the model's file says what its network, its data and its loss "
                "are, and --axis its sizes; the second step, given alignments and rounding noise "
                "are derived for the chain alone",
                f"leave {option} out, or leave --model out",
            )
        return True


# --- from parameters to options -----------------------------------------------------------------


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """A function as typer takes it: a parameter that is a class of options becomes its fields.

    What goes wrong in it is written to the folder of its results, if there is an ``out``.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters = [
        option
        for parameter in signature(function).parameters.values()
        for option in _options(parameter, hints[parameter.name])
    ]

    def typed(**given: Any) -> None:
        with details_in(given.get("out")):
            for name, kind in groups.items():
                given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
            function(**given)

    typed.__name__, typed.__doc__ = function.__name__, function.__doc__
    typed.__annotations__ = {option.name: option.annotation for option in parameters}
    typed.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return typed


def _options(parameter: Parameter, kind: Any) -> list[Parameter]:
    """The options of a parameter: itself, or the fields of its class."""
    if not is_dataclass(kind):
        return [parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=kind)]
    hints = get_type_hints(kind, include_extras=True)
    return [
        Parameter(
            field.name, Parameter.KEYWORD_ONLY, default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(kind)
    ]  # fmt: skip
