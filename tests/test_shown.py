"""Every command that the README and the pages show is run: by the tests, or by `make shown`.

The blocks that say what a command prints are held against it in test_readme.py. Of the others those
of a moment run here, and the rest where SHOWN is set, in a folder of their own, with a rule, a
recipe or a file in the place of the capitals that stand for one. They may find that theory and
measurement differ: what none may be is refused, or fail.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
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
    "FILE.py:CLASS": "own.py:Own", "FILE.py": "docs/small_gpt.py", "FILE.toml": "recipe.toml",
    "MODULE:CLASS": "torch.optim:Adam", "RULE --x": "kfac --x", "RULE": "sgd",
    "check RECIPE": "check adamw", "RECIPE": "sgd", "ONE OTHER": "sgd adam", "FOLDER": "all",
}  # fmt: skip
ALWAYS_LONG = {
    "--tier desk": "an hour", "--all": "hours", "--redraw": "draws what an hour has measured",
    "tcp://": "needs a cluster", "claims --threads 1 --out": "an hour", "claims 4b 9": "an hour",
    "claims 14 ": "minutes",
}  # fmt: skip


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


@pytest.mark.parametrize("command", QUICK)
def test_a_command_of_a_moment_that_is_shown_ends_well(
    command: str, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    done = typed(*words_of(command))
    assert done.code in (0, 1) and done.out.strip() and not done.err, done


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


def test_a_plan_that_is_shown_has_the_numbers_that_it_starts_from() -> None:
    plans = [x for _, x in COMMANDS if x.startswith("scaling plan ") and "--base" in x]
    of_adamw = [x for x in plans if "adamw" in x]
    assert all("--lr" in x for x in plans) and len(of_adamw) >= 2
    assert all("--eps" in x for x in of_adamw)
