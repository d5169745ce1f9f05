"""Print the reference of every public name, for mkdocstrings."""

from __future__ import annotations

import empirical
import scaling


def main() -> None:
    """Print it."""
    for package in (scaling, empirical):
        print(f"## {package.__name__}\n")
        for name in package.__all__:
            home = package._HOME[name]
            print(f"::: {package.__name__}.{home}.{name}\n")


if __name__ == "__main__":
    main()
