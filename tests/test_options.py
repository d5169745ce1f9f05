"""Every option of a verb that measures arrives where the measurement begins; nothing is trained."""

import gc
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import signature
from io import StringIO
from typing import Annotated, Any

import pytest
import typer
from sympy import Rational, S

from empirical.measure.measured_sizes import Quantity
from empirical.verify.campaign import SEED_STRIDE
from scaling.cli.main import app, derive, main
from scaling.cli.measuring import align, measure, verify
from scaling.cli.options import verb
from scaling.models.chain import Activation, Loss

SETTING = (
    "--depth", "4", "--biases", "--activation", "tanh", "--loss", "cross_entropy",
    "--fisher", "true", "--init", "mup", "--set", "rho_A=1/8", "--set", "c_output=3",
)  # fmt: skip
ALIGNMENT = ("--alignment", "output=1/2,3/4,1")
DATA = ("--data", "digits", "--samples", "5", "--device", "cpu", "--threads", "3", "--seed", "9")
SWEEP = ("--widths", "16:128", "--seeds", "7")


class Reached(BaseException):
    """Raised where the measurement would begin."""


Arguments = Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> Iterator[Arguments]:
    """What the command hands over to a function, which is not run."""

    def arrive(function: str, *words: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        def spy(*args: Any, **options: Any) -> None:
            raise Reached(args, options)

        with monkeypatch.context() as patch:
            patch.setattr(f"empirical.{function}", spy)
            patch.setattr(sys, "argv", ["scaling", *words])
            with pytest.raises(Reached) as reached:
                main()
        args, options = reached.value.args
        return args, options

    yield arrive
    gc.enable()  # `main` switches it off


def check_problem(problem: Any, name: str = "kfac", aligned: bool = True) -> None:
    setting = problem.setting
    assert problem.rule.name == name
    assert [layer.name for layer in setting.layers if not layer.is_bias] == [
        "input", "hidden_1", "hidden_2", "output",
    ]  # fmt: skip
    assert any(layer.is_bias for layer in setting.layers)
    assert (setting.activation, setting.loss) == (Activation.TANH, Loss.CROSS_ENTROPY)
    assert problem.sampled_fisher
    assert problem.settings.a["output"] == Rational(1, 2)
    assert problem.settings.values == {"rho_A": 0.125}
    assert problem.settings.c == {"output": 3}
    assert problem.settings.exponents == {"e_A": 1, "e_B": 1}  # measurements need numbers
    given = {k: (x.alpha, x.omega, x.u) for k, x in setting.alignments.items()}
    assert given == ({"output": (S.Half, Rational(3, 4), 1)} if aligned else {})


def check_row(row: Any, aligned: bool = True) -> None:
    check_problem(row.problem, aligned=aligned)
    assert row.exponents.c["output"] == 3
    assert row.bounds.intervals["e_A"] == (0, S.Infinity)
    assert (row.declared.name, row.name) == ("kfac", "kfac")


def check_request(request: Any, margin: float | None = None) -> None:
    assert (request.widths, request.seeds, request.margin) == ((16, 32, 64, 128), 7, margin)
    assert (request.data.name, len(request.data.inputs)) == ("digits", 5)
    assert (request.device, request.threads, request.base_seed) == ("cpu", 3, 9)


def test_verify_plans_what_is_asked(arguments: Arguments) -> None:
    more = ("--margin", "0.07", "--memory-limit", "2MiB", "--mode", "dense", "--quantity", "own")
    args, _ = arguments(
        "verify.campaign.plan", "verify", "kfac", *SETTING, *ALIGNMENT, *DATA, *SWEEP, *more
    )
    (row,), request, mode, memory, quantity = args
    check_row(row)
    check_request(request, 0.07)
    assert (mode, memory, quantity) == ("dense", 2 * 2**20, Quantity.OWN)


def test_verify_has_the_defaults_of_its_help(arguments: Arguments) -> None:
    args, _ = arguments("verify.campaign.plan", "verify", "sgd", "momentum")
    rows, request, mode, memory, quantity = args
    assert [row.name for row in rows] == ["sgd", "momentum"]
    problem = rows[0].problem
    assert (problem.step, problem.setting.depth, problem.sampled_fisher) == (1, 3, False)
    assert (problem.setting.activation, problem.setting.loss) == (Activation.RELU, Loss.MSE)
    assert (request.widths, request.seeds, request.margin) == (None, None, None)
    assert (request.data.name, len(request.data.inputs)) == ("digits", 16)
    assert (request.threads, request.base_seed, mode, memory) == (0, 0, "auto", None)
    assert quantity is Quantity.ALL
    args, _ = arguments("verify.campaign.plan", "verify", "sgd", "--step", "2")
    assert args[0][0].problem.step == 2


def test_verify_runs_the_plan_with_its_expectations(
    arguments: Arguments, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr("empirical.verify.campaign.plan", lambda *_: "the plan")
    words = ("verify", "sgd", "--expect", "own_hidden=1", "--out", str(tmp_path))
    (plan, expect, out, tick), _ = arguments("verify.verification.verify_all", *words)
    assert (plan, expect, out) == ("the plan", ["own_hidden=1"], tmp_path)
    tick("sgd", 1, 2)  # progress, shown or not
    (_, expect, out, _), _ = arguments("verify.verification.verify_all", "verify", "sgd")
    assert (expect, out) == ([], None)


def test_deep_verification_measures_every_layer_of_every_rule(arguments: Arguments) -> None:
    words = ("verify", "kfac", "--deep", *SETTING, *DATA, *SWEEP, "--margin", "0.07")
    ((row,), (steps,), experiment, tick), _ = arguments("verify.verification.verify_deep", *words)
    check_row(row, aligned=False)
    assert steps.keys() == {layer.name for layer in row.problem.setting.layers}
    assert (experiment.widths, experiment.seeds, experiment.margin) == ((16, 32, 64, 128), 7, 0.07)
    check_request(experiment, 0.07)
    tick("sgd", 1, 2)


def test_measure_takes_one_width_and_seed(arguments: Arguments) -> None:
    words = (
        "--width", "48", "--mode", "dense", "--steps", "6", "--quantity", "own",
        "--memory-limit", "3KiB",
    )  # fmt: skip
    (problem, table, values), options = arguments(
        "verify.single.measure_once", "measure", "kfac", *SETTING, *ALIGNMENT, *DATA, *words
    )
    check_problem(problem)
    assert table.c["output"] == 3
    assert values == {"rho_A": 0.125}
    data = options.pop("data")
    assert (data.name, len(data.inputs)) == ("digits", 5)
    assert options == {
        "width": 48, "seed": 9, "device": "cpu", "threads": 3, "mode": "dense", "steps": 6,
        "memory_limit": 3 * 2**10, "quantity": Quantity.OWN,
    }  # fmt: skip
    _, options = arguments("verify.single.measure_once", "measure", "sgd")
    assert {k: options[k] for k in ("width", "seed", "threads", "mode", "steps")} == {
        "width": 256, "seed": 0, "threads": 0, "mode": "auto", "steps": 1,
    }  # fmt: skip


@pytest.mark.parametrize("verb", ["align", "derive"])
def test_alignments_are_measured_as_asked(arguments: Arguments, verb: str) -> None:
    words = (verb, "kfac", *SETTING, *DATA, *SWEEP, "--steps", "11")
    words += ("--margin", "0.07") if verb == "align" else ("--alignment", "measured")
    (row, experiment, steps, tick), _ = arguments(
        "verify.measured_alignments.measure_alignments", *words
    )
    check_row(row, aligned=False)
    check_request(experiment, 0.1 if verb == "derive" else 0.07)
    assert steps == 11
    tick("sgd", 1, 2)
    default = (verb, "sgd", *words[-2:]) if verb == "derive" else (verb, "sgd")
    (_, _, steps, _), _ = arguments("verify.measured_alignments.measure_alignments", *default)
    assert steps == 8


def test_a_derivation_is_measured_as_asked(
    arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("explain", "kfac", "--measured", "--layer", "hidden_2", *SETTING, *DATA, *SWEEP)
    (trial, steps, widths, seeds, margin, first), _ = arguments(
        "verify.derivation_lines.measured_lines", *words
    )
    check_problem(trial.problem, aligned=False)
    assert trial.exponents.c["output"] == 3
    assert trial.values["rho_A"] == 0.125
    assert (list(steps), widths, seeds) == (["hidden_2"], (16, 32, 64, 128), 7)
    assert first == 9 * SEED_STRIDE
    assert 0 < margin < 1
    assert (len(trial.data.inputs), trial.device) == (5, "cpu")
    (count,), _ = arguments("measure.machine.blas_threads", *words)
    assert count == 3
    monkeypatch.setattr(
        "empirical.verify.derivation_lines.measured_lines", lambda *_: {"hidden_2": []}
    )
    (shown, lines, style), _ = arguments(
        "report.measured_tables.render_lines", *words, "--format", "html"
    )
    assert (shown.label, lines, style) == ("kfac, hidden_2 layer", [], "html")
    monkeypatch.setattr("empirical.report.measured_tables.render_lines", lambda *_: "")
    (verdicts,), _ = arguments("verify.verification.exit_code", *words)
    assert verdicts == []


@pytest.mark.parametrize(("verb", "function"), [
    ("verify", "verify.cluster.workers_of"), ("measure", "verify.cluster.workers_of"),
])  # fmt: skip
def test_the_cluster_is_the_one_named(arguments: Arguments, verb: str, function: str) -> None:
    args, _ = arguments(function, verb, "sgd", "--backend", "dask", "--scheduler", "tcp://x:1")
    assert args == ("dask", "tcp://x:1")
    args, _ = arguments(function, verb, "sgd")
    assert args == ("local", None)


@pytest.mark.parametrize("verb", ["verify", "measure", "align", "explain", "derive"])
def test_data_come_from_the_folder_named(arguments: Arguments, verb: str, tmp_path: Any) -> None:
    more = {"explain": ("--measured",), "derive": ("--alignment", "measured")}.get(verb, ())
    words = (verb, "sgd", *more, "--data", "mnist", "--data-root", str(tmp_path), "--samples", "9")
    args, options = arguments("data.sources.load", *words)
    assert (args, options) == (("mnist", tmp_path), {"samples": 9})


@pytest.mark.parametrize("verb", ["verify", "measure", "align", "explain", "derive"])
def test_the_device_is_the_one_named(arguments: Arguments, verb: str) -> None:
    more = {"explain": ("--measured",), "derive": ("--alignment", "measured")}.get(verb, ())
    args, _ = arguments("measure.machine.pick_device", verb, "sgd", *more, "--device", "cuda")
    assert args == ("cuda",)
    args, _ = arguments("measure.machine.pick_device", verb, "sgd", *more)
    assert args == ("auto",)


def test_claims_run_in_the_tier_and_place_named(arguments: Arguments, tmp_path: Any) -> None:
    words = ("--tier", "desk", "--out", str(tmp_path), "--seed", "5", "--threads", "2")
    (tier, device, threads, out, seed, tick), _ = arguments(
        "claims.environment.Environment", "claims", "4b", *words
    )
    assert (tier.value, device, threads, out, seed) == ("desk", "cpu", 2, tmp_path, 5)
    tick("4b", 1, 2)
    (tier, _, threads, out, seed, _), _ = arguments(
        "claims.environment.Environment", "claims", "4b"
    )
    assert (tier.value, out, seed) == ("ci", None, 0)
    assert threads >= 1  # all cores


REFUSED = [
    (("verify", "sgd", "--all"), "rules beside --all", "one of the two", "leave one out"),
    (("verify", "sgd", "--deep", "--expect", "own_hidden=1"),
     "--expect with --deep", "one of the two", "leave --expect out"),
    (("verify", "sgd", "--deep", "--quantity", "own"),
     "--quantity with --deep", "one of the two", "leave --quantity out"),
    (("verify", "sgd", "--out", ""),
     "an empty name of a folder", "its name", "write one, or '.' for the folder you are in"),
    (("claims", "--redraw"), "--redraw without --out", "the folder of a run", "add --out DIR"),
    (("explain", "sgd", "--measured", "--layer", "hiden"),
     "layer 'hiden'", "one of hidden, input, output", "did you mean 'hidden'?"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "found", "needed", "do_this"), REFUSED)
def test_options_that_exclude_each_other_are_refused(
    words: tuple[str, ...], found: str, needed: str, do_this: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["scaling", *words])
    with pytest.raises(SystemExit) as end:
        main()
    gc.enable()
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"found: {found}\nneeded: {needed}\ndo this: {do_this}\n")


ENDS: list[tuple[Callable[..., Any], int, str]] = [
    (lambda **_: 0, 0, ""),
    (lambda **_: 1, 1, ""),
    (lambda **_: 130, 130, "interrupted: finished measurements are kept in --out, if given\n"),
    (lambda **_: _raise(ModuleNotFoundError(name="torch")), 2,
     "found: no package 'torch', which measuring needs\n"
     "needed: the extra 'empirical' of this package\n"
     "do this: pip install 'scaling[empirical]'\n"),
]  # fmt: skip


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(("run", "code", "err"), ENDS)
def test_the_command_ends_with_the_code_and_words_of_what_happened(
    run: Callable[..., Any], code: int, err: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("scaling.cli.main.app", run)
    with pytest.raises(SystemExit) as end:
        main()
    gc.enable()
    assert end.value.code == code
    assert capsys.readouterr() == ("", err)


def test_a_reader_who_left_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = StringIO()
    monkeypatch.setattr(sys, "stderr", silent)
    monkeypatch.setattr("scaling.cli.main.app", lambda **_: _raise(BrokenPipeError()))
    with pytest.raises(SystemExit) as end:
        main()
    gc.enable()
    assert (end.value.code, silent.closed) == (0, True)


def test_the_bare_command_shows_its_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["scaling"])
    with pytest.raises(SystemExit) as end:
        main()
    gc.enable()
    out, err = capsys.readouterr()
    assert (end.value.code, err) == (0, "")
    assert out.startswith("Usage: ") and "Commands:" in out


# --- one place for each option ------------------------------------------------------------------

OWN_DEFAULT = {"--steps", "--device", "--backend"}
"""Where a verb has a default of its own: steps of one measurement, claims on the processor, and
joblib, beside Dask, for the runs of a transfer."""
OWN_MEANING = {
    "--lr": {"plan": "one number", "transfer": "a range"},
    "--widths": {"probe": "of chains that are dense, 64 to 1024 by default"},
    "--seeds": {"probe": "a fixed number, 5 by default"},
}


def test_an_option_is_the_same_wherever_it_appears() -> None:
    seen: dict[str, set[tuple[str, ...]]] = {}
    group: Any = typer.main.get_command(app)
    for command in group.commands.values():
        for option in command.params:
            for name in option.opts:
                default = "" if name in OWN_DEFAULT else str(option.default)
                about = (str(getattr(option, "help", "")), option.type.name, default)
                seen.setdefault(name, set()).add(about)
    assert {"--depth", "--seed", "--widths", "--set", "--out"} <= set(seen)
    several = {name: about for name, about in seen.items() if len(about) > 1}
    assert set(several) == set(OWN_MEANING)


def test_a_verb_takes_its_options_as_fields_of_a_class() -> None:
    @dataclass(frozen=True)
    class Pair:
        first: Annotated[int, typer.Option("--first", min=1)] = 1
        second: str = "b"

    taken: list[Any] = []

    def named(pair: Pair, rule: str, last: bool = False) -> None:
        """Take them."""
        taken.append((pair, rule, last))

    named.__annotations__ = {"pair": Pair, "rule": str, "last": bool}
    known = verb(named)
    assert (known.__name__, known.__doc__) == ("named", "Take them.")
    known(first=3, second="c", rule="G", last=True)
    assert taken == [(Pair(3, "c"), "G", True)]
    for verb_ in (derive, verify, measure, align):
        assert not {"network", "run", "how"} & set(signature(verb_).parameters)
        assert {"depth", "threads", "seed"} <= set(signature(verb_).parameters)
