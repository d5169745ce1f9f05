"""Results that show themselves in notebooks: as HTML, as LaTeX where a page is typeset, or as text.

Results are made below the folders that print them, so that a result names its printer only by
place: ``report.notebook`` of its own package, which is imported when something is shown.

>>> from scaling.solve.derive import derive
>>> derive("orth(G)")._repr_html_()[:16]
'<table><caption>'
"""

from __future__ import annotations

import importlib
from typing import Any

PRINTERS = {
    "scaling": "scaling.report.notebook",
    "derivations": "scaling.report.notebook",
    "empirical": "empirical.report.measured_notebook",
}


class InNotebook:
    """A result that a notebook shows as its page would."""

    def __init_subclass__(cls) -> None:
        """IPython takes a class's own `__repr__`, which dataclasses have, before a base's text."""
        super().__init_subclass__()
        cls._repr_pretty_ = cls._text  # type: ignore[attr-defined]

    def _repr_html_(self) -> str:
        return _shown(self, "html")

    def _repr_latex_(self) -> str:
        return _shown(self, "latex")

    def _text(self, printer: Any, cycle: bool) -> None:
        printer.text(_shown(self, "text"))


def _shown(result: object, style: str) -> str:
    package = next(
        name for kind in type(result).__mro__ if (name := kind.__module__.split(".")[0]) in PRINTERS
    )
    text: str = importlib.import_module(PRINTERS[package]).shown(result, style)
    return text
