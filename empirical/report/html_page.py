"""A report as one page of HTML: no network, no script, readable in any browser of today.

The template is `page.html` beside this file. What unfolds is a `details` element, what is wide
scrolls in its own box, colours follow the reader's scheme, and every text is escaped (jinja2).
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from empirical.measure.machine import cores
from empirical.report.page_sections import Section

PACKAGES = ("scaling", "sympy", "numpy", "torch", "scipy", "matplotlib")


def page(sections: Sequence[Section], command: str, axis: str = "width", subject: str = "") -> str:
    """The whole report.

    Args:
        sections: one for each rule or recipe.
        command: what was typed.
        axis: what grows.
        subject: the model's file; a chain of dense layers if there is none.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    folder = FileSystemLoader(Path(__file__).parent)
    maker = Environment(
        loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    maker.filters["picture"] = Markup  # our own drawings, whose texts are escaped where they start
    maker.filters["anchor"] = lambda text: "".join(x if x.isalnum() else "-" for x in str(text))
    names = " and ".join(dict.fromkeys(section.name for section in sections))
    return maker.get_template("page.html").render(
        sections=sections,
        title=f"{names}: exponents as the {axis} grows",
        question=_question(names, axis, subject),
        evidence=_evidence(sections),
        environment=environment(),
        command=command,
    )


def environment() -> dict[str, str]:
    """Versions, and the machine: what a measurement may depend on."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return {**found, "machine": f"{platform.system()} {platform.machine()}, {cores()} cores"}


def _question(names: str, axis: str, subject: str) -> str:
    what = f"the model of {subject}" if subject else "a network of dense layers"
    return (
        f"How must initialisation, learning rate and damping of {names} change when the {axis} of "
        f"{what} grows?"
    )


def _evidence(sections: Sequence[Section]) -> str:
    """The second sentence: how it is answered."""
    across = list(dict.fromkeys(section.across for section in sections if section.across))
    if not across:
        return "Every exponent is derived from the update rule, line by line; nothing is measured."
    return (
        "Every exponent is derived from the update rule, line by line, and held against networks "
        f"trained for a step: {'; '.join(across)}."
    )
