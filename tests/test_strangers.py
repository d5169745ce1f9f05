"""Models that strangers bring: each tensor has the exponents of its use, none a silent guess."""

from pathlib import Path

import numpy as np
import pytest
import torch
from model_files import strangers, zoo
from sympy import Rational, oo
from torch import Tensor, nn

from empirical.trace.execute import Execution, in_double
from empirical.trace.given_model import model_of
from empirical.trace.read_model import graph_of
from empirical.trace.uses import uses
from scaling.sizes.errors import NotCovered
from scaling.solve.graph_solution import GraphDerived, derive_graph
from scaling.states.graph_passes import Passes

HALF = Rational(1, 2)
VECTOR, MATRIX, READOUT = (0, 0), (HALF, 1), (1, 1)
KNOWN: dict[str, dict[str, tuple[object, object]]] = {
    "nanogpt": {  # tied: one start for two uses, small enough for the readout
        "wte.weight": READOUT, "wpe.weight": (0, HALF), "h.0.attn.c_attn.weight": (HALF, 3 * HALF),
        "h.1.c_fc.weight": MATRIX, "h.1.c_proj.weight": MATRIX, "ln_f.weight": VECTOR,
    },
    "mamba": {
        "embed.weight": VECTOR, "mixer.A_log": VECTOR, "mixer.D": VECTOR,
        "mixer.conv.weight": VECTOR, "mixer.in_proj.weight": MATRIX,
        "mixer.out_proj.weight": MATRIX, "mixer.x_proj.weight": READOUT,
        "mixer.dt_proj.weight": VECTOR, "head.weight": READOUT,
    },
    "deepsets": {
        "phi.0.weight": VECTOR, "phi.2.weight": MATRIX, "rho.0.weight": MATRIX,
        "rho.2.weight": READOUT,
    },
    "speech": {
        "conv.weight": VECTOR, "norm.weight": VECTOR, "gru.weight_ih_l0": MATRIX,
        "gru.weight_hh_l1_reverse": MATRIX, "gru.bias_hh_l0": VECTOR, "head.weight": READOUT,
    },
    "autoencoder": {  # a fixed bottleneck is read out, and what is above it starts anew
        "0.weight": VECTOR, "2.weight": READOUT, "3.weight": VECTOR, "5.weight": READOUT,
    },
    "towers": {
        "logit_scale": VECTOR, "image.0.weight": VECTOR, "image.2.weight": MATRIX,
        "words.2.weight": MATRIX,
    },
    "film": {"film.weight": VECTOR, "next.weight": MATRIX, "head.weight": READOUT},
    "hyper": {"trunk.weight": VECTOR, "make.weight": MATRIX, "head.weight": READOUT},
    "latents": {  # logits over the head size itself: all are maximal
        "latents.weight": VECTOR,
        "query.weight": MATRIX, "keys.weight": VECTOR, "time.weight": MATRIX,
        "shift.weight": MATRIX, "slope.weight": VECTOR, "out.weight": MATRIX,
        "head.weight": READOUT,
    },
    "cells": {  # the state is zero before the first word
        "words.weight": VECTOR, "cell.weight_ih": MATRIX, "cell.weight_hh": MATRIX,
        "head.weight": READOUT,
    },
    "cross": {  # queries over the root of the head size before the product
        "words.weight": (0, HALF), "attention.in_proj_weight": (HALF, 3 * HALF),
        "attention.out_proj.weight": MATRIX, "memory.weight": (0, HALF), "head.weight": READOUT,
    },
    "picked": {"up": MATRIX, "down": MATRIX, "gate.weight": READOUT, "head.weight": READOUT},
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_every_tensor_has_the_exponents_of_its_use(name: str) -> None:
    file = model_of(getattr(strangers, name), strangers.batch_of(name))
    found = derive_graph("sign(G)", graph_of(file, "width=16,32,48").graph).tensors
    assert {key: (found[key].b, found[key].c) for key in KNOWN[name]} == KNOWN[name]
    unlike = {k for k, x in found.items() if "bias" in k and x.b not in (0, oo)}
    assert not unlike


def test_a_packed_projection_that_is_cut_before_its_use_has_both_fans() -> None:
    file = model_of(strangers.cross, strangers.batch_of("cross"))
    answer = derive_graph("sqrt(fan_out/fan_in)*orth(G)", graph_of(file, "width=16,32,48").graph)
    x = answer.tensors["attention.in_proj_weight"]
    assert (x.fan_in, x.fan_out, str(x.kind)) == (1, 1, "hidden")


def test_a_tensor_of_a_recurrent_cell_is_measured_at_an_operation() -> None:
    """The module bears the name of the operation: a tensor of it is none of its parts."""
    file = model_of(strangers.speech, strangers.batch_of("speech"))
    lowered = graph_of(file, "width=16,32,48")
    state = Passes(lowered.graph)
    found = uses(state, lowered, state.parameters)
    assert found["gru.weight_ih_l0"] is not None
    unmeasured = [k for k, x in found.items() if x and x.operation in state.parameters]
    assert not unmeasured


def test_the_least_of_whole_numbers_has_no_size() -> None:
    """Buckets of relative positions, as T5 has them."""

    class Relative(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.bias, self.read = nn.Embedding(4, width), nn.Linear(6, width)
            self.head = nn.Linear(width, 3)

        def forward(self, x: Tensor) -> Tensor:
            places = torch.arange(len(x))
            buckets = torch.min(places + 1, torch.full_like(places, 3))
            return self.head(torch.relu(self.read(x) + self.bias(buckets)))

    found = derive_graph(
        "sign(G)", graph_of(model_of(Relative, zoo.vectors()), "width=8,16,24").graph
    )
    assert (found.tensors["bias.weight"].b, found.tensors["bias.weight"].c) == VECTOR


@pytest.mark.parametrize(("kind", "size"), [("rand", 0), ("randn", -HALF)])
def test_numbers_that_are_drawn_have_the_mean_of_their_law(kind: str, size: Rational) -> None:
    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            noise: Tensor = getattr(torch, kind)(len(x), self.in_features)
            return super().forward(x.mean() + noise) + noise.mean(-1, keepdim=True)

    graph = graph_of(model_of(lambda width: Noisy(width, 3), zoo.vectors()), "width=8,16,24").graph
    mean = next(n.name for n in graph.nodes if n.op == "reduce" and n.name.startswith("mean_1"))
    assert Passes(graph).values[mean].size == size


def test_several_results_of_an_unknown_operation_are_refused_by_name() -> None:
    class Rotated(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return x @ torch.linalg.qr(self.weight).Q

    def build(width: int = 8) -> nn.Module:
        return nn.Sequential(nn.Linear(6, width), Rotated(width, width), nn.Linear(width, 3))

    with pytest.raises(NotCovered, match="several results of") as caught:
        graph_of(model_of(build, zoo.vectors()), "width=8,16,24")
    assert "do this" in str(caught.value)


def test_no_gradient_flows_back_where_the_code_stops_it() -> None:
    """Statistics under torch.no_grad: as under detach, by the graph and in numbers."""

    class Centred(nn.Module):
        def __init__(self, width: int, stops: bool) -> None:
            super().__init__()
            self.read, self.head, self.stops = nn.Linear(6, width), nn.Linear(width, 3), stops

        def forward(self, x: Tensor) -> Tensor:
            h = self.read(x)
            with torch.set_grad_enabled(not self.stops):
                mean, scale = h.mean(0), h.std(0)
            return self.head((h - mean) / scale)

    for stops in (True, False):
        file = model_of(lambda width, stops=stops: Centred(width, stops), zoo.vectors())
        run = Execution(file, {"width": 8}, 0, {})
        gradients = run.with_gradients()[2]
        with in_double(0):
            model, (x, y) = file.build({"width": 8}), file.batch({"width": 8})
        torch.nn.functional.mse_loss(model.double()(x[0].double()), y.double()).backward()
        for name, p in model.named_parameters():
            assert p.grad is not None
            torch.testing.assert_close(gradients[name], p.grad, rtol=1e-10, atol=1e-12)
    nodes = graph_of(model_of(lambda width: Centred(width, True), zoo.vectors()), "width=8,16,24")
    assert len([n for n in nodes.graph.nodes if n.get("detached", False)]) == 2


Sizes = tuple[float, float, float]
NORMED = {
    # tensor: exponent of (its product before, the change of its product, its gradient)
    "every": {"0": (-0.5, -0.5, -1.0), "2": (-0.5, -0.5, -1.5), "4": (-0.5, 0.0, -1.0)},
    "first": {"0": (-0.5, -0.5, -1.5), "2": (-0.5, 0.0, -1.5), "4": (-1.0, -0.5, -0.5)},
}


class Spectral(nn.Module):
    """A chain of three, with every layer or the first under torch's spectral norm."""

    def __init__(self, width: int, which: str) -> None:
        super().__init__()
        sides = ((6, width), (width, width), (width, 3))
        layers: list[nn.Module] = [nn.Linear(n, m, bias=False) for n, m in sides]
        for k in range(3 if which == "every" else 1):
            layers[k] = nn.utils.parametrizations.spectral_norm(layers[k])
        self.layers = nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


def spectral_sizes(answer: GraphDerived, which: str, key: str, width: int, seed: int) -> Sizes:
    """One step of one tensor in plain torch, power iterations as torch makes them."""
    torch.manual_seed(seed)
    model = Spectral(width, which).double()
    (name,) = (n for n, _ in model.named_parameters() if n.startswith(f"layers.{key}."))
    with torch.no_grad():
        for n, p in model.named_parameters():
            p.copy_(torch.randn_like(p) * width ** -float(answer.tensors[n].b))
    x, y = (z.double() for z in zoo.vectors())
    for _ in range(15):
        model(x)
    products: list[Tensor] = []
    model.layers[int(key)].register_forward_hook(lambda *call: products.append(call[2].detach()))
    (model(x) - y).square().mean().backward()
    p = dict(model.named_parameters())[name]
    assert p.grad is not None
    with torch.no_grad():
        p -= 0.1 * width ** -float(answer.tensors[name].c) * p.grad.sign()
    model(x)
    return rms(products[0]), rms(products[1] - products[0]), rms(p.grad)


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


@pytest.mark.parametrize("which", NORMED)
def test_weights_under_a_spectral_norm_move_as_the_graph_foretells(which: str) -> None:
    """Its iterates are detached and of length one: nothing of them is assumed."""
    build = lambda width: Spectral(width, which)  # noqa: E731
    graph = graph_of(model_of(build, zoo.vectors()), "width=8,16,24").graph
    answer, state = derive_graph("sign(G)", graph), Passes(graph)
    widths = (48, 144, 432)
    for key, expected in NORMED[which].items():
        (name,) = (n for n in answer.tensors if n.startswith(f"layers.{key}."))
        x = answer.tensors[name]
        assert x.start.own is not None
        product = next(n for n in graph.nodes if n.where.startswith(f"layers.{key}: ")
                       and n.op == "contract" and n.inputs[0] in state.data)  # fmt: skip
        foretold = (state.values[product.name].size, x.start.own - x.c, x.start.gradient)
        assert tuple(map(float, foretold)) == expected
        rows = [[spectral_sizes(answer, which, key, n, seed) for seed in (0, 1)] for n in widths]
        means = np.log(np.array(rows)).mean(1)
        found = np.polyfit(np.log(widths), means, 1)[0]
        assert np.abs(found - np.array(expected)).max() < 0.25, (key, found)  # half a step


class Divided(nn.Module):
    """A layer that reads the data under a spectral norm, beside its bias; or the last one."""

    def __init__(self, width: int, first: bool) -> None:
        super().__init__()
        self.read, self.head = nn.Linear(6, width), nn.Linear(width, 3)
        nn.utils.parametrizations.spectral_norm(self.read if first else self.head)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(torch.relu(self.read(x)))
        return y


def divided(first: bool, rule: str) -> GraphDerived:
    build = lambda width: Divided(width, first)  # noqa: E731
    return derive_graph(rule, graph_of(model_of(build, zoo.vectors()), "width=8,16,24").graph)


@pytest.mark.parametrize(("rule", "c"), [("sign(G)", 0), ("G", -3 * HALF)])
def test_a_step_does_not_replace_a_weight_that_is_divided_by_its_norm(
    rule: str, c: Rational
) -> None:
    """A rate larger by M^(1/2) moves its product no further: the update takes its place."""
    answer = divided(True, rule)
    name = "read.parametrizations.weight.original"
    assert answer.tensors[name].c == c
    (change,) = answer.changes  # the product is M^(-1/2) beside a bias of order one
    assert (change.node, change.found, change.needed) == ("vdot", 0, -HALF)

    def moved(width: int, c: float) -> tuple[float, float]:
        torch.manual_seed(0)
        model = Divided(width, True).double()
        w = model.get_parameter(name)
        x, y = (z.double() for z in zoo.vectors())
        with torch.no_grad():
            w.normal_()
            model.read.bias.normal_()
            model.head.weight.normal_().div_(width)
        for _ in range(8):
            model(x)
        (model(x) - y).square().mean().backward()
        assert w.grad is not None
        with torch.no_grad():
            before, old = model.read(x), rms(w)
            w -= width**-c * (w.grad.sign() if rule != "G" else w.grad)
            return rms(model.read(x) - before), rms(w) / old

    widths = (64, 512, 4096, 32768)
    for power, expected in ((float(c), (-0.5, 0.0)), (float(c) - 0.5, (-0.5, 0.5))):
        rows = np.log([moved(n, power) for n in widths])
        assert np.polyfit(np.log(widths), rows, 1)[0] == pytest.approx(expected, abs=0.2)


def test_a_factor_behind_one_product_of_a_line_is_not_one_behind_the_others() -> None:
    """`self.head(relu(self.read(x)))`: what the head needs is not put behind read as well."""
    (change,) = divided(False, "sign(G)").changes
    assert (change.found, change.needed, change.twins) == (0, -HALF, ("linear_1",))


def test_matrices_of_experts_that_an_index_picks_move_as_matrices() -> None:
    """In plain torch: rates of width^-1 move an expert's product by as much at any width."""
    slopes, widths = [], (32, 128, 512)
    for c in (1.0, 0.5):
        moved = []
        for width in widths:
            torch.manual_seed(0)
            model = strangers.Picked(width).double()
            with torch.no_grad():
                model.up.mul_(width**-0.5), model.down.mul_(width**-0.5)
                model.head.weight.mul_(width**-0.5)
            (x, y), h = (z.double() for z in strangers.batch_of("picked")), None
            (model(x) - y).square().mean().backward()
            assert model.up.grad is not None
            h = model.read(x).detach()
            best = model.gate(h).argmax(-1)
            change = torch.bmm(model.up.grad.sign()[best], h.unsqueeze(-1)) * width**-c
            moved.append(float(change.square().mean().sqrt()))
        slopes.append(np.polyfit(np.log(widths), np.log(moved), 1)[0])
    assert abs(slopes[0]) < 0.15
    assert abs(slopes[1] - 0.5) < 0.15


class FixedWidth(nn.Module):
    """Attention in a residual stream of fixed width, whose one head grows; logits / size^power."""

    def __init__(self, head_size: int, power: float) -> None:
        super().__init__()
        self.factor = head_size**-power
        self.words, self.head = nn.Embedding(8, 6), nn.Linear(6, 8)
        self.q, self.k, self.v = (nn.Linear(6, head_size, bias=False) for _ in "qkv")
        self.out = nn.Linear(head_size, 6, bias=False)

    def logits(self, x: Tensor) -> Tensor:
        return self.q(x) @ self.k(x).mT * self.factor

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        return self.head(x + self.out(self.logits(x).softmax(-1) @ self.v(x)))


IDS = torch.randint(8, (3, 6), generator=torch.manual_seed(0))


@pytest.mark.parametrize(("power", "c"), [(0.5, HALF), (1.0, 0)])
def test_heads_that_grow_bind_queries_and_keys_by_the_power_of_the_code(
    power: float, c: object
) -> None:
    def build(head_size: int = 16) -> nn.Module:
        return FixedWidth(head_size, power)

    graph = graph_of(model_of(build, (IDS[:, :-1], IDS[:, 1:])), "head_size=16,32,64").graph
    answer = derive_graph("ema(G, b1)/(sqrt(ema(G*G, b2)) + eps)", graph)
    found = {name: x.c for name, x in answer.tensors.items()}
    assert found["q.weight"] == found["k.weight"] == c
    assert found["v.weight"] == 0 and found["out.weight"] == 1 and found["words.weight"] <= c
    assert bool(answer.changes) == bool(c), "the factor is at fault, or none is"

    def moved(size: int) -> float:
        """The change of the logits in plain torch: q and k move along the sign of their use."""
        torch.manual_seed(1)
        x = torch.randn(4, 6, dtype=torch.double)
        model = FixedWidth(size, power).double()
        nn.init.normal_(model.q.weight)
        nn.init.normal_(model.k.weight)
        with torch.no_grad():
            before = model.logits(x)
            step = torch.outer(torch.randn(size).sign().double(), x[0].sign())
            model.q.weight += step
            model.k.weight += step
            return float((model.logits(x) - before).square().mean().sqrt())

    slope = np.log2(moved(2**14) / moved(2**12)) / 2
    assert slope == pytest.approx(float(c), abs=0.1)


# --- a factor in front of one side of a product ---------------------------------------------------


class Scaled(nn.Module):
    """Attention whose factor stands where ``place`` says."""

    def __init__(self, width: int, place: str) -> None:
        super().__init__()
        self.place, self.words = place, nn.Embedding(8, width)
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in "qkv")
        self.head = nn.Linear(width, 8)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        q, k = self.q(x), self.k(x)
        scale = x.shape[-1] ** -0.5
        if self.place == "behind":
            logits = q @ k.mT * scale
        else:
            q = q * scale
            logits = q @ k.mT
        if self.place == "capped":
            logits = 30 * torch.tanh(logits / 30)
        return self.head(x + logits.softmax(-1) @ self.v(x))


def test_a_factor_before_a_product_is_read_as_one_behind_it_and_named_at_its_line() -> None:
    """q * scale before k: what many models write, and torch's attention that returns weights."""
    found = {}
    for place in ("behind", "before", "capped"):
        file = model_of(lambda width, place=place: Scaled(width, place), (IDS[:, :-1], IDS[:, 1:]))
        found[place] = derive_graph("sign(G)", graph_of(file, "width=16,32,64").graph)
    tables = [{n: (x.b, x.c) for n, x in a.tensors.items()} for a in found.values()]
    assert tables[0] == tables[1] == tables[2] and tables[0]["q.weight"] == (HALF, 3 * HALF)
    lines = Path(__file__).read_text().splitlines()
    for place, code in (("behind", "logits = q @ k.mT * scale"), ("before", "q = q * scale"),
                        ("capped", "q = q * scale")):  # fmt: skip
        (change,) = found[place].changes
        assert (change.found, change.needed) == (-HALF, -1)
        assert lines[int(change.where.rpartition(":")[2]) - 1].strip() == code


class Root(Scaled):
    """Embeddings times the root of the width, as Gemma has them, that are the readout as well."""

    def __init__(self, width: int) -> None:
        super().__init__(width, "behind")
        del self.head

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) * self.words.embedding_dim**0.5
        h = nn.functional.rms_norm(x, x.shape[-1:])
        logits = self.q(h) @ self.k(h).mT * h.shape[-1] ** -0.5
        return (x + logits.softmax(-1) @ self.v(h)) @ self.words.weight.T


def test_tied_embeddings_start_as_small_as_the_stream_asks_that_they_make() -> None:
    """At b = 0 the stream is M^(1/2) large, and a readout would need 3/2; at 1 it needs 1."""
    file = model_of(Root, (IDS[:, :-1], IDS[:, 1:]))
    answer = derive_graph("sign(G)", graph_of(file, "width=16,32,64").graph)
    words = answer.tensors["words.weight"]
    assert (words.b, words.c) == (1, 3 * HALF)
    assert {(x.found, x.needed) for x in answer.changes} == {(0, -1), (-HALF, -1)}


def test_outputs_that_grow_at_the_start_are_told() -> None:
    def build(width: int = 16) -> nn.Module:
        return strangers.Towers(width)

    data = strangers.batch_of("towers")
    told = derive_graph("sign(G)", graph_of(model_of(build, data), "width=16,32,48").graph)
    assert not [x for x in told.assumptions if "outputs grow" in x]  # they are normalised

    class Pairs(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(6, width), nn.Linear(5, width)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.one(x) @ self.other(y).mT

    pairs = model_of(lambda width: Pairs(width), data)
    told = derive_graph("sign(G)", graph_of(pairs, "width=16,32,48").graph)
    (line,) = [x for x in told.assumptions if "outputs grow" in x]
    assert "exponent 1/2" in line


class Packed(nn.Module):
    """Queries and keys of three heads in one tensor, (2, 6, 3, width), or in two."""

    def __init__(self, width: int, packed: bool) -> None:
        super().__init__()
        shape = (2, 6, 3, width) if packed else (6, 3, width)
        self.w = nn.Parameter(torch.randn(shape))
        self.other = None if packed else nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        if self.other is None:
            q, k = torch.einsum("bf,sfhe->sbhe", x, self.w).unbind(0)
        else:
            q, k = (torch.einsum("bf,fhe->bhe", x, w) for w in (self.w, self.other))
        return (q * k).sum(-1) / q.shape[-1]


def test_parts_that_unbind_takes_of_a_drawn_tensor_are_independent() -> None:
    """q . k over the head size is a CLT of M^(-1/2) at the start, packed or not."""
    sizes = []
    for packed in (True, False):
        file = model_of(lambda width, packed=packed: Packed(width, packed), zoo.vectors())
        graph = graph_of(file, "width=16,32,48").graph
        given = dict.fromkeys(("w",) if packed else ("w", "other"), Rational(0))
        sizes.append(Passes(graph, given).values[graph.outputs[0]].size)
    assert sizes == [-HALF, -HALF]
    torch.manual_seed(0)
    x = torch.randn(64, 6)
    with torch.no_grad():
        logs = [float(Packed(width, True)(x).square().mean().log() / 2) for width in (64, 4096)]
    assert (logs[1] - logs[0]) / np.log(64) == pytest.approx(-0.5, abs=0.1)
