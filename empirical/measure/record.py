"""A measurement as the store keeps it: plain numbers and text, and what may be missing of them.

    sizes     layer -> quantity -> size
    sums      [layer, damped sum as text, size without, size with the damping]
    seconds, peak_mb

Text is all that a file can hold of a node of the rule; `unpacked` finds it in the rule again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from empirical.measure.measured_sizes import MeasuredSizes, Measurement
from empirical.measure.store import Store
from empirical.measure.trial import Trial
from scaling.sizes.errors import InvalidInput

QUANTITIES = frozenset(field.name for field in fields(MeasuredSizes))


def record_store(folder: Path | None) -> Store:
    """The measurements in a folder; see `Store` for what is refused."""
    return Store(folder, fault=fault)


def packed(m: Measurement) -> dict[str, Any]:
    """The part of a measurement that a record keeps."""
    sums = [[layer, str(node), *terms] for (layer, node), terms in m.sums.items()]
    sizes = {name: x.known() for name, x in m.sizes.items()}
    return {"sizes": sizes, "sums": sums, "seconds": m.seconds, "peak_mb": m.peak_mb}


def fault(record: Mapping[str, Any]) -> str:
    """The fault that keeps a record from being a measurement, in words; "" if there is none.

    >>> fault({"sizes": {}, "sums": [], "seconds": 1.0, "peak_mb": 1.0})
    'without the sizes of any layer'
    """
    for name in ("sizes", "sums", "seconds", "peak_mb"):
        if name not in record:
            return f"without '{name}'"
    for name in ("seconds", "peak_mb"):
        if not _is_number(record[name]):
            return f"whose '{name}' is no number"
    if not isinstance(record["sums"], list) or not all(map(_is_sum, record["sums"])):
        return "whose 'sums' are no damped sums of a layer"
    sizes = record["sizes"]
    if not isinstance(sizes, dict) or not sizes:
        return "without the sizes of any layer"
    for layer, found in sizes.items():
        if not isinstance(found, dict) or not {"init", "own"} <= set(found) <= QUANTITIES:
            return f"whose sizes of the {layer} layer are not those that are measured"
        wrong = next((name for name, x in found.items() if not _is_number(x)), None)
        if wrong is not None:
            return f"whose {wrong} of the {layer} layer is no number"
    return ""


def unpacked(
    name: str, width: int, seed: int, record: Mapping[str, Any], trial: Trial, steps: int
) -> Measurement:
    """The measurement that was kept.

    Raises:
        InvalidInput: for a record of other layers or of other damped sums than the rule's.
    """
    nodes = {str(node): node for node in trial.problem.rule.expression.walk()}
    layers = {layer.name for layer in trial.problem.setting.layers}
    kept = set(record["sizes"]), {text for _, text, _, _ in record["sums"]}
    if kept[0] != layers or not kept[1] <= set(nodes):
        raise InvalidInput(
            f"a record of width {width} and seed {seed} for {name}, with sizes of "
            f"{', '.join(sorted(kept[0]))}",
            f"sizes of {', '.join(sorted(layers))}, and sums of the rule",
            "move records.jsonl away, or choose another --out",
        )
    sums = {(layer, nodes[text]): (x, y) for layer, text, x, y in record["sums"]}
    sizes = {k: MeasuredSizes(**x) for k, x in record["sizes"].items()}
    spent = record["seconds"], record["peak_mb"]
    return Measurement(name, width, seed, sizes, sums, *spent, steps)


def require_alike(name: str, measurements: Iterable[Measurement]) -> None:
    """Refuse records of one run that do not hold the same quantities of every layer.

    Raises:
        InvalidInput: as said.
    """
    first: dict[str, list[str]] | None = None
    for m in measurements:
        known = {layer: list(sizes.known()) for layer, sizes in m.sizes.items()}
        first = first or known
        if known != first:
            raise InvalidInput(
                f"a record of width {m.width} and seed {m.seed} for {name}, with other quantities "
                "than the rest of its run",
                "the same sizes at every width and seed",
                "move records.jsonl away, or choose another --out",
            )


def _is_number(x: object) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)


def _is_sum(x: object) -> bool:
    return (
        isinstance(x, list)
        and len(x) == 4
        and all(isinstance(text, str) for text in x[:2])
        and all(_is_number(size) for size in x[2:])
    )
