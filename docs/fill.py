"""Fill the blocks of a page with what the commands named in them print.

    <!-- made by: scaling derive kfac --format markdown -->
    ... replaced by the command's output ...
    <!-- end -->

A block "made by: python SCRIPT" takes what the script prints, "made by: FILE" the file's text.
`python docs/fill.py [PAGE]` rewrites README.md or the page; `--check` only says whether README.md
is up to date, and leaves alone the blocks that come from measurements.
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
    """What a `scaling` command or a script prints, or the text of a file."""
    words = shlex.split(command)
    if words[0] not in ("scaling", "python"):
        return (ROOT / command).read_text(encoding="utf-8")
    run = [
        sys.executable,
        *(words[1:] if words[0] == "python" else ["-m", "scaling.cli", *words[1:]]),
    ]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, check=False)
    if words[0] == "python" and done.returncode != 0:
        sys.exit(f"{command} failed:\n{done.stderr}")
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
    pages = [word for word in sys.argv[1:] if not word.startswith("-")] or ["README.md"]
    path = ROOT / pages[0]
    old = path.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        sys.exit(
            0 if filled(old, files=False) == old else f"{path.name} is out of date: make readme"
        )
    path.write_text(filled(old), encoding="utf-8")


if __name__ == "__main__":
    main()
