"""Records of a long run in one JSON file, by name, from which a page is made: kept as they come.

Another run may add names to the same file meanwhile: it is read again before each is added.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from empirical.measure.machine import cores

Record = Mapping[str, Any]
FOLDER = Path(__file__).parents[1] / "docs"


class Records:
    """The JSON file of a name in docs, and the Markdown beside it that ``page`` makes of it."""

    def __init__(self, name: str, page: Callable[[Mapping[str, Record]], str]) -> None:
        self._kept, self._shown = FOLDER / f"{name}.json", FOLDER / f"{name}.md"
        self._page = page

    def read(self) -> dict[str, Record]:
        """What is there; nothing at first."""
        return json.loads(self._kept.read_text("utf-8")) if self._kept.exists() else {}

    def wanted(self, named: Sequence[str], known: Sequence[str]) -> list[str]:
        """What to measure: the names that are asked for, or all that have no record."""
        there = self.read()
        return list(named) or [name for name in known if name not in there]

    def add(self, name: str, record: Record) -> None:
        """Keep one more, or the same anew, and write the page."""
        records = self.read() | {name: record}
        lines = (f"{json.dumps(key)}: {json.dumps(x)}" for key, x in records.items())
        self._kept.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
        self.write(records)

    def measure(
        self,
        named: Sequence[str],
        known: Sequence[str],
        measured: Callable[[str], Record],
        told: Callable[[Record], str],
    ) -> None:
        """Measure what is wanted, names side by side, and print what is ``told`` of each record."""

        def task(name: str) -> tuple[str, Record]:
            return name, measured(name)

        run = Parallel(cores(), return_as="generator_unordered", pre_dispatch="all", batch_size=1)
        for name, record in run(delayed(task)(name) for name in self.wanted(named, known)):
            self.add(name, record)
            print(name, record["left_out"] or told(record), flush=True)
        self.write()

    def write(self, records: Mapping[str, Record] | None = None) -> None:
        """Make the page again."""
        self._shown.write_text(self._page(self.read() if records is None else records), "utf-8")
