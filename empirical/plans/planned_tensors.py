"""The numbers of one tensor at the size that is trained, and the factors of the code beside them.

Both are plain data: they are written to a file and read again without the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from empirical.trace.wrapped_names import is_flattened, tensors_of
from scaling.sizes.errors import InvalidInput


@dataclass(frozen=True)
class PlannedTensor:
    """One trained tensor.

    Args:
        shape: at the size that is trained.
        std: standard deviation at the start; None keeps the initialisation of the code.
        lr: learning rate.
        dampings: by symbol of the rule.
        decays: by symbol; a step takes lr times that away of the weights.
        group: of the recipe that it belongs to.
        averages: decays of moving averages, by symbol.
    """

    shape: tuple[int, ...]
    std: float | None
    lr: float
    dampings: Mapping[str, float] = field(default_factory=dict)
    decays: Mapping[str, float] = field(default_factory=dict)
    group: str = "rest"
    averages: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As in the file of a plan."""
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> PlannedTensor:
        """The inverse of `as_json`."""
        return cls(**{**found, "shape": tuple(found["shape"])})


@dataclass(frozen=True)
class PlannedChange:
    """A factor of the code: it has M^found of an axis, and needs M^needed.

    Args:
        axis: the axis along which it grows.
        file, line: where it stands.
        modules: those whose forward has the line, at the size that is trained.
        operation: of the graph, "multiply" or "contract": what the factor belongs to.
        found, needed: exponents, as text.
        factor: what the result is to be multiplied by, from the base to the size that is trained.
        why: the tensors that would have a maximal update then.
    """

    axis: str
    file: str
    line: int
    modules: tuple[str, ...]
    operation: str
    found: str
    needed: str
    factor: float
    why: str

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> PlannedChange:
        """The inverse of `dataclasses.asdict`, from JSON."""
        return cls(**{**found, "modules": tuple(found["modules"])})

    @property
    def text(self) -> str:
        """One line for a reader."""
        place = f"{self.file}:{self.line}" if self.line else self.modules[0]
        letter = "M" if self.axis == "width" else self.axis
        names, joint, rest = self.why.partition(" would have")
        several = names.split(", ")
        if len(several) > 3:
            names = f"{', '.join(several[:2])} and {len(several) - 2} others"
        return (
            f"{place}: a factor {letter}^({self.found}), where {letter}^({self.needed}) is needed, "
            f"{self.factor:.6g} times what it is: {names}{joint}{rest}"
        )


@dataclass(frozen=True)
class PlanRequest:
    """The request that a plan was made from, beside the model, the recipe and the sizes.

    Args:
        tuned: numbers at the base.
        keep: patterns of tensors that keep the initialisation of the code.
        powers: of the batch and the samples that were given, as text.
        change_code: whether factors of the code were to be changed.
        applied: powers that the optimizer applies itself, by axis and tensor, as text.
    """

    tuned: Mapping[str, float | Mapping[str, float]]
    keep: tuple[str, ...] = ()
    powers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    change_code: bool = False
    applied: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As in the file of a plan."""
        return {**asdict(self), "keep": list(self.keep)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> PlanRequest:
        """The inverse of `as_json`."""
        return cls(**{**found, "keep": tuple(found["keep"])})


def refuse_another_model(shapes: Mapping[str, tuple[int, ...]], model: nn.Module) -> None:
    """Refuse a model whose tensors are not those of a plan.

    Tensors that FullyShardedDataParallel flattens are known by their names alone.

    Raises:
        InvalidInput: naming the first tensor that is missing, left over, or of another shape.
    """
    known = {name: tuple(x.shape) for name, x in tensors_of(model).items()}
    flat = next((name for name in known if name.endswith("_flat_param")), None)
    if flat is not None:
        raise InvalidInput(
            f"the tensor '{flat}' of FullyShardedDataParallel, in the place of those of the model",
            "tensors that keep their names",
            "pass use_orig_params=True to it, or shard by fully_shard",
        )
    missing = next((name for name in shapes if name not in known), None)
    over = next((name for name in known if name not in shapes), None)
    if missing or over:
        raise InvalidInput(
            f"a model without the tensor '{missing}'" if missing else f"the tensor '{over}'",
            "the model that the plan was made for",
            "make a plan for this one",
        )
    for name, shape in {} if is_flattened(model) else shapes.items():
        if known[name] != shape:
            raise InvalidInput(
                f"'{name}' of shape {known[name]}, which has {shape} in the plan",
                "the model at the sizes that the plan was made for",
                "build it at these sizes, or make a plan for others",
            )


def refuse_undrawable(model: nn.Module) -> None:
    """Refuse a model whose tensors have no entries to draw, or not in their shapes.

    Raises:
        InvalidInput: for flattened tensors, and for those on the meta device.
    """
    if is_flattened(model):
        raise InvalidInput(
            "a model whose tensors FullyShardedDataParallel has flattened",
            "weights in their shapes",
            "call apply_ before it wraps the model, or shard by fully_shard",
        )
    meta = next((name for name, x in tensors_of(model).items() if x.is_meta), None)
    if meta is not None:
        raise InvalidInput(
            f"'{meta}' on the meta device, where it has no entries",
            "a model whose tensors have memory",
            'call model.to_empty(device="cpu"), start what the plan does not draw, then apply_',
        )
