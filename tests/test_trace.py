"""The tracer: axes of all tensors and nodes foretell another size; what it refuses, and where."""

import inspect
import re
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from model_files import zoo
from sympy import Rational
from torch import Tensor, nn

from empirical.trace.export import ModelLeaf, export
from empirical.trace.growth import growth
from empirical.trace.lowering import Lowered, groups
from empirical.trace.model_file import ModelFile, read_axis, read_model
from empirical.trace.read_model import graph_of
from scaling.models.graph import GraphNode, Start
from scaling.models.node_functions import FUNCTIONS
from scaling.sizes.errors import InvalidInput, NotCovered, ScalingError

BATCHES: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    **dict.fromkeys(("llama", "tied", "mixture", "gru", "lstm"), zoo.text),
    **dict.fromkeys(("vit", "resnet", "convnext", "mixer"), zoo.images),
    **dict.fromkeys(("mlp", "lora", "normed", "branches", "counting", "offset"), zoo.vectors),
    "unet": lambda: (zoo.images()[0],) * 2,
    "word2vec": lambda: (zoo.text()[0], zoo.text()[1][:, 0]),
}
READ = [name for name in BATCHES if name not in ("branches", "counting")]


def file_of(name: str, build: Any = None) -> ModelFile:
    build = build or getattr(zoo, name)
    axes = {p.name: p.default for p in inspect.signature(build).parameters.values()}
    return ModelFile(Path(zoo.__file__), build, BATCHES.get(name, zoo.vectors), None, axes)


@cache
def traced(name: str, axis: str | None = None) -> Lowered:
    return graph_of(file_of(name), axis)


def foretold(sizes: tuple[int, int], lengths: tuple[int, int], exponent: Any) -> bool:
    """Whether a length at a size far beyond the traced ones is as its exponent says."""
    ratio = (sizes[1] / sizes[0]) ** float(exponent)
    return abs(lengths[1] / lengths[0] / ratio - 1) < 0.15  # offsets and rounding are small there


@pytest.mark.parametrize("name", READ)
def test_axes_of_all_tensors_and_operations_foretell_a_size_that_was_not_traced(name: str) -> None:
    file = file_of(name)
    start = file.axes["width"]
    assert start is not None
    found, sizes = traced(name), (4 * start, 16 * start)
    near, far = (export(file, {"width": size}) for size in sizes)
    nodes = {node.name: node for node in found.graph.walk()}
    shapes = {o.name: o.shape for o in near.operations} | shapes_of(near.leaves)
    later = {o.name: o.shape for o in far.operations} | shapes_of(far.leaves)
    checked = 0
    for operation, node in {**found.made, **{p: p for p in shapes_of(near.leaves)}}.items():
        if operation not in shapes or nodes[node].op == "item":
            continue
        for lengths, x in zip(
            zip(shapes[operation], later[operation], strict=True), nodes[node].axes, strict=True
        ):
            assert foretold(sizes, lengths, x), (operation, nodes[node], lengths)
            checked += 1
    assert checked > 12


def shapes_of(leaves: Any) -> dict[str, tuple[int, ...]]:
    return {name: leaf.shape for name, leaf in leaves.items() if isinstance(leaf, ModelLeaf)}


@pytest.mark.parametrize("name", READ)
def test_nothing_that_people_train_is_left_without_a_row(name: str) -> None:
    strange = {node.op for node in traced(name).graph.walk() if node.op.startswith("aten.")}
    assert not strange


@pytest.mark.parametrize("name", ["llama", "vit", "resnet", "convnext"])
def test_blocks_fold_and_their_tensors_stand_for_all(name: str) -> None:
    found = traced(name, "depth=2,4,6")
    (repeat,) = (node for node in found.graph.nodes if node.op == "repeat")
    assert repeat.get("repeat").count == 1
    names = {p.name for p in (*found.graph.parameters, *repeat.get("repeat").body.parameters)}
    model = getattr(zoo, name)(depth=1)
    twin = (
        {n.replace("1.", "", 1) for n, _ in model.named_parameters()}
        if name == "convnext"
        else None
    )
    assert names == {n for n, _ in model.named_parameters()} or twin is not None
    assert all(x == 0 for node in found.graph.walk() for x in node.axes)


def test_without_growing_depth_nothing_is_folded() -> None:
    assert not [n for n in traced("llama").graph.nodes if n.op == "repeat"]


def constants(found: Lowered) -> list[GraphNode]:
    return [n for n in found.graph.walk() if n.op == "constant" and n.get("exponent") != 0]


def test_a_constant_that_grows_has_its_exponent_and_its_line() -> None:
    scale = next(n for n in constants(traced("llama")) if n.get("exponent") == Rational(-1, 2))
    assert "blocks.0" in scale.where and "zoo.py:" in scale.where
    line = int(scale.where.rsplit(":", 1)[1])
    assert "self.scale" in Path(zoo.__file__).read_text().splitlines()[line - 1]
    (rank,) = constants(traced("lora", "rank=2,4,8"))
    assert rank.get("exponent") == -1


def test_how_tensors_start_is_seen() -> None:
    start = {p.name: p.start for p in traced("lora").graph.parameters}
    assert (start["2.A"], start["2.B"]) == (Start.DRAWN, Start.ZERO)
    frozen = {p.name: p for p in traced("lora").graph.parameters if not p.trained}
    assert frozen["2.inner.weight"].b == Rational(1, 2)
    table = {p.name: p for p in traced("convnext").graph.parameters}
    assert table["1.gamma"].start is Start.GIVEN and table["1.gamma"].b == 0
    assert table["1.norm.weight"].start is Start.ONE


def test_a_tied_tensor_is_one_leaf_with_two_uses() -> None:
    graph = traced("tied").graph
    (parameter,) = (p for p in graph.parameters if p.name == "embed.weight")
    assert parameter.aliases == ("head.weight",)
    assert {n.op for n in graph.uses("embed.weight")} == {"gather", "contract"}


def test_experts_on_an_axis_of_their_own_grow_alone() -> None:
    graph = traced("mixture", "experts=4,8,16").graph
    axes = {p.name: p.axes for p in graph.parameters}
    assert axes["up"] == (1, 0, 0) and axes["router.weight"] == (1, 0)


def test_a_parameter_that_shares_a_name_with_an_operation_keeps_it() -> None:
    class Named(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.linear = nn.Parameter(torch.randn(3, width))
            self.inner = nn.Linear(6, width)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(torch.tanh(self.inner(x)), self.linear)

    def build(width: int = 16) -> nn.Module:
        return Named(width)

    graph = graph_of(file_of("named", build)).graph
    assert graph.node("linear").op == "parameter"


class Bounded(nn.Module):
    def __init__(self, width: int, bound: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.outer, self.bound = nn.Linear(6, width), nn.Linear(width, 3), bound

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.bound(self.inner(x)))


@pytest.mark.parametrize(
    ("bound", "odd", "applied"),
    [
        (lambda x: x.clamp(max=4.6), False, ["relu"]),
        (lambda x: x.clamp(min=-0.5), False, ["relu"]),
        (lambda x: x.clamp(0), False, ["relu"]),
        (lambda x: x.clamp(-2, 2), True, ["hardtanh"]),
        (lambda x: nn.functional.hardtanh(x), True, ["hardtanh"]),
        (lambda x: nn.functional.hardtanh(x, 0, 20), False, ["clamp"]),
        (lambda x: nn.functional.relu6(x), False, ["relu6"]),
        (lambda x: x.clamp(1, 2), False, ["clamp away from zero"]),
    ],
)
def test_bounds_are_read_by_where_they_lie(
    bound: Callable[[Tensor], Tensor], odd: bool, applied: list[str]
) -> None:
    """Bounds that are not opposite leave a mean; one bound is what relu makes of it."""

    def build(width: int = 16) -> nn.Module:
        return Bounded(width, bound)

    nodes = [n for n in graph_of(file_of("bounded", build)).graph.walk() if n.op == "apply"]
    assert [n.get("function") for n in nodes] == applied
    assert (FUNCTIONS[applied[0]].parity == 1) is odd
    x = torch.linspace(-9, 9, 99)
    assert torch.allclose(bound(-x), -bound(x)) is odd


def test_bounds_that_grow_or_are_tensors_are_refused() -> None:
    for bound in (lambda x: x.clamp(-x.shape[1], x.shape[1]), lambda x: x.clamp(max=x.abs() / 2)):

        def build(width: int = 16, bound: Callable[[Tensor], Tensor] = bound) -> nn.Module:
            return Bounded(width, bound)

        file = ModelFile(Path(zoo.__file__), build, zoo.vectors, None, {"width": 16})
        with pytest.raises(NotCovered, match="a clamp between bounds that"):
            graph_of(file)


# --- what is refused ------------------------------------------------------------------------------


def refusal(name: str, axis: str | None = None) -> ScalingError:
    with pytest.raises((InvalidInput, NotCovered)) as caught:
        traced(name, axis)
    return caught.value


def test_control_flow_by_data_is_refused_with_the_reason_and_the_line() -> None:
    error = refusal("branches")
    assert "zoo.py" in error.found and "if y.sum() > 0" in error.found
    assert "data-dependent" in error.needed


def test_state_that_forward_changes_is_refused_by_name() -> None:
    assert "'seen'" in refusal("counting").found


def test_an_axis_that_grows_nothing_is_refused() -> None:
    def build(width: int = 16, unused: int = 2) -> nn.Module:
        return zoo.mlp(width)

    with pytest.raises(InvalidInput, match="with which nothing of the model grows"):
        graph_of(file_of("still", build), "unused=2,4,6")


def test_a_trained_tensor_that_the_loss_does_not_see_is_refused() -> None:
    class Lost(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.used, self.lost = nn.Linear(6, 3), nn.Linear(6, width)

        def forward(self, x: Tensor) -> Tensor:
            self.lost(x)
            return self.used(x)

    def build(width: int = 16) -> nn.Module:
        return Lost(width)

    with pytest.raises(InvalidInput, match=r"'lost\.weight', from which no path leads"):
        graph_of(file_of("lost", build))


class Branch(nn.Module):
    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(nn.functional.relu(x))


def test_blocks_of_several_neighbours_fold_too() -> None:
    """A flat list of layers, two kinds by turns and one without tensors between, and a head."""

    def build(depth: int = 2, width: int = 8) -> nn.Module:
        kinds = [
            m
            for _ in range(depth)
            for m in (Branch(width, True), nn.Dropout(), Branch(width, False))
        ]
        return nn.Sequential(nn.Linear(6, width), *kinds, nn.Linear(width, 3))

    found = graph_of(file_of("neighbours", build), "depth=2,4,6")
    (repeat,) = (node for node in found.graph.nodes if node.op == "repeat")
    assert repeat.get("repeat").count == 1
    names = [p.name for p in (*found.graph.parameters, *repeat.get("repeat").body.parameters)]
    small = [n for n, _ in build(1).named_parameters()]
    assert sorted(names) == sorted(
        {"4.weight": "7.weight", "4.bias": "7.bias"}.get(n, n) for n in small
    ), "tensors are named as in the model at the smallest size"


def test_blocks_that_differ_are_refused() -> None:
    class Uneven(nn.Module):
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.into, self.out = nn.Linear(6, 8), nn.Linear(8, 3)
            self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(depth))

        def forward(self, x: Tensor) -> Tensor:
            x = self.into(x)
            for i, block in enumerate(self.blocks):
                x = x + block(x) / (i + 1)
            return self.out(x)

    def uneven(depth: int = 2) -> nn.Module:
        return Uneven(depth)

    with pytest.raises(NotCovered, match=r"the blocks 'blocks\.0', 'blocks\.1'"):
        graph_of(file_of("uneven", uneven), "depth=3,4,6")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def build(width=8): pass", "no function batch"),
        ("def batch(): pass", "no function build"),
        ("raise RuntimeError('broken')", "RuntimeError: broken"),
        ("def build(width=8): return 3\ndef batch(): return 1, 2", "returns a int"),
        (
            "import torch\ndef build(width=8): return torch.nn.Linear(4, width)\n"
            "def batch(): return torch.zeros(2, 4)",
            "batch in",
        ),
        (
            "import torch\ndef build(width=8): return torch.nn.Linear(4, width)\n"
            "def batch(): return torch.zeros(2, 5), torch.zeros(2, 8)",
            "raises RuntimeError: mat1 and mat2 shapes cannot be multiplied",
        ),
        (
            "import torch\nclass M(torch.nn.Linear):\n    def forward(self, x): return lost(x)\n"
            "def build(width=8): return M(4, width)\n"
            "def batch(): return torch.zeros(2, 4), torch.zeros(2, 8)",
            "line 3 raises NameError: name 'lost' is not defined",
        ),
        (
            "import torch\nclass M(torch.nn.Linear):\n"
            "    def forward(self, x): return super().forward(x) if x.sum() > 0 else x\n"
            "def build(width=8): return M(4, width)\n"
            "def batch(): return torch.ones(2, 4), torch.zeros(2, 8)",
            "cannot be traced",
        ),
        (
            "import torch\ndef build(width=8): return torch.nn.Linear(4, width).cuda()\n"
            "def batch(): return torch.zeros(2, 4), torch.zeros(2, 8)",
            "line 2",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    tmp_path: Path, text: str, found: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if ".cuda()" in text and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    path = tmp_path / "model.py"
    path.write_text(text)
    with pytest.raises((InvalidInput, NotCovered)) as caught:
        graph_of(str(path))
    assert found in str(caught.value)
    assert "do this" in str(caught.value)
    assert capfd.readouterr().err == "", "torch logs its own listing"


def test_a_file_that_is_not_there_and_an_axis_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no file"):
        read_model(str(tmp_path / "gone.py"))
    with pytest.raises(InvalidInput, match="did you mean 'width'"):
        file_of("mlp").axis("widht=1,2,3")
    with pytest.raises(InvalidInput, match="the axis 'width='"):
        read_axis("width=")


# --- growth ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "exponent", "note"),
    [
        ((5, 5, 5), 0, ""),
        ((64, 128, 192), 1, ""),
        ((4096, 16384, 36864), 2, ""),
        ((0.125, 128**-0.5, 192**-0.5), Fraction(-1, 2), ""),
        ((199, 391, 583), 1, "3 s + 7"),
        ((65**-0.5, 129**-0.5, 193**-0.5), Fraction(-1, 2), "(1 s + 1)^(-1/2)"),
        ((256, 512, 768), 1, ""),
        ((176, 344, 512), 1, "21/8 s + 8"),
        ((256, 512, 512), 1, "rounded to multiples of 256"),
        ((-64, -128, -192), 1, ""),
    ],
)
def test_numbers_grow_as_they_were_written(
    values: tuple[float, ...], exponent: Any, note: str
) -> None:
    found = growth((64, 128, 192), values)
    assert (found.exponent, found.note) == (exponent, note)


@pytest.mark.parametrize("values", [(4.2, 4.9, 5.3), (64, 128, 100), (-1, 1, 2), (0, 1, 2)])
def test_numbers_that_fit_no_power_are_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(InvalidInput, match="at the sizes 64, 128, 192") as caught:
        growth((64, 128, 192), values)
    offered = re.search(r"as s\^\((.*)\), for example as (.*);", caught.value.do_this)
    assert offered, caught.value.do_this
    assert growth((64, 128, 192), tuple(map(float, offered[2].split(", ")))).exponent == int(
        offered[1]
    )


def test_axes_that_are_joined_and_split_are_paired_at_all_sizes() -> None:
    split = groups(((4, 8, 64), (4, 8, 128)), ((4, 8, 2, 32), (4, 8, 2, 64)))
    assert split == (((0,), (0,)), ((1,), (1,)), ((2,), (2, 3)))
    merged = groups(((1, 8, 64), (1, 8, 128)), ((8, 64), (8, 128)))
    assert merged == (((0, 1), (0,)), ((2,), (1,)))
    crossed = groups(((5, 2, 64), (5, 2, 128)), ((5, 8, 16), (5, 8, 32)))
    assert crossed == (((0,), (0,)), ((1, 2), (1, 2)))


class Small(nn.Module):
    """Words, places, heads of a fixed size, and a kernel over the sequence."""

    def __init__(self, heads: int, kernel: int, sequence: int, vocabulary: int) -> None:
        super().__init__()
        width = 4 * heads
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(torch.randn(sequence, width))
        self.qkv, self.heads = nn.Linear(width, 3 * width), heads
        self.mix = nn.Conv1d(width, 6, kernel, padding="same")
        self.head = nn.Linear(6, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        q, k, v = self.qkv(self.words(ids) + self.places).chunk(3, -1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        x = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(self.mix(x.mT).mT)


AXES: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "heads": ("2,4,8", {"words.weight": (0, 1), "qkv.weight": (1, 1), "mix.weight": (0, 1, 0)}),
    "kernel": ("3,5,7", {"words.weight": (0, 0), "mix.weight": (0, 0, 1), "mix.bias": (0,)}),
    "sequence": ("8,16,24", {"places": (1, 0), "words.weight": (0, 0), "inputs_0": (0, 1)}),
    "vocabulary": ("40,80,120", {"words.weight": (1, 0), "head.weight": (1, 0), "places": (0, 0)}),
    "samples": ("4,8,16", {"inputs_0": (1, 0), "targets": (1, 0), "qkv.weight": (0, 0)}),
}


@pytest.mark.parametrize("axis", AXES)
def test_every_other_axis_is_read_from_the_code(axis: str) -> None:
    def build(
        heads: int = 2, kernel: int = 3, sequence: int = 8, vocabulary: int = 40, samples: int = 4
    ) -> nn.Module:
        return Small(heads, kernel, sequence, vocabulary)

    def batch(sequence: int = 8, samples: int = 4) -> tuple[Tensor, Tensor]:
        ids = torch.randint(40, (samples, sequence + 1), generator=torch.manual_seed(0))
        return ids[:, :-1], ids[:, 1:]

    axes = {p.name: p.default for p in inspect.signature(build).parameters.values()}
    sizes, expected = AXES[axis]
    file = ModelFile(Path(__file__), build, batch, None, axes)
    nodes = {node.name: node.axes for node in graph_of(file, f"{axis}={sizes}").graph.walk()}
    assert {name: nodes[name] for name in expected} == expected
