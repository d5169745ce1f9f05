"""The options of the command line: names, types and help, each said once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

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


class ModeName(StrEnum):
    """How networks are measured."""

    auto = "auto"
    dense = "dense"
    wide = "wide"


class QuantityName(StrEnum):
    """What is measured."""

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


RuleArgument = Annotated[
    str, typer.Argument(metavar="RULE", help="A catalogue name or a rule such as 'orth(G)'.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Fix a, b, c, d_<damping or decay> (bare: all layers; or _input, _hidden, "
        "_output), or a symbol of the rule. Repeatable.",
    ),
]
StyleOption = Annotated[Style, typer.Option("--format", help="Output format.")]
DepthOption = Annotated[int, typer.Option(min=2, max=64, help="Number of weight matrices.")]
BiasOption = Annotated[bool, typer.Option("--biases", help="Include biases as layers.")]
PhiOption = Annotated[Phi, typer.Option("--activation", help="Activation.")]
LossOption = Annotated[LossName, typer.Option("--loss", help="Loss.")]
FisherOption = Annotated[
    FisherName, typer.Option("--fisher", help="Cotangents in B: the loss's own, or sampled.")
]
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
WidthsOption = Annotated[
    str | None,
    typer.Option(
        "--widths",
        help="From:to in doublings (64:4096), or a list (64,100,1e6). Default: 256 to 1048576 in "
        "steps of 4 wide (for entrywise rules to 16384, or with --quantity own 4096 to 1048576), "
        "64 to 4096 dense.",
    ),
]
ModeOption = Annotated[
    ModeName,
    typer.Option(
        "--mode",
        help="dense: real networks. wide: exact in law at any width, up to 262144 for entrywise "
        "rules (beyond with --quantity own). auto: wide where it can, with dense networks beside "
        "it as a cross-check.",
    ),
]
QuantityOption = Annotated[
    QuantityName,
    typer.Option(
        "--quantity",
        help="all: init, own updates, feature changes. own: init and own updates, with no forward "
        "pass after the step; entrywise rules then need but some rows of every layer and reach "
        "widths of 6e7, unless they add up entries over whole matrices.",
    ),
]
SeedsOption = Annotated[
    int | None,
    typer.Option(
        "--seeds",
        min=1,
        help="Seeds; they vary the weights. Default: 6 wide (entrywise: 20, or "
        "8 with --quantity own), 16 dense; `verify` adds up to three times as many while noise "
        "leaves a verdict open.",
    ),
]
StepsOption = Annotated[int, typer.Option("--steps", min=1, help="Steps of training.")]
DataOption = Annotated[
    str, typer.Option("--data", help="digits, mnist, fashionmnist, cifar10.., or FILE.npz.")
]
RootOption = Annotated[
    Path | None,
    typer.Option("--data-root", parser=folder, help="Folder that holds the data set."),
]
SamplesOption = Annotated[int, typer.Option("--samples", min=1, help="Training batch size n.")]
DeviceOption = Annotated[DeviceName, typer.Option("--device", help="Where tensors live.")]
ThreadsOption = Annotated[
    int,
    typer.Option(
        "--threads", min=0, help="Threads of BLAS and torch, processes in wide mode; 0: all cores."
    ),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory-limit",
        metavar="SIZE",
        help="What neurons may fill in wide mode, beside the libraries; default 1GiB.",
    ),
]
BackendOption = Annotated[
    BackendName, typer.Option("--backend", help="Wide mode: this machine, or a Dask cluster.")
]
SchedulerOption = Annotated[
    str | None,
    typer.Option("--scheduler", metavar="ADDRESS", help="Of the Dask cluster: tcp://HOST:8786."),
]
