"""The command line: every verb in every format, exit codes, and refusals in three parts."""

import ast
import gc
import html.parser
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typed import exit_code

from derivations.catalogue import catalogue
from empirical.measure.machine import blas_threads

ROOT = Path(__file__).resolve().parent.parent
DENSE = ("--mode", "dense", "--threads", "1")
TINY = (*DENSE, "--widths", "8,16,32", "--seeds", "2")
FORMATS = ("text", "markdown", "latex", "json", "html")
VERBS = {
    "list": ("list",),
    "table": ("table", "--init", "ntk", "--alignment", "full"),
    "derive": ("derive", "kfac", "--biases", "--depth", "4"),
    "predict": ("predict", "kfac", "--set", "c_hidden=-1/2"),
    "explain": ("explain", "shampoo", "--layer", "output"),
    "compare": ("compare", "sgd", "momentum"),
    "measure": ("measure", "kfac", "--width", "16", "--threads", "1"),
    "verify": ("verify", "sgd", *TINY),
    "align": ("align", "sgd", *TINY[2:], "--steps", "2"),
}


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Run]:
    """The command, in this process and an empty folder; a traceback fails the test."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def command(*words: str) -> Result:
        return Result(exit_code(words, monkeypatch), *capsys.readouterr())

    with blas_threads(1):
        yield command
    gc.enable()  # `main` switches it off


def process(*words: str, code: str = "from scaling.cli.main import main; main()") -> Result:
    """The command in a process of its own."""
    start = "import sys; sys.argv = ['scaling', *sys.argv[1:]]; "
    found = subprocess.run(
        [sys.executable, "-c", start + code, *words],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=100, check=False,
    )  # fmt: skip
    return Result(found.returncode, found.stdout, found.stderr)


# --- what is printed ----------------------------------------------------------------------------


class _Balanced(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_format(style: str, out: str) -> None:
    if style == "json":
        assert isinstance(json.loads(out), dict)
    if style == "html":
        parser = _Balanced()
        parser.feed(out)
        assert not parser.open and "<table>" in out
    if style == "latex":
        body = [line for line in out.splitlines() if not line.startswith("%")]
        assert sum(line.count("{") - line.count("}") for line in body) == 0
        assert sum(line.count(r"\begin") - line.count(r"\end") for line in body) == 0
        assert all(line.replace(r"\$", "").count("$") % 2 == 0 for line in body)
    if style == "markdown":
        rows = [line for line in out.splitlines() if line.startswith("|")]
        bars = {line.replace(r"\|", "").count("|") for line in rows}
        assert len(rows) > 2 and len(bars) == 1, bars


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_prints_every_format_and_nothing_else(run: Run, verb: str, style: str) -> None:
    found = run(*VERBS[verb], "--format", style)
    assert found.code in ((0, 1, 3) if verb in ("verify", "align") else (0,)), found.err
    assert found.err == ""
    check_format(style, found.out)
    assert not list(Path.cwd().iterdir())


def test_json_has_the_keys_of_the_interface(run: Run) -> None:
    def keys(*words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(run(*words, "--format", "json").out)
        return found

    derived = keys("derive", "kfac")
    assert {"rule", "name", "layers", "free", "assumptions", "convention"} <= set(derived)
    assert derived["layers"]["hidden"] == {
        "a": "0", "b": "1/2", "c": "-e_A + e_B", "d": {"rho_B": "1", "rho_A": "-1"},
    }  # fmt: skip
    predicted = keys("predict", "sgd")["layers"]["output"]
    assert predicted == {"init": "-1/2", "own": "0", "feature": "0", "regime": "maximal"}
    compared = keys("compare", "sgd", "sgd; c_hidden=1")
    assert compared["equivalent"] is False
    assert compared["differences"] == [
        {"layer": "hidden", "exponent": "c", "left": "0", "right": "1"}
    ]
    assert set(keys("list")) == set(catalogue())
    measured = keys("measure", "sgd", "--width", "8", "--threads", "1")
    assert {"rule", "width", "sizes", "seconds", "peak_mb"} <= set(measured)
    verified = keys("verify", "sgd", *TINY)
    assert {"verdict", "checks", "widths", "seeds", "seconds"} <= set(verified)


def test_derived_exponents_rest_on_the_alignment_that_was_measured(run: Run) -> None:
    measured = ("--alignment", "measured", "--steps", "1", "--threads", "1")
    found = run("derive", "sgd", *measured, "--seeds", "6", "--format", "json")
    assert (found.code, found.err) == (0, "")
    answer, free = json.loads(found.out), json.loads(run("derive", "sgd", "--format", "json").out)
    assert answer["layers"] == free["layers"]
    lines = [line for line in answer["assumptions"] if " is measured at step 1 in " in line]
    assert [line.partition(" is ")[0] for line in lines] == [
        "alignment alpha = 1, omega = 1/2, u = 1", "alignment alpha = 1, omega = 1, u = 1",
    ]  # fmt: skip
    few = run("derive", "sgd", *measured, *TINY[2:])
    in_three_parts(few)
    assert "holds exactly one multiple of 1/4" in few.err and "--alignment hidden=" in few.err


def test_the_second_step_is_an_option_of_every_verb_that_derives_or_verifies(run: Run) -> None:
    zero = ("--set", "b_output=oo")

    def layers(*words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(run(*words, "--format", "json").out)["layers"]
        return found

    early, late = (layers("derive", "sgd", *zero, "--step", step) for step in "12")
    assert [x["c"] for x in early.values()] == ["c_input", "c_hidden", "1"]
    assert [x["c"] for x in late.values()] == ["-1", "0", "1"]
    regimes = [
        [x["regime"] for x in layers("predict", "sgd", *zero, "--step", step).values()]
        for step in "12"
    ]
    assert regimes == [["frozen", "frozen", "maximal"], ["maximal"] * 3]
    explained = run("explain", "momentum", "--step", "2").out
    assert "dW_3^T delta_3 at step 2" in explained and "[average of" in explained
    assert "at step 2" in run("table", "--step", "2").out.splitlines()[0]
    checks = json.loads(run("verify", "sgd", *zero, "--step", "2", *TINY, "--format", "json").out)
    assert {check["rule"] for check in checks["checks"]} == {"sgd at step 2"}
    assert all(check["predicted"] == "0" for check in checks["checks"])
    refused = run("derive", "sgd", "--step", "3")
    in_three_parts(refused)
    assert "found: step 3" in refused.err


def test_all_means_the_catalogue_and_deep_every_line(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scaling.cli.measuring.catalogue_names", lambda: ["sgd", "muon"])
    report = json.loads(run("verify", "--all", *TINY, "--format", "json").out)
    assert {check["rule"] for check in report["checks"]} == {"sgd", "muon"}
    words = (
        "verify",
        "sgd",
        "--deep",
        "--widths",
        "16,32,64,128",
        "--seeds",
        "2",
        "--threads",
        "1",
    )
    found = run(*words, "--format", "json")
    assert found.code in (0, 3), found.err
    quantities = {check["quantity"] for check in json.loads(found.out)["checks"]}
    assert {"G (spectral norm)", "h_1 (typical entry)"} <= quantities


def test_a_rule_as_text_is_the_rule_of_that_name(run: Run) -> None:
    name, text = (json.loads(run("derive", rule, "--format", "json").out)
                  for rule in ("foof", "G @ (A + rho_A*I)**(-e_A)"))  # fmt: skip
    assert name["layers"] == text["layers"] and (name["name"], text["name"]) == ("foof", "")


# --- exit codes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "words"), [
    (0, ("derive", "G")), (0, ("--help",)), (0, ("verify", "--help")),
    (0, ("compare", "sgd", "G")),
    (0, ("compare", "sgd; a_hidden=1; b_hidden=-1/2; c_hidden=-2", "sgd")),
    (1, ("compare", "sgd", "sign")), (1, ("compare", "sgd", "sgd; b_output=1/2")),
    (2, ("verify", "sgd", "--all")), (2, ("verify", "sgd", "--deep", "--expect", "own_hidden=1")),
    (0, ("compare", "adam; init=ntk; alignment=full", "adam; init=standard; alignment=full")),
    (1, ("compare", "adam; init=ntk; alignment=full", "adam; init=ntk; alignment_output=none")),
    (1, ("compare", "adam; init=ntk; d_eps=0", "adam; init=standard; d_eps=0")),
    (2, ("derive", "adam", "--alignment", "input=full")),
    (2, ("predict", "adam", "--alignment", "measured")),
    (2, ("derive", "adam", "--init", "std")), (2, ("derive", "adam", "--alignment", "2,1,1")),
    (2, ("measure", "sgd", "--mode", "wide", "--memory-limit", "none")),
    (2, ("measure", "sgd", "--width", "1e7", "--memory-limit", "1KiB")),
    (2, ("measure", "sign", "--width", "1e7")), (2, ("measure", "sgd", "--scheduler", "tcp://x:1")),
    (2, ("derive", "G @ G")), (2, ("compare", "sgd; a=1", "G +")),
    (0, ("verify", "sgd", *TINY, "--set", "b=oo", "--set", "c=0")),
    (1, ("verify", "sgd", *TINY, "--expect", "own_hidden=-oo")), (3, ("verify", "sgd", *TINY)),
])  # fmt: skip
def test_exit_codes(run: Run, code: int, words: tuple[str, ...]) -> None:
    found = run(*words)
    assert found.code == code, (found.out, found.err)
    assert (found.err == "") is (code != 2)


# --- refusals -----------------------------------------------------------------------------------

REFUSED: list[tuple[tuple[str, ...], str]] = [
    (("derive", "kfca"), "optimizer 'kfca'|such as kfac, |did you mean 'kfac'?"),
    (("derive", "qqqq"), "such as qhm, |for example sign(G)"),
    (("derive", "G @ G"), "    G @ G\n      ^|transpose one side with .T"),
    (("derive", "G @ (A + rho*I"), "was never closed|        ^\n"),
    (("derive", "Q @ G"), "matrix 'Q'|    Q @ G\n    ^"),
    (("derive", "sgin(G)"), "function 'sgin'|did you mean 'sign'?"),
    (("derive", "A"), "the update A, a fan_in x fan_in"),
    (("derive", ""), "an empty rule"),
    (("derive", "G**x"), "the power x|rename x to e_x"),
    (("measure", "G @ (A + rho*I)**(1/0)"), "1/0|^|a finite number"),
    (("derive", "G*1e999"), "the number 1e999"),
    (("derive", "__import__('os')"), "function '__import__'"),
    (("derive", "G[0]"), "'G[0]', which is not in the rule language"),
    (("derive", "+".join("G" * 3000)), "a rule of 5999 characters"),
    (("derive", "G*G"), "even in the gradient|odd one"),
    (("derive", "sgd", "--set", "d_rho_A=1"), "setting 'd_rho_A'"),
    (("derive", "sgd", "--set", "b_ouput=1"), "did you mean 'b_output'?"),
    (("derive", "kfac", "--set", "d_rho_A"), "the setting 'd_rho_A'|key=value"),
    (("derive", "kfac", "--set", "d_rho_A="), "the setting 'd_rho_A='|key=value"),
    (("derive", "kfac", "--set", "rho_A=-1"), "not negative"),
    (("derive", "sgd", "--set", "b=1/0"), "the exponent '1/0'"),
    (("derive", "sgd", "--set", "c=oo"), "only b may be oo"),
    (("derive", "sgd", "--set", "b_hidden=0"), "grows with the width|scaling predict"),
    (("explain", "sgd", "--layer", "hiden"), "did you mean 'hidden'?"),
    (("compare", "sgd", "sgd; c_hiden=1"), "did you mean 'c_hidden'?"),
    (("compare", "G + W; a=1", "G + W"), "a multiple of W added to the gradient"),
    (("measure", "sgd", "--width", "0"), "the width '0'|at least 1"),
    (("measure", "sgd", "--width", "2.5"), "the width '2.5'|whole number"),
    (("measure", "sgd", "--width", "-8"), "the width '-8'"),
    (("measure", "sgd", "--width", "nan"), "the width 'nan'"),
    (("measure", "sgd", "--width", "1e7", "--mode", "dense"), "a dense network of width"),
    (("measure", "sgd", "--data", "digit"), "data set 'digit'|did you mean 'digits'?"),
    (("measure", "sgd", "--data", "mnist"), "mnist without a root|unpack it there"),
    (("measure", "sgd", "--data", "mnist", "--data-root", "/nowhere"), "no folder /nowhere"),
    (("measure", "sgd", "--samples", "5000"), "samples=5000|at most 1797"),
    (("measure", "G*nu"), "no value for 'nu'|--set nu="),
    (("measure", "sgd", "--set", "c=beta"), "beta not given|--set beta=1"),
    (("verify", "(B + rho*I)**(-e_A) @ G", *TINY), "e_A not given|--set e_A=1"),
    (("verify", "sgd", *DENSE, "--widths", "64"), "the widths '64'|at least three"),
    (("verify", "sgd", *DENSE, "--widths", "64,32,16"), "larger than the one before"),
    (("verify", "sgd", *DENSE, "--widths", "64:"), "the width ''"),
    (("verify", "sgd", *TINY, "--margin", "0"), "a margin of 0.0|between 0 and 1"),
    (("verify", "sgd", *TINY, "--margin", "nan"), "a margin of nan"),
    (("verify", "sgd", *TINY, "--expect", "own_hiden=1"), "did you mean 'own_hidden'?"),
    (("verify", "sgd", *TINY, "--expect", "own_input_bias=1"), "expectation 'own_input_bias'"),
    (("verify", "sgd", "sgd", *TINY), "the rule 'sgd' twice"),
    (("verify", "sgd", *TINY, "--expect", "own_hidden=oo", "--out", "kept"), "own_hidden=oo"),
    (("measure", "sgd", "--set", "b=-300"), "b of input = -300|beyond floating point"),
    (("verify", "sgd", *TINY, "--set", "c=-300"), "c of input = -300|beyond floating point"),
    (("verify", "sgd", *TINY, "--out", "/dev/null"), "the output folder /dev/null"),
    (("measure", "sgd", "--width", "1e20"), "the width '1e20'|at most 10,000,000,000"),
    (("derive", "-G"), "No such option: -G|in brackets: '(-G)'"),
    (("phase", "sgd", "--out", "x"), "No such option: --out|run `scaling phase --help`"),
    (("derive", "kfac", "--set", "d=1"), "the setting 'd'|d_rho_B, d_rho_A|--set d_rho_B=1"),
    (("compare", "sgd; c=1; c=2", "sgd"), "'c' twice"),
    (("verify", "sgd", "--data", "mnist"), "mnist without a root|--data-root"),
    (("verify", "sgd", *TINY, "--out", "/proc/nowhere"), "the output folder /proc/nowhere"),
]  # fmt: skip


def in_three_parts(found: Result) -> None:
    assert found.code == 2, found
    assert found.out == ""
    parts = ["found: ", "\nneeded: ", "\ndo this: "]
    places = [found.err.find(part) for part in parts]
    assert places[0] == 0 and places == sorted(places) and -1 not in places, found.err
    assert "Traceback" not in found.err and ".py" not in found.err


@pytest.mark.parametrize(
    ("words", "fragments"), REFUSED, ids=[" ".join(w)[:60] for w, _ in REFUSED]
)
def test_bad_input_is_refused_in_three_parts_and_writes_nothing(
    run: Run, words: tuple[str, ...], fragments: str
) -> None:
    found = run(*words)
    in_three_parts(found)
    for fragment in fragments.split("|"):
        assert fragment in found.err, found.err
    assert not list(Path.cwd().iterdir())


def test_cuda_without_a_device_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = run("measure", "sgd", "--device", "cuda")
    in_three_parts(found)
    assert "--device cuda" in found.err and "use --device cpu" in found.err


USAGE = [("derive", "sgd", "--depth", "1"), ("derive", "sgd", "--format", "xml"), ("derive",),
         ("verify", "sgd", "--seeds", "-1"), ("verify", "sgd", "--seeds", "0"), ("drive", "sgd"),
         ("measure", "sgd", "--seed", "-1"), ("measure", "sgd", "--samples", "0"),
         ("measure", "sgd", "--device", "tpu"), ("derive", "sgd", "--fast")]  # fmt: skip


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_a_bad_option_is_refused_without_a_traceback(run: Run, words: tuple[str, ...]) -> None:
    found = run(*words)
    assert found.code == 2 and found.out == ""
    assert "Traceback" not in found.err
    in_three_parts(found)
    assert not list(Path.cwd().iterdir())


def bad(reason: str, *words: str) -> Any:
    return pytest.param(words, id=f"{' '.join(words)}: {reason}")


FOLDER = "an empty name of a folder, as of an unset variable, is no folder"
ZERO = "a division by zero in a power ends in a traceback"
SYMBOL = "taken for the name of a symbol"
DECAY = "a decay outside of [0, 1) is refused in a rule, and not as a value"
KNOWN = [
    *(bad("options are refused in the words of the option parser", *words) for words in USAGE),
    bad(SYMBOL, "predict", "G", "--set", "b=nan"), bad(SYMBOL, "predict", "G", "--set", "b=inf"),
    bad(ZERO, "derive", "G @ A**(1/(1 - 1))"), bad(ZERO, "predict", "G @ A**(1/(1 - 1))"),
    bad(DECAY, "measure", "momentum", "--width", "8", "--set", "beta=1"),
    bad(DECAY, "measure", "momentum", "--width", "8", "--set", "beta=2"),
    bad("only b may be oo", "predict", "foof", "--set", "e_A=oo"),
    bad(FOLDER, "verify", "sgd", *TINY, "--out", ""), bad(FOLDER, "claims", "1", "--out", " "),
    bad(FOLDER, "measure", "sgd", "--width", "8", "--data-root", ""),
]  # fmt: skip


@pytest.mark.parametrize("words", KNOWN)
def test_this_too_is_refused_in_three_parts(run: Run, words: tuple[str, ...]) -> None:
    in_three_parts(run(*words))
    assert not list(Path.cwd().iterdir())


# --- processes ----------------------------------------------------------------------------------


def test_the_command_of_a_process_has_the_exit_codes_and_streams() -> None:
    script = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines()
                  if line.startswith("scaling = "))  # fmt: skip
    assert ast.literal_eval(script.partition(" = ")[2]) == "scaling.cli.main:main"
    good, wrong = process("derive", "muon"), process("derive", "G @ G")
    assert (good.code, good.err) == (0, "") and good.out.startswith("muon: dW = orth(G)")
    in_three_parts(wrong)
    module = subprocess.run([sys.executable, "-m", "scaling.cli", "compare", "sgd", "sign"],
                            cwd=ROOT, capture_output=True, check=False)  # fmt: skip
    assert module.returncode == 1


def without(package: str, *words: str) -> Result:
    """The command where a package is not installed."""
    hide = f"""
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == '{package}':
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)
sys.meta_path.insert(0, Hide())
from scaling.cli.main import main
main()
"""
    return process(*words, code=f"exec({hide!r})")


def test_without_torch_deriving_works_and_measuring_names_the_extra(tmp_path: Path) -> None:
    assert without("torch", "derive", "kfac").code == 0
    for verb in ("measure", "verify"):
        found = without("torch", verb, "sgd")
        in_three_parts(found)
        assert "'torch'" in found.err and "pip install 'scaling[empirical]'" in found.err


@pytest.mark.parametrize("package", ["sklearn", "matplotlib"])
def test_without_another_package_measuring_names_the_extra_before_it_starts(
    tmp_path: Path, package: str
) -> None:
    found = without(package, "verify", "sgd", *TINY, "--out", str(tmp_path / "out"))
    in_three_parts(found)
    assert "scaling[empirical]" in found.err
    assert not (tmp_path / "out" / "records.jsonl").exists()


def interrupted(tmp_path: Path) -> Result:
    """SIGINT once the first record is written."""
    words = (
        "verify",
        "sgd",
        *DENSE,
        "--widths",
        "512:4096",
        "--seeds",
        "64",
        "--out",
        str(tmp_path),
    )
    command = [sys.executable, "-m", "scaling.cli", *words]
    ours = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's "&" leaves it ignored
    running = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGINT, ours)
    try:
        for _ in range(600):
            if (tmp_path / "records.jsonl").exists() or running.poll() is not None:
                break
            signal.sigtimedwait([], 0.1)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    return Result(running.returncode, out, err)


def test_an_interrupt_ends_with_130_and_keeps_the_records(tmp_path: Path) -> None:
    found = interrupted(tmp_path)
    assert found.code == 130 and found.out == "" and "Traceback" not in found.err
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert lines and all(json.loads(line)["width"] == 512 for line in lines)


def test_an_interrupt_says_what_is_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("empirical.verify.verification.verify", stop)
    found = run("verify", "sgd", *TINY)
    assert found.code == 130
    assert "finished measurements are kept in --out" in found.err


def test_a_closed_pipe_is_no_verdict() -> None:
    command = [sys.executable, "-m", "scaling.cli", "list", "--format", "json"]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None and running.stderr is not None
    running.stdout.close()
    assert running.stderr.read() == b""
    assert running.wait(60) == 0
