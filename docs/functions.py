"""The table of operators and functions of the rule language, from their rows, as Markdown."""

from __future__ import annotations

from scaling.rules.operators import FUNCTIONS, OPERATORS


def main() -> None:
    """Print it."""
    print("| | is | for example |\n| --- | --- | --- |")
    for row in (*OPERATORS.values(), *FUNCTIONS.values()):
        about = row.about.replace("*", "\\*").replace("|", "\\|")
        print(f"| `{row.signature}` | {about} | `{row.example}` |")


if __name__ == "__main__":
    main()
