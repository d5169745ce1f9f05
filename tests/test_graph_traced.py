"""Models as people write them, traced and derived: every tensor has the exponents of its use."""

import re
from functools import cache

import pytest
import torch
from model_files import zoo
from sympy import Rational
from test_trace import file_of, traced
from torch import Tensor, nn

from empirical.trace.read_model import graph_of
from scaling.calculus.read import read_update
from scaling.models.graph import Graph
from scaling.report.graph_tables import graph_json, graph_table, tensor_steps
from scaling.report.tables import Format, render
from scaling.report.wrapping import grid
from scaling.solve import tensor_rates
from scaling.solve.graph_solution import GraphDerived, derive_graph

ADAM = "ema(G, beta_1) / (sqrt(ema(G*G, beta_2)) + eps)"


@cache
def answer(name: str, axis: str | None = None, rule: str = ADAM) -> GraphDerived:
    return derive_graph(rule, traced(name, axis).graph)


READOUTS = {
    "resnet": "head.weight",
    "convnext": "5.weight",
    "unet": "out.weight",
    "mixer": "head.weight",
    "gru": "head.weight",
    "lstm": "head.weight",
    "word2vec": "out.weight",
    "mlp": "4.weight",
    "mixture": "head.weight",
}
MATRICES = {
    "resnet": {f"blocks.{k}.{name}.weight" for k in (0, 1) for name in ("one", "two")},
    "convnext": {f"{k}.{name}.weight" for k in (1, 2) for name in ("up", "down")},
    "unet": {"down.weight", "up.weight"},
    "mixer": {"channels.0.weight", "channels.2.weight"},
    "gru": {"cell.weight_ih_l0", "cell.weight_hh_l0"},
    "lstm": {"cell.weight_ih_l0", "cell.weight_hh_l0"},
    "word2vec": set(),
    "mlp": {"2.weight"},
    "mixture": {"up", "down", "router.weight"},
}


@pytest.mark.parametrize("name", sorted(READOUTS))
def test_adam_on_models_that_are_no_chains(name: str) -> None:
    """Depthwise, transposed and grouped kernels, packed gates, gains, embeddings, experts."""
    found = answer(name)
    slow = MATRICES[name] | {READOUTS[name]}
    assert slow <= set(found.tensors)
    for tensor, x in found.tensors.items():
        assert x.c == (1 if tensor in slow else 0), tensor
    assert found.tensors[READOUTS[name]].b == 1
    for tensor in MATRICES[name] - {"router.weight"}:
        assert found.tensors[tensor].b == Rational(1, 2), tensor
    assert not found.changes


@pytest.mark.parametrize("name", ["llama", "vit"])
def test_the_scale_of_attention_is_found_at_its_line(name: str) -> None:
    """By hand with grouped queries and rotary positions, and packed inside torch."""
    found = answer(name)
    assert {(x.found, x.needed) for x in found.changes} == {(Rational(-1, 2), -1)}
    assert all("zoo.py:" in x.where for x in found.changes)
    packed = "encoder.layers.0.self_attn.in_proj_weight"
    for tensor in ["blocks.0.q.weight", "blocks.0.k.weight"] if name == "llama" else [packed]:
        x = found.tensors[tensor]
        assert (x.b, x.c, x.moved.own) == (Rational(1, 2), Rational(3, 2), 1)


def test_a_line_that_equal_blocks_share_is_one_change_however_many_there_are() -> None:
    """Eight blocks: what binds in the last hides what binds in those before."""
    deep = file_of("llama", lambda width=32: zoo.llama(width, depth=8))
    found = derive_graph(ADAM, graph_of(deep, "width=32,64,128").graph)
    (change,) = found.changes
    assert "zoo.py:" in change.where and (change.found, change.needed) == (Rational(-1, 2), -1)
    assert {f"blocks.{k}.q.weight" for k in range(8)} <= set(re.split(r"[ ,]+", change.why))


def test_parts_of_a_packed_matrix_have_signs_of_their_own() -> None:
    """Without the parts, queries and keys would share them: logits would grow at the start."""
    graph = traced("vit").graph
    parts = [n for n in graph.nodes if n.op == "slice" and "select" in n.name]
    assert {(n.get("start"), n.get("stop")) for n in parts} >= {(0, 1), (1, 2), (2, 3)}
    for node in parts:
        object.__setattr__(node, "attributes", {"axis": node.get("axis")})
    with pytest.raises(Exception, match="logits of order one"):
        derive_graph(ADAM, graph)


def test_depth_of_a_traced_model() -> None:
    found = answer("llama", "depth=2,4,6")
    assert found.tensors["blocks.0.gate.weight"].c == Rational(1, 2)
    assert {(x.found, x.needed) for x in found.changes} == {(0, -1)}


def deep(blocks: int) -> Graph:
    file = file_of("llama", lambda width=32: zoo.llama(width, depth=blocks))
    return graph_of(file, "width=32,64,128").graph


def test_equal_blocks_are_read_once_and_answer_as_if_each_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rule, graph = f"{ADAM} + decay*W", deep(3)
    together = derive_graph(rule, graph)
    monkeypatch.setattr(tensor_rates, "_kind", lambda problem, sizes, d: None)
    alone = derive_graph(rule, graph)
    for name, x in alone.tensors.items():
        y = together.tensors[name]
        assert (x.b, x.c, x.d, x.binds) == (y.b, y.c, y.d, y.binds), name
        for one, other in ((x.start, y.start), (x.moved, y.moved)):
            assert (one.c, one.own, one.gradient) == (other.c, other.own, other.gradient), name
        lines = [tensor_steps(answer, name).walk() for answer in (alone, together)]
        assert [str(line) for line in lines[0]] == [str(line) for line in lines[1]], name


def readings(monkeypatch: pytest.MonkeyPatch, blocks: int) -> int:
    """How often the calculus reads the rule, dampings apart."""
    graph, seen = deep(blocks), []
    with monkeypatch.context() as patch:
        patch.setattr(tensor_rates, "read_update", lambda *x: seen.append(x) or read_update(*x))
        derive_graph(ADAM, graph)
    return len(seen)


def test_the_number_of_readings_does_not_grow_with_the_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert readings(monkeypatch, 3) == readings(monkeypatch, 6) > 0


class Wrapped(torch.nn.Module):
    """A Llama of two blocks and a second input layer, as wrappers of libraries hold models."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.language_model_of_the_library = torch.nn.Module()
        self.language_model_of_the_library.transformer_decoder = zoo.llama(width)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.language_model_of_the_library.transformer_decoder(ids)
        return y


def test_long_names_lose_their_common_modules_and_break_at_dots_alone() -> None:
    """Tables for people: one name a row, no part of a name cut; JSON has the names in full."""
    found = derive_graph(ADAM, graph_of(file_of("llama", Wrapped), "width=32,64,128").graph)
    within = "language_model_of_the_library.transformer_decoder."
    table = graph_table(found)
    names = [row[0] for row in table.rows]
    assert len(set(names)) == len(names) and not [n for n in names if within in n]
    assert {"embed.weight", "blocks.*.q.weight", "head.weight"} <= set(names)
    (said,) = (line for line in table.notes if line.startswith("within "))
    assert within in said
    lines = render(table, Format.TEXT).splitlines()
    assert max(map(len, lines)) <= 100 and any(x.startswith("blocks.*.q.weight ") for x in lines)
    assert set(graph_json(found)["tensors"]) == set(found.tensors)
    assert all(name.startswith(within) for name in found.tensors)
    wide = grid(("tensor", "binds"), [(name, f"softmax in {name}") for name in found.tensors], 60)
    parts = {part for name in found.tensors for part in name.split(".")}
    shown = {part for line in wide[2:] for word in line.split() for part in word.split(".")}
    assert shown - {"", "softmax", "in"} == parts


class Pairs(nn.Module):
    """Rows that meet each other, of which those above the diagonal are picked; or other rows."""

    def __init__(self, width: int, other: bool) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(6, 4 * width), nn.Linear(16, 3)
        self.again = nn.Linear(6, 4 * width) if other else None

    def forward(self, x: Tensor) -> Tensor:
        z = self.inner(x).unflatten(-1, (4, -1))
        y = z if self.again is None else self.again(x).unflatten(-1, (4, -1))
        return self.head((y @ z.transpose(1, 2)).flatten(1))


@pytest.mark.parametrize("other", [False, True])
def test_rows_that_meet_each_other_are_said_to_be_read_at_the_size_of_the_diagonal(
    other: bool,
) -> None:
    def build(width: int = 16) -> nn.Module:
        return Pairs(width, other)

    found = derive_graph(ADAM, graph_of(file_of("pairs", build)).graph).assumptions
    said = [x for x in found if "as large as that of one with itself" in x]
    assert bool(said) is not other, found
