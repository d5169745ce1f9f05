"""Any rule, or a recipe of several, as an optimizer for any model that torch.export can read.

    W <- W - lr * rule(H, D, W)            one tensor, one param group: lr, values, name

What a tensor is follows from its use in the graph of the model (trace/uses.py): which axes a
product with data sums over (fan_in), which it leaves (fan_out), of which every index has a matrix
of its own. So `x @ W`, experts (E, in, out), grouped and transposed convolutions, a packed
projection, tables, gains and biases are trained as the theory reads them, without a word about
their shapes. A gain or a bias is one column; a table is a matrix that words, one-hot, are fed to; a
tensor with two uses is the matrix of the one that contracts.

    G, L, R, W     from ``.grad`` and the tensor: nothing of the model is watched
    A, B, samples  inputs and cotangents of every use, summed over places and uses (trace/)

Without a batch the graph cannot be read. A model whose trained tensors all belong to modules of
torch itself (Linear, Conv2d, Embedding, EmbeddingBag, called as they are) needs none: what such a
module makes of its weight is known, and every step compares D H^T / n with ``.grad``, which would
differ if the weight were used in any other way.

Not covered, and refused by name: float16, whose gradients are scaled; A and B of a tensor that no
product of the forward pass takes apart (weight norm, recurrent layers that are one call).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from derivations.recipes import recipe_of
from empirical.numbers.capture import Capture
from empirical.numbers.layer_samples import KINDS
from empirical.numbers.layer_values import LayerValue
from empirical.numbers.optimizers import Fisher, LayerOptimizer, LayerSource, PerLayer
from empirical.trace.given_model import GivenBatch, one_model
from empirical.trace.model_file import LossOf
from empirical.trace.read_model import graph_at_rest
from empirical.trace.use_capture import UseCapture
from empirical.trace.uses import Use, at_rest
from scaling.models.recipe import BY_GROWTH, RATE, Recipe, TensorGroup, TensorKind
from scaling.rules.dependence import sees_samples
from scaling.rules.rule import Rule
from scaling.rules.tree import Node
from scaling.sizes.errors import InvalidInput, NotCovered
from scaling.states.graph_forward import ForwardPass


class RuleOptimizer(LayerOptimizer):
    """Train a model by a rule, or by a recipe of several.

    ``lr`` and every entry of ``values`` (symbol -> number) may be one number or a mapping from
    names of tensors to numbers; ".weight" may be left out of a name. ``curvature_interval`` k
    computes the square matrices made from A, B, L, R at every k-th step only; ``factor_ema``
    averages A, B, L and R over those steps. ``record`` is called as (name, node, value) for every
    node that is evaluated. Tensors without a gradient do not move.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(2, 8), nn.LayerNorm(8), nn.Linear(8, 1))
    >>> batch = torch.ones(5, 2), torch.ones(5, 1)
    >>> optimizer = RuleOptimizer(
    ...     model, "kfac", 0.1, dict(rho_A=1, rho_B=1, e_A=1, e_B=1), batch=batch
    ... )
    >>> [group["name"] for group in optimizer.param_groups]
    ['0', '0.bias', '1', '1.bias', '2', '2.bias']
    >>> nn.functional.mse_loss(model(batch[0]), batch[1]).backward()
    >>> optimizer.step()
    >>> optimizer.updates()["1"].dense().shape
    torch.Size([8, 1])

    Args:
        model: plain, or compiled by torch.compile if the rule needs neither A nor B.
        rule: an update rule, its name, or a recipe such as "*.qkv.weight: muon in 3 parts; rest:
            adamw", whose groups select by names.
        lr: the learning rate; ``with lr=...`` of a group stands in its place there.
        values: numbers of the symbols; those of a group, ``with e=1/2``, stand in their place.
        fisher: the cotangents that make B.
        curvature_interval: steps between two computations of the factors.
        factor_ema: of A, B, L and R.
        record: told every value.
        batch: (inputs, targets) as they are trained on, from which the graph is read; nothing is
            computed with it.
        loss: of outputs and targets; integer targets mean cross-entropy, others squared error.
        kinds: of the tensors, for a recipe that selects by kind: `for_model(...).kinds`.

    Raises:
        InvalidInput: for parameters that it cannot train, for names of tensors or symbols that do
            not exist or have no value, and, at a step, for tensors that are not finite.
        NotCovered: for a model that cannot be traced, with torch's reason and the line.
    """

    def __init__(
        self,
        model: nn.Module,
        rule: Recipe | Rule | Node | str,
        lr: PerLayer,
        values: Mapping[str, PerLayer] | None = None,
        fisher: Fisher = Fisher.EMPIRICAL,
        curvature_interval: int = 1,
        factor_ema: float | None = None,
        record: Callable[[str, Node, LayerValue], None] | None = None,
        batch: GivenBatch | None = None,
        loss: LossOf | None = None,
        kinds: Mapping[str, TensorKind] | None = None,
    ) -> None:
        recipe = recipe_of(rule)
        compiled = hasattr(model, "_orig_mod")
        model = getattr(model, "_orig_mod", model)
        _refuse_half(model)
        self.uses: Mapping[str, Use | None] = {}
        if batch is None and recipe.is_plain and is_read_by_modules(model):
            source: LayerSource = Capture(model, outputs=fisher is Fisher.TRUE)
            groups = dict.fromkeys(source.parameters, recipe.groups[0])
        else:
            source, groups = self._by_graph(model, recipe, batch, loss, kinds, fisher, compiled)
        lr, values = _given(groups, lr, values or {})
        rules = {name: group.rule for name, group in groups.items() if group.rule is not None}
        _refuse_ascents(recipe)
        super().__init__(source, rules, lr, values, fisher, curvature_interval, factor_ema, record)
        handle = model.register_forward_pre_hook(_refuse_half_autocast)
        weakref.finalize(self, handle.remove)

    def _by_graph(
        self, model: nn.Module, recipe: Recipe, batch: GivenBatch | None, loss: LossOf | None,
        kinds: Mapping[str, TensorKind] | None, fisher: Fisher, compiled: bool,
    ) -> tuple[LayerSource, dict[str, TensorGroup]]:  # fmt: skip
        trained = [n for n, p in model.named_parameters() if p.requires_grad]
        if not trained:
            raise InvalidInput(
                f"a model ({type(model).__name__}) without trained tensors",
                "at least one",
                "check requires_grad",
            )
        file = one_model(model, batch, loss)
        try:
            lowered = graph_at_rest(file)
        except NotCovered as error:
            raise NotCovered(error.found, error.needed, _offer(error, model)) from error
        state = ForwardPass(lowered.graph)
        self.uses = {name: at_rest(state, lowered, name) for name in trained}
        for name, use in self.uses.items():
            if use is None:
                raise InvalidInput(
                    f"the trained tensor '{name}', which nothing of the model reads",
                    "tensors that the loss depends on",
                    "leave it out of the model, or freeze it: requires_grad_(False)",
                )
        groups = _assigned(recipe, self.uses, kinds)
        axes = {
            name: use.axes(model.get_parameter(name).ndim, groups[name].parts)
            for name, use in self.uses.items()
            if use is not None and groups[name].rule is not None
        }
        sampled = [
            name for name in axes if (own := groups[name].rule) is not None and sees_samples(own)
        ]
        if compiled and sampled:
            raise InvalidInput(
                f"a compiled model under {groups[sampled[0]].rule}, which looks at inputs and "
                "cotangents",
                "calls of torch that can be watched",
                "pass the model as it was before torch.compile, and train that; rules of G, L, R "
                "and W alone, such as adam, muon or shampoo, train compiled models",
            )
        short = {name: name.removesuffix(".weight") for name in axes}
        source = UseCapture(
            model,
            {short[name]: x for name, x in axes.items()},
            {short[name] for name in sampled},
            outputs=fisher is Fisher.TRUE,
        )
        return source, {short[name]: groups[name] for name in axes}


def is_read_by_modules(model: nn.Module) -> bool:
    """Whether the trained tensors all belong to layers that are read without a graph."""
    try:
        Capture(model)
    except InvalidInput:
        return False
    return True


def _offer(error: NotCovered, model: nn.Module) -> str:
    """Advice on a model that cannot be traced."""
    if is_read_by_modules(model):
        return (
            f"{error.do_this}; or leave batch out: the trained tensors all belong to {KINDS} "
            "layers, which are read without a graph, and every step compares what they saw with "
            ".grad"
        )
    return f"{error.do_this}; or train it by an optimizer of torch, with the numbers of for_model"


def _assigned(
    recipe: Recipe, uses: Mapping[str, Use | None], kinds: Mapping[str, TensorKind] | None
) -> dict[str, TensorGroup]:
    """The group of every trained tensor."""
    asked = [s for group in recipe.groups for s in group.selectors if s in BY_GROWTH]
    if asked and kinds is None:
        raise InvalidInput(
            f"the kind '{asked[0]}' in '{recipe}', of a model that is known at one size",
            "selectors that one size can tell: patterns of names, gain, bias, rest",
            "pass kinds=for_model(...).kinds, which reads the model at several widths, or write "
            "for example '*.norm*: adamw; rest: muon'",
        )
    known = {
        name: (kinds or {}).get(name, TensorKind.FIXED if use is None else _kind(use))
        for name, use in uses.items()
    }
    return recipe.assigned(known)


def _kind(use: Use) -> TensorKind:
    """The kind of a tensor, as far as one size tells it."""
    if use.contracted or use.looked_up:
        return TensorKind.FIXED
    table = len(use.left) > 1
    if use.is_bias:
        return TensorKind.EMBEDDING if table else TensorKind.BIAS
    return TensorKind.GAIN


def _given(
    groups: Mapping[str, TensorGroup], lr: PerLayer, values: Mapping[str, PerLayer]
) -> tuple[PerLayer, dict[str, PerLayer]]:
    """Rates and numbers with those that groups have of their own."""
    own: dict[str, dict[str, float]] = {}
    for name, group in groups.items():
        exponents = {k: float(x) for k, x in group.exponents.items() if x.is_number}
        for symbol, x in {**group.values, **exponents}.items():
            own.setdefault(symbol, {})[name] = x
    found: dict[str, PerLayer] = dict(values)
    for symbol, numbers in own.items():
        given = lr if symbol == RATE else values.get(symbol)
        if isinstance(given, Mapping):
            others = {name.removesuffix(".weight"): x for name, x in given.items()}
        else:
            meant = [n for n, group in groups.items() if symbol == RATE or _has(group, symbol)]
            others = {} if given is None else dict.fromkeys(meant, given)
        if symbol == RATE:
            lr = {**others, **numbers}
        else:
            found[symbol] = {**others, **numbers}
    return lr, found


def _has(group: TensorGroup, symbol: str) -> bool:
    rule = group.rule
    return rule is not None and symbol in (*rule.scaled, *rule.exponents, *rule.constants)


def _refuse_ascents(recipe: Recipe) -> None:
    several = next((rule for rule in recipe.rules if rule.ascents), None)
    if several is not None and len(recipe.rules) > 1:
        raise InvalidInput(
            f"the gradient at moved weights in '{several}', one of several rules",
            "one rule for all tensors: all of them move before the second gradient is taken",
            f"train everything by {several.name or several}",
        )


def _refuse_half(model: nn.Module) -> None:
    for name, x in model.named_parameters():
        if x.dtype is torch.float16 and x.requires_grad:
            raise _half(f"the tensor '{name}' in float16")


def _refuse_half_autocast(*_: Any) -> None:
    if torch.compiler.is_compiling():
        return
    for device in ("cpu", "cuda"):
        half = torch.get_autocast_dtype(device) is torch.float16
        if torch.is_autocast_enabled(device) and half:
            raise _half("autocast in float16")


def _half(found: str) -> InvalidInput:
    return InvalidInput(
        found,
        "float32, float64 or bfloat16: gradients in float16 are scaled, and a rule with a damping "
        "sees their size",
        "use torch.autocast(device, dtype=torch.bfloat16), and weights in float32",
    )
