"""Fill the blocks of the pages with what the commands named in them print.

    <!-- made by: scaling derive kfac --format markdown -->
    ... replaced by the command's output ...
    <!-- end -->

A block "made by: python SCRIPT" takes what the script prints, "made by: FILE" the file's text.
`python docs/fill.py [PAGE]...` rewrites the pages named, or README.md, CONTRIBUTING.md and those
of docs/. With `--printed` only the blocks that commands print, not those that come from
measurements; with `--only=COMMAND` those made by it; `--check` says which pages are out of date and
rewrites none.
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


def filled(text: str, files: bool = True, only: str | None = None) -> str:
    """The text with its blocks made anew; ``only`` those of one command or file."""

    def block(match: re.Match[str]) -> str:
        head, command, _, end = match.groups()
        if only not in (None, command) or (not files and not command.startswith("scaling ")):
            return match.group(0)
        body = output(command).rstrip()
        if command.startswith("scaling ") and "--format markdown" not in command:
            body = f"```text\n$ {command}\n{body}\n```"
        return f"{head}\n{body}\n\n{end}"

    return BLOCK.sub(block, text)


def pages() -> list[Path]:
    """README.md, CONTRIBUTING.md and the pages of docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def main() -> None:
    """Rewrite or check."""
    named = [ROOT / word for word in sys.argv[1:] if not word.startswith("-")]
    only = next((w.partition("=")[2] for w in sys.argv[1:] if w.startswith("--only=")), None)
    stale = []
    for path in named or pages():
        old = path.read_text(encoding="utf-8")
        new = filled(old, files=not {"--check", "--printed"} & set(sys.argv), only=only)
        if new != old:
            stale.append(str(path.relative_to(ROOT)))
            if "--check" not in sys.argv:
                path.write_text(new, encoding="utf-8")
    if "--check" in sys.argv and stale:
        sys.exit(f"out of date: {', '.join(stale)}; do this: python docs/fill.py --printed")


if __name__ == "__main__":
    main()
