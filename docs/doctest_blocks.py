"""For the site: examples in docstrings, which begin with >>>, become blocks of code."""

from __future__ import annotations

from typing import Any

import griffe


def fenced(text: str) -> str:
    r"""The text with a fence around every run of lines from >>> to the next empty line.

    >>> print(fenced("Adds.\n\n>>> 1 + 1\n2\n\nDone.").replace("`", "'"))
    Adds.
    <BLANKLINE>
    '''pycon
    >>> 1 + 1
    2
    '''
    <BLANKLINE>
    Done.
    """
    lines, inside = list[str](), False
    for line in [*text.splitlines(), ""]:
        if not inside and line.lstrip().startswith(">>> "):
            lines += ["", "```pycon"] if lines and lines[-1] else ["```pycon"]
            inside = True
        elif inside and not line.strip():
            lines.append("```")
            inside = False
        lines.append(line)
    return "\n".join(lines).rstrip()


class Examples(griffe.Extension):
    """Rewrites docstrings as they are read."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Called for every module, class and function."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
