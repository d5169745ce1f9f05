"""How many files of ours a command runs through: those with a function that is called.

    python benchmarks/walk.py derive kfac
    python benchmarks/walk.py verify adam --mode wide --widths 64,128,256 --seeds 2 --threads 1
    python benchmarks/walk.py --names derive kfac        their names

Not counted: what an import alone runs, and what other threads and processes do.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("scaling", "derivations", "empirical")


def walked(words: list[str]) -> set[Path]:
    """The files, from the root; what an import alone runs does not count."""
    seen: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_flags & 0x2:  # a function, no body of a module or class
            seen.add(code.co_filename)

    from scaling.cli.main import main

    sys.argv = ["scaling", *words]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        sys.setprofile(note)
        try:
            main()
        finally:
            sys.setprofile(None)
    inside = {Path(name) for name in seen if name.startswith(str(ROOT))}
    return {x for path in inside if (x := path.relative_to(ROOT)).parts[0] in PACKAGES}


def main() -> None:
    """Count and print, by folder."""
    words = sys.argv[1:]
    named = words[:1] == ["--names"]
    files = walked(words[named:] or ["derive", "kfac"])
    if named:
        print("\n".join(sorted(map(str, files))))
        return
    lines = sum(len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in files)
    print(f"{len(files)} files of {lines} lines")
    for folder, count in sorted(Counter(path.parent for path in files).items()):
        print(f"{count:4}  {folder}")


if __name__ == "__main__":
    main()
