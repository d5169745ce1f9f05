"""A user's model run node by node, in float64: the numbers of what the graph says the sizes of.

    Execution     the model at one size and seed: its tensors, its operations, its loss
    .values(W)    every operation's result at weights W, by name, and the loss last
    .excess       of that run: cross-entropies of each sample less those of logits that are all zero
    .cotangents   d loss / d of every operation's result
    .gradients    d loss / d of every trained tensor

The operations are those that `torch.export` lists on the device, under the names of the graph:
blocks that were folded have the name of the first, and all of their values are kept. Everything
random (dropout) is drawn anew from the same seed in every run, so that a difference of two runs is
the difference of the weights. Buffers are frozen: a run changes none.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind

from empirical.measure.machine import default_dtype
from empirical.trace.export import exported, names_of, operation_names
from empirical.trace.kept_state import path_of
from empirical.trace.model_file import GrowingAxis, ModelFile
from empirical.trace.weight_columns import UseColumns, columns_of
from empirical.trace.weight_tracker import Tracker
from scaling.sizes.errors import NotCovered

Values = dict[str, list[Tensor]]
"""By the name of a node: one tensor, or one of each block that it stands for."""


class Execution:
    """A model at one size of an axis, with one draw of its weights.

    Args:
        file: what builds it.
        sizes: the sizes of its axes.
        seed: of its initialisation, and of what forward draws.
        standing: names of operations and leaves -> the names by which values are returned.
        factors: of results of operations, by these names: a factor of the code that is changed.
        device: where it runs; weights and data are drawn on the CPU, and so the same everywhere.
    """

    def __init__(
        self, file: ModelFile, sizes: Mapping[str, int], seed: int, standing: Mapping[str, str],
        factors: Mapping[str, float] | None = None, device: str = "cpu",
    ) -> None:  # fmt: skip
        self.seed, self._standing, self._factors = seed, standing, dict(factors or {})
        self._file, self._sizes, self._device = file, sizes, device
        with in_double(seed):
            model, inputs, targets = self._built()
            loss = file.loss_for(targets)
            program = exported(model, loss, inputs, targets, str(file.path))
        self._module = program.graph_module
        _keep_double(self._module)
        self._specs = list(program.graph_signature.input_specs)
        self._names = operation_names(self._module.graph, {path_of(spec) for spec in self._specs})
        self._refuse_others()
        self._constants = {**program.state_dict, **program.constants}
        self._take(model, (*inputs, targets))

    def redrawn(self, seed: int) -> Execution:
        """The same model under another seed; its operations are listed anew where they may differ.

        They are the same unless forward holds tensors that are neither parameters nor buffers.
        """
        with in_double(seed):
            model, inputs, targets = self._built()
        known = {name for name, _ in model.named_buffers(remove_duplicate=False)}
        kept = (s for s in self._specs if s.kind in (InputKind.BUFFER, InputKind.CONSTANT_TENSOR))
        if any(path_of(s) not in known for s in kept) or self._module.graph.find_nodes(
            op="get_attr"
        ):
            return Execution(
                self._file, self._sizes, seed, self._standing, self._factors, self._device
            )
        other = copy(self)
        other.seed = seed
        other._take(model, (*inputs, targets))
        return other

    def _built(self) -> tuple[nn.Module, tuple[Any, ...], Tensor]:
        """The model and its data, in float64, on the device."""
        model = self._file.build(self._sizes).double().train().to(self._device)
        inputs, targets = self._file.batch(self._sizes)
        there = tuple(self._there(double_of(x)) for x in inputs)
        return model, there, self._there(double_of(targets))

    def _there(self, x: Any) -> Any:
        return x.to(self._device) if isinstance(x, Tensor) else x

    def _take(self, model: nn.Module, data: Sequence[Any]) -> None:
        """The tensors of a module that was built anew, and its data."""
        self._data = list(data)
        own = dict(model.named_parameters(remove_duplicate=False))
        buffers = dict(model.named_buffers(remove_duplicate=False))
        self._first = {name: names[0] for name, names in names_of(model).items()}
        taken = {s.target: path_of(s) for s in self._specs if s.target is not None}
        fresh = {k: buffers[path].detach() for k, path in taken.items() if path in buffers}
        self._constants = {**self._constants, **fresh}
        self.parameters: dict[str, Tensor] = {
            self._first[path]: own[path].detach().clone()
            for path in (path_of(s) for s in self._specs if s.kind is InputKind.PARAMETER)
        }
        self.trained = [
            name
            for name, p in model.named_parameters()
            if p.requires_grad and name in self.parameters
        ]

    def _refuse_others(self) -> None:
        """Refuse operations that the trace of shapes does not have: names would not match."""
        odd = [n for n in self._names.values() if self._standing and n not in self._standing]
        if odd:
            raise NotCovered(
                f"the operation {odd[0]}, which the model runs on numbers and not on shapes alone",
                "one list of operations on all devices",
                "take the branch in forward that asks for a device or a layout out",
            )

    def name(self, own: str) -> str:
        """The name in the graph of an operation or a tensor of this size."""
        return self._standing.get(own, own)

    def values(
        self, parameters: Mapping[str, Tensor] | None = None, tracker: Tracker | None = None
    ) -> dict[str, Tensor]:
        """Every operation's result, by its name at this size; the loss is the last.

        Args:
            parameters: weights other than the model's own, by name.
            tracker: is told every operation.
        """
        weights = {**self.parameters, **(parameters or {})}
        asked = {n: self.name(n) for n in self._names.values() if self.name(n) in self._factors}
        factors = {n: self._factors[name] for n, name in asked.items()}
        runner = _Recorder(self._module, self._names, factors, tracker)
        data = iter(self._data)
        arguments = []
        for spec in self._specs:
            if spec.kind is InputKind.PARAMETER:
                arguments.append(weights[self._first[path_of(spec)]])
            elif spec.target is not None:
                kept = self._constants[spec.target]
                arguments.append(kept.clone() if isinstance(kept, Tensor) else kept)
            else:
                arguments.append(next(data))
        with in_double(self.seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outputs = runner.run(*arguments)
        runner.found["loss"] = outputs[-1]
        self.excess = runner.excess
        return runner.found

    def with_gradients(
        self, watched: Collection[str] = ()
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Values, cotangents of all of them, and gradients of the trained tensors.

        Args:
            watched: tensors of which `columns` will be asked.
        """
        leaves = {name: self.parameters[name].requires_grad_() for name in self.trained}
        self.tracker = Tracker({name: leaves[name] for name in self.trained if name in watched})
        found = self.values(leaves, self.tracker)
        asked = {**leaves, **{k: v for k, v in found.items() if v.requires_grad}}
        grads = torch.autograd.grad(found["loss"], list(asked.values()), allow_unused=True)
        known = {k: g.detach() for k, g in zip(asked, grads, strict=True) if g is not None}
        for leaf in leaves.values():
            leaf.requires_grad_(False)
        values = {name: value.detach() for name, value in found.items()}
        gradients = {k: known.get(k, torch.zeros_like(leaves[k])) for k in leaves}
        return values, {k: g for k, g in known.items() if k not in leaves}, gradients

    def columns(self, name: str, cotangents: Mapping[str, Tensor]) -> list[UseColumns]:
        """The columns of a watched tensor in each of its uses, in the last run with gradients."""
        dtype = self.parameters[name].dtype
        calls = [x for x in self.tracker.found if x.name == name and x.label in cotangents]
        with torch.no_grad():
            return [
                columns_of(x.met, cotangents[x.label], self.tracker.places(x), dtype) for x in calls
            ]

    def grouped(self, values: Mapping[str, Tensor]) -> Values:
        """Values by the names of the graph."""
        found: Values = {}
        for own, value in values.items():
            found.setdefault(self.name(own), []).append(value)
        return found


MASKED = -1e37
"""A mask blanks entries by -oo, or by the least number of its type: all of those are below."""


def root_mean_square(tensors: Sequence[Tensor]) -> float:
    """The size of a typical entry of several tensors together; entries that a mask blanks apart.

    >>> import torch
    >>> least = torch.finfo(torch.float64).min
    >>> root_mean_square([torch.tensor([3.0, -3.0, least, -torch.inf], dtype=torch.float64)])
    3.0
    """
    finite = [x[x.isfinite() & (x > MASKED)].double() for x in tensors]
    total = sum(float(x.square().sum()) for x in finite)
    count = sum(x.numel() for x in finite)
    return float((total / count) ** 0.5) if count else 0.0


def start_sizes(
    file: ModelFile, axis: GrowingAxis, standing: Sequence[Mapping[str, str]], seeds: Sequence[int]
) -> dict[str, dict[str, list[list[float]]]]:
    """Sizes of all values and cotangents as the model starts.

    Returns:
        By node, then by ``init`` and ``cotangent``: one row a seed, one number a size.
    """
    found: dict[str, dict[str, list[list[float]]]] = {}
    first = [
        Execution(file, {axis.name: size}, seeds[0], standing[k])
        for k, size in enumerate(axis.sizes)
    ]
    for seed in seeds:
        for one in first:
            run = one.redrawn(seed)
            values, cotangents, _ = run.with_gradients()
            for quantity, several in (("init", values), ("cotangent", cotangents)):
                for name, tensors in run.grouped(several).items():
                    rows = found.setdefault(name, {}).setdefault(quantity, [])
                    if len(rows) <= seeds.index(seed):
                        rows.append([])
                    rows[-1].append(root_mean_square(tensors))
    return found


class _Recorder(fx.Interpreter):
    """Runs the operations one by one, and keeps every tensor of numbers that they make."""

    def __init__(
        self, module: fx.GraphModule, names: Mapping[str, str], factors: Mapping[str, float],
        tracker: Tracker | None = None,
    ) -> None:  # fmt: skip
        super().__init__(module, garbage_collect_values=False)
        self.names = names
        self.found: dict[str, Tensor] = {}
        self.excess: dict[str, Tensor] = {}
        self.factors = factors
        self._tracker = tracker

    def run_node(self, n: fx.Node) -> Any:
        """The result of one operation."""
        name = self.names.get(n.name, n.name)
        factor = self.factors.get(name)
        if factor is not None and n.target is torch.ops.aten.scaled_dot_product_attention.default:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            scale = kwargs.get("scale") or args[0].shape[-1] ** -0.5
            result = n.target(*args, **{**kwargs, "scale": scale * factor})  # its logits'
        else:
            result = super().run_node(n)
            result = result if factor is None else result * factor
        if self._tracker is not None and n.op == "call_function":
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            with torch.no_grad():
                self._tracker.call(n.target, args, kwargs, result, name)  # type: ignore[arg-type]
        if n.op == "call_function" and isinstance(result, Tensor) and result.is_floating_point():
            self.found[name] = result
        if str(n.target) == "aten.cross_entropy_loss.default":
            (logits, target, *options), _ = self.fetch_args_kwargs_from_env(n)
            options[1:2] = [0]  # no reduction over the samples
            options = options if len(options) > 1 else [None, 0]
            here, there = (
                torch.ops.aten.cross_entropy_loss(x.detach(), target, *options)
                for x in (logits, torch.zeros_like(logits))
            )
            self.excess[name] = here - there
        return result


@contextmanager
def in_double(seed: int) -> Iterator[None]:
    """Float64 by default, and random numbers of a seed; both as before afterwards."""
    with default_dtype(torch.float64), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def double_of(x: Any) -> Any:
    """A tensor of numbers in float64; anything else as it is."""
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


def _keep_double(module: fx.GraphModule) -> None:
    """Casts and fresh tensors of lower precision become float64: sizes are asked, not rounding."""
    for node in module.graph.nodes:
        if node.op == "call_function":
            node.args = tuple(_raised(a) for a in node.args)
            node.kwargs = {k: _raised(v) for k, v in node.kwargs.items()}
    module.recompile()


def _raised(value: Any) -> Any:
    is_low = isinstance(value, torch.dtype) and value.is_floating_point
    return torch.float64 if is_low else value
