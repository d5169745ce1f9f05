"""The options of the command line: names, types and help, each said once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


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
    both = "both"


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
        help="Fix a, b, c, d_<damping> (bare: all layers; or _input, _hidden, _output), or a "
        "symbol of the rule. Repeatable.",
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
WidthsOption = Annotated[
    str | None,
    typer.Option(
        "--widths",
        help="From:to in doublings (64:4096), or a list (64,100,1e6). Default: 64:4096 dense, "
        "256 to 1048576 in steps of 4 wide.",
    ),
]
ModeOption = Annotated[
    ModeName,
    typer.Option(
        "--mode",
        help="dense: real networks. wide: exact in law, any width, for rules of the form D C H^T. "
        "auto: wide where it can. both: wide where it can, and dense.",
    ),
]
SeedsOption = Annotated[
    int | None,
    typer.Option("--seeds", min=1, help="Seeds; they vary the weights. Default: 16 dense, 6 wide."),
]
DataOption = Annotated[str, typer.Option("--data", help="digits, mnist, fashionmnist, cifar10..")]
RootOption = Annotated[
    Path | None, typer.Option("--data-root", help="Folder that holds the data set.")
]
SamplesOption = Annotated[int, typer.Option("--samples", min=1, help="Training batch size n.")]
DeviceOption = Annotated[DeviceName, typer.Option("--device", help="Where tensors live.")]
ThreadsOption = Annotated[
    int, typer.Option("--threads", min=0, help="Threads for BLAS and torch; 0: all cores.")
]
