"""Every command that the README and the pages show is run: by the tests, or by `make shown`.

The blocks that say what a command prints are held against it in test_readme.py. Of the others those
of a moment run here as they are; those that measure run here at small sizes, with the same words
but for widths, seeds, steps and budgets, and as they are where SHOWN is set. They run in a folder
of their own, with a rule, a recipe or a file in the place of the capitals that stand for one. They
may find that theory and measurement differ: what none may be is refused, or fail.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from test_readme import COMMANDS, PRINTED
from typed import Typed

ROOT = Path(__file__).resolve().parent.parent
SECONDS = int(os.environ.get("SHOWN") or 0)
"""For each; one that runs longer is stopped, and said to."""
MOMENTARY = re.compile(r"scaling (list|derive|predict|explain|compare|claims --list)\b")
MEASURES = re.compile(r"--measured|--model|--alignment measured")
STANDS_FOR = {
    "check adamw --model FILE.py --as-is": "check adam --model docs/mlp.py --as-is",
    "verify NAME": "verify sgd",
    "tune adamw --model FILE.py": "tune adamw --model examples/transformer.py",
    "tune RECIPE --model FILE.py": "tune sgd --model examples/digits.py",
    "tune sgd --model FILE.py": "tune sgd --model examples/digits.py",
    "transfer RECIPE --model FILE.py": "transfer sgd --model docs/mlp.py",
    "FILE.py:CLASS": "own.py:Own", "FILE.py": "docs/small_gpt.py", "FILE.toml": "recipe.toml",
    "MODULE:CLASS": "torch.optim:Adam", "RULE --x": "kfac --x", "RULE": "sgd",
    "check RECIPE": "check adamw", "RECIPE": "sgd", "ONE OTHER": "sgd adam", "FOLDER": "all",
}  # fmt: skip
ALWAYS_LONG = {
    "--tier desk": "an hour", "--all": "hours", "--redraw": "draws what an hour has measured",
    "tcp://": "needs a cluster", "claims --threads 1 --out": "an hour", "claims 4b 9": "an hour",
    "claims 14 ": "minutes",
}  # fmt: skip


SMALL = {
    "--widths": "64,128,256", "--width": "512", "--axis": "width=16:64", "--at": "width=32",
    "--seeds": "2", "--steps": "2", "--budget": "2runs", "--tier": "ci",
}  # fmt: skip
"""What takes the place of sizes that are shown."""
OTHER_AXES = {"batch": "batch=8:32", "depth": "depth=2,3,4"}
TRAINING = {
    "verify": ("--seeds",), "report": ("--seeds",), "check": ("--seeds",),
    "align": ("--widths", "--seeds"), "derive": (),
    "explain": ("--widths", "--seeds"), "phase": ("--widths", "--seeds"), "measure": (),
    "transfer": ("--axis", "--steps", "--seeds"), "claims": (),
    "tune": ("--axis", "--budget", "--steps", "--seeds"),
}  # fmt: skip
"""Verbs that measure, and what they are given where they show none: defaults are larger."""
NEVER_SMALL = ("--redraw", "tcp://", "--all", "batch=8:64")
"""Run small by tests of their own: test_claims_cli, test_cluster, test_cli, test_batch_axis."""


def small_words_of(command: str) -> list[str]:
    """The words of a command, at small sizes if it measures."""
    words = words_of(command)
    verb = words[0]
    asked = {"derive": "measured", "explain": "--measured", "phase": "--points"}.get(verb, verb)
    if verb not in TRAINING or asked not in words:
        return words
    if verb == "claims":
        of_options = {x for option, x in pairwise(words) if option.startswith("--")}
        words = [x for x in words if x in of_options or not re.fullmatch(r"\d+[a-z]?", x)]
        words.insert(1, "1a")
    missing = [x for x in TRAINING[verb] if x not in words]
    if verb in ("verify", "report"):
        option = "--axis" if "--model" in words else "--widths"
        missing += [option] if not {option, "--axis", "--theory"} & set(words) else []
    words += [x for option in missing for x in (option, SMALL[option])]
    for i, option in enumerate(words[:-1]):
        if option in SMALL:
            axis = words[i + 1].partition("=")[0]
            words[i + 1] = OTHER_AXES.get(axis, SMALL[option])
            if (verb, option) == ("tune", "--axis"):
                words[i + 1] = "width=16"
    return words


def words_of(command: str) -> list[str]:
    """The words behind ``scaling``, with something in the place of what stands for it."""
    text = re.sub(r"\[[^]]*\]…?|…", "", command)
    for name, example in STANDS_FOR.items():
        text = re.sub(rf"(?<![\w.]){re.escape(name)}(?![\w.:])", example, text)
    words = shlex.split(text)[1:]
    if words[0] == "tune" and "--axis" not in words:
        words += ["--axis", "width=64"]
    return words


SHOWN = list(dict.fromkeys(x for _, x in COMMANDS if x.startswith("scaling ") and x not in PRINTED))
QUICK = [x for x in SHOWN if MOMENTARY.match(x) and not MEASURES.search(x)]
LONGER = list({tuple(words_of(x)): x for x in SHOWN if x not in QUICK}.values())
"""Each once: commands with a name in the place of RULE may be one."""
AT_SMALL_SIZE = {
    tuple(sorted(set(small_words_of(x)))): x
    for x in LONGER if not any(part in x for part in NEVER_SMALL)
}.values()  # fmt: skip
"""Each once: many differ in sizes alone."""


@pytest.mark.parametrize("command", QUICK)
def test_a_command_of_a_moment_that_is_shown_ends_well(
    command: str, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    done = typed(*words_of(command))
    assert done.code in (0, 1) and done.out.strip() and not done.err, done


@pytest.mark.parametrize("command", AT_SMALL_SIZE)
def test_a_longer_command_that_is_shown_ends_well_at_small_size(
    command: str, typed: Typed, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    done = typed(*small_words_of(command))
    assert done.code in (0, 1, 3) and done.out.strip(), done


@pytest.mark.skipif(not SECONDS, reason="make shown")
@pytest.mark.parametrize("command", LONGER)
def test_a_longer_command_that_is_shown_ends_well(command: str, workplace: Path) -> None:
    why = next((why for part, why in ALWAYS_LONG.items() if part in command), None)
    if why is not None:
        pytest.skip(f"{why}: {command}")
    run = [sys.executable, "-m", "scaling.cli", *words_of(command)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        run, cwd=workplace, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            _, errors = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # and whoever works for it
            pytest.skip(f"stopped after {SECONDS} s: {command}")
    assert process.returncode in (0, 1, 3), errors[-2000:]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that commands name."""
    folder = tmp_path_factory.mktemp("shown")
    for name in ("docs", "examples"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "own.py").write_text("import torch\n\n\nclass Own(torch.optim.Adam):\n    pass\n")
    (folder / "recipe.toml").write_text(
        '[[group]]\nselect = ["hidden"]\nrule = "orth(G)"\n\n'
        '[[group]]\nselect = "rest"\nrule = "sign(G)"\n'
    )
    plan = (
        "plan adamw --model docs/small_gpt.py --base width=64 --at width=256 --lr 3e-3 --eps 1e-8 "
        "--decay 0.1 --save plan.json"
    )
    run = [sys.executable, "-m", "scaling.cli", *plan.split()]
    subprocess.run(run, cwd=folder, check=True, capture_output=True)
    return folder


def test_a_command_that_is_refused_is_seen(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"scaling list kfac", "scaling explain kfac"} <= set(QUICK)
    assert {"scaling verify", "scaling check RECIPE --model FILE.py"} <= set(LONGER)
    assert words_of("scaling compare ONE OTHER") == ["compare", "sgd", "adam"]
    with pytest.raises(AssertionError):
        test_a_command_of_a_moment_that_is_shown_ends_well("scaling list sgdd", typed, monkeypatch)


def test_small_sizes_take_the_place_of_those_that_are_shown() -> None:
    assert {x.split()[1] for x in AT_SMALL_SIZE} >= {*TRAINING, "plan", "probe"}
    for shown, small in (
        ("verify kfac --widths 1e3:1e8", "verify kfac --widths 64,128,256 --seeds 2"),
        ("report kfac --theory", "report kfac --theory --seeds 2"),
        ("claims 4b 9 --seed 100", "claims 1a --seed 100"),
        ("plan adamw --at width=1024", "plan adamw --at width=1024"),
        ("explain kfac --measured", "explain kfac --measured --widths 64,128,256 --seeds 2"),
        ("transfer adam --axis depth=2:8 --steps 9 --seeds 8",
         "transfer adam --axis depth=2,3,4 --steps 2 --seeds 2"),
        ("tune sgd --at width=1024 --steps 9 --budget 9runs --seeds 8",
         "tune sgd --at width=32 --steps 2 --budget 2runs --seeds 2 --axis width=16"),
    ):  # fmt: skip
        assert small_words_of(f"scaling {shown}") == small.split()


def test_a_plan_that_is_shown_has_the_numbers_that_it_starts_from() -> None:
    plans = [x for _, x in COMMANDS if x.startswith("scaling plan ") and "--base" in x]
    of_adamw = [x for x in plans if "adamw" in x]
    assert all("--lr" in x for x in plans) and len(of_adamw) >= 2
    assert all("--eps" in x for x in of_adamw)
