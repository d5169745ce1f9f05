"""What the command says of itself: an example of every verb, its version, names for a shell."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typed import Typed

from scaling.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
COMMAND: Any = typer.main.get_command(app)
ANSWERS = {"list", "table", "derive", "predict", "explain"}
"""Verbs that answer without a measurement; compare exits by what it finds."""


def examples(verb: str) -> list[list[str]]:
    """The commands that the help of a verb shows, as words."""
    told = re.search(r"Example: (.*)\.\Z", COMMAND.commands[verb].help.strip(), re.DOTALL)
    assert told, f"the help of {verb} ends with 'Example: scaling {verb} ...'"
    commands = " ".join(told[1].split()).split(", or ")
    return [shlex.split(command)[1:] for command in commands]


@pytest.mark.parametrize("verb", COMMAND.commands)
def test_the_help_of_a_verb_ends_with_an_example_that_can_be_typed(verb: str, typed: Typed) -> None:
    assert examples(verb)
    for name, *words in examples(verb):
        assert name == verb
        COMMAND.commands[verb].make_context(verb, list(words))
        if verb in ANSWERS:
            words = [str(ROOT / "docs" / word) if word == "gpt.py" else word for word in words]
            assert typed(verb, *words).code == 0


def test_an_example_that_is_none_is_seen() -> None:
    with pytest.raises(Exception, match="No such option"):
        COMMAND.commands["derive"].make_context("derive", ["kfac", "--wide"])


def test_the_list_of_verbs_cuts_no_line(typed: Typed) -> None:
    listed = typed("--help").out.partition("Commands:")[2]
    assert len(listed.split("\n")) > len(COMMAND.commands) and "..." not in listed


def test_versions(typed: Typed) -> None:
    done = typed("--version")
    assert done.code == 0
    assert re.match(r"scaling \d+\.\d+\.\d+\nsympy \d", done.out)
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f'version: "{done.out.split()[1]}"' in citation


def test_a_shell_completes_verbs_and_names_of_rules() -> None:
    def completed(typed: str) -> list[str]:
        words = {"COMP_WORDS": f"scaling {typed}", "COMP_CWORD": str(len(typed.split()))}
        done = subprocess.run(
            [sys.executable, "-c", "from scaling.cli.main import app; app(prog_name='scaling')"],
            env={**os.environ, **words, "_SCALING_COMPLETE": "complete_bash"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout.split()

    assert completed("de") == ["derive"]
    names = completed("derive shampoo")
    assert "shampoo" in names and all(name.startswith("shampoo") for name in names)
