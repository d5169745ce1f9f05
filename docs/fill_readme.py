"""Fill the README's blocks with what the commands named in them print.

    <!-- made by: scaling derive kfac --format markdown -->
    ... replaced by the command's output ...
    <!-- end -->

A block "made by: FILE" takes the file's text instead. `python docs/fill_readme.py` rewrites
README.md, `--check` only says whether it is up to date (blocks from files are left alone then).
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

BLOCK = re.compile(r"(<!-- made by: (.+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
ROOT = Path(__file__).resolve().parent.parent


def output(command: str) -> str:
    """What a `scaling` command prints, or the text of a file."""
    words = shlex.split(command)
    if words[0] != "scaling":
        return (ROOT / command).read_text(encoding="utf-8")
    run = [sys.executable, "-m", "scaling.cli", *words[1:]]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, check=False)
    return done.stdout or done.stderr


def filled(text: str, files: bool = True) -> str:
    """The text with its blocks made anew."""

    def block(match: re.Match[str]) -> str:
        head, command, _, end = match.groups()
        if not files and not command.startswith("scaling "):
            return match.group(0)
        body = output(command).rstrip()
        if command.startswith("scaling ") and "--format markdown" not in command:
            body = f"```text\n$ {command}\n{body}\n```"
        return f"{head}\n{body}\n\n{end}"

    return BLOCK.sub(block, text)


def main() -> None:
    """Rewrite or check."""
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        sys.exit(0 if filled(old, files=False) == old else "README.md is out of date: make readme")
    path.write_text(filled(old), encoding="utf-8")


if __name__ == "__main__":
    main()
