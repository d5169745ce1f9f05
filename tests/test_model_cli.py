"""The verbs on a user's own model, with --model: what they answer, and what they refuse."""

import json
import re
from pathlib import Path

import pytest
import torch
from typed import Typed

GPT = """
import torch
import torch.nn.functional as F
from torch import nn

class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** POWER
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x):
        b, t, d = x.shape
        parts = (f(x).view(b, t, self.heads, -1) for f in (self.q, self.k, self.v))
        q, k, v = (y.transpose(1, 2) for y in parts)
        a = (q @ k.transpose(-1, -2) * self.scale).softmax(-1) @ v
        return self.out(a.transpose(1, 2).reshape(b, t, d))

class GPT(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.embed, self.head = nn.Embedding(40, width), nn.Linear(width, 40, bias=False)
        self.attention, self.norm = Attention(width, 4), nn.LayerNorm(width)

    def forward(self, ids):
        x = self.embed(ids)
        return self.head(self.norm(x + self.attention(x)))

def build(width=32):
    return GPT(width)

def batch():
    ids = torch.randint(40, (4, 9), generator=torch.manual_seed(0))
    return ids[:, :-1], ids[:, 1:]
"""


@pytest.fixture
def gpt(tmp_path: Path) -> Path:
    path = tmp_path / "gpt.py"
    path.write_text(GPT.replace("POWER", "-1"))
    return path


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    path = tmp_path / "faulty.py"
    path.write_text(GPT.replace("POWER", "-0.5"))
    return path


def derived(typed: Typed, path: Path, *words: str) -> dict:
    done = typed("derive", "adam", "--model", str(path), "--format", "json", *words)
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_adam_on_a_small_gpt_has_the_published_table(typed: Typed, gpt: Path) -> None:
    answer = derived(typed, gpt)
    rates = {name: (x["b"], x["c"]) for name, x in answer["tensors"].items()}
    assert rates == {
        "embed.weight": ("0", "0"),
        "attention.q.weight": ("1/2", "1"),
        "attention.k.weight": ("1/2", "1"),
        "attention.v.weight": ("1/2", "1"),
        "attention.out.weight": ("1/2", "1"),
        "norm.weight": ("0", "0"),
        "norm.bias": ("oo", "0"),
        "head.weight": ("1", "1"),
    }
    assert not answer["changes"]
    assert answer["axis"] == "width" and answer["assumptions"]


def test_logits_over_the_root_of_the_head_size_are_found_and_named(
    typed: Typed, faulty: Path
) -> None:
    answer = derived(typed, faulty)
    assert answer["tensors"]["attention.q.weight"]["c"] == "3/2"
    assert "softmax" in answer["tensors"]["attention.q.weight"]["binds"]
    change = answer["changes"][0]
    line = faulty.read_text().splitlines()[change["line"] - 1]
    assert "self.scale" in line
    assert (change["found"], change["needed"]) == ("M^(-1/2)", "M^(-1)")


def test_what_grows_stands_in_every_line_by_its_name(typed: Typed) -> None:
    """Residual blocks without a multiplier, by depth: no power of a width M."""
    model = str(Path(__file__).resolve().parent.parent / "docs" / "gpt.py")
    done = typed("derive", "sgd", "--model", model, "--axis", "depth=2,4,6")
    assert done.code == 0, done.err
    assert "learning rate ~ depth^-c" in done.out and "larger depth" in done.out
    assert "depth^(-1) is needed" in done.out and "M^" not in done.out


def test_every_format_and_verb_speaks_of_the_tensors(typed: Typed, gpt: Path) -> None:
    for style in ("text", "markdown", "latex", "html"):
        done = typed("derive", "sgd", "--model", str(gpt), "--format", style)
        assert done.code == 0 and "embed" in done.out
    explained = typed("explain", "adam", "--model", str(gpt), "--tensor", "attention.out.weight")
    assert "c of attention.out.weight" in explained.out and "binds" in explained.out
    predicted = typed("predict", "adam", "--model", str(gpt), "--set", "c=0")
    row = next(x for x in predicted.out.splitlines() if x.startswith("attention.out.weight"))
    assert "unstable" in row


BLOCKS = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.up, self.down, self.depth = nn.Linear(width, width), nn.Linear(width, width), depth

    def forward(self, x):
        return x + self.down(torch.relu(self.up(x))) / self.depth

def build(width=16, depth=2):
    blocks = (Block(width, depth) for _ in range(depth))
    return nn.Sequential(nn.Linear(6, width), *blocks, nn.Linear(width, 3, bias=False))

def batch():
    generator = torch.manual_seed(0)
    return torch.randn(8, 6, generator=generator), torch.randn(8, 3, generator=generator)
"""


def test_several_axes_stand_side_by_side_each_with_the_answer_that_it_has_alone(
    typed: Typed, tmp_path: Path
) -> None:
    path = tmp_path / "blocks.py"
    path.write_text(BLOCKS)
    axes = ("--axis", "width=16,32,64"), ("--axis", "depth=2,4,6")
    done = typed("derive", "sign(G)", "--model", str(path), *axes[0], *axes[1])
    assert done.code == 0, done.err
    head = re.split(r"  +", done.out.splitlines()[2].strip())
    assert head == ["tensor", "b width", "c width", "b depth", "c depth"]
    rows = {x[0]: x[1:] for x in (re.split(r"  +", row) for row in done.out.splitlines()[4:10])}
    assert rows["*.up.weight"] == ["1/2", "1", "0", "0"]  # 1/depth: Depth-muP's rate
    both = json.loads(
        typed("derive", "sign(G)", "--model", str(path), *axes[0], *axes[1], "--format", "json").out
    )["axes"]
    for one, axis in zip(both, axes, strict=True):
        alone = typed("derive", "sign(G)", "--model", str(path), *axis, "--format", "json")
        assert json.loads(alone.out)["tensors"] == one["tensors"]
    for words in (("derive", *axes[0], *axes[0]), ("predict", *axes[0], *axes[1])):
        done = typed(words[0], "sign(G)", "--model", str(path), *words[1:])
        assert done.code == 2 and "found: " in done.err and "do this: pass --axis width" in done.err


@pytest.mark.usefixtures("measured_once")
@pytest.mark.slow
def test_several_axes_are_measured_one_after_the_other(typed: Typed, tmp_path: Path) -> None:
    path = tmp_path / "blocks.py"
    path.write_text(BLOCKS)
    words = ["verify", "sign(G)", "--model", str(path), "--seeds", "3", "--format", "json"]
    done = typed(*words, "--axis", "width=16:128", "--axis", "depth=2:16")
    found = json.loads(done.out)["axes"]
    assert [list(one["axis"]) for one in found] == [["width"], ["depth"]]
    for one in found:
        assert len(one["checks"]) > 20
        assert not [c for c in one["checks"] if c["verdict"] == "contradict"]
    planted = ["--axis", "width=16:128", "--axis", "depth=2:16", "--expect", "own_1.up.weight=1"]
    assert typed(*words, *planted).code == 1


@pytest.mark.usefixtures("measured_once")
@pytest.mark.slow
def test_a_model_agrees_and_a_planted_error_is_contradicted(typed: Typed, gpt: Path) -> None:
    words = ["verify", "adam", "--model", str(gpt), "--axis", "width=32,64,128,256", "--seeds", "3"]
    done = typed(*words, "--format", "json")
    found = json.loads(done.out)
    own = {c["name"]: c for c in found["checks"] if c["quantity"] == "own"}
    assert set(own) == set(derived(typed, gpt)["tensors"])
    assert not [c for c in found["checks"] if c["verdict"] == "contradict"]
    wrong = typed(*words, "--expect", "own_attention.out.weight=1")
    assert wrong.code == 1
    assert re.search(r"attention\.out\.weight +own +1 .* contradict", wrong.out)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("derive", "adam", "--axis", "width=1,2,3"), "--axis width=1,2,3 without a model"),
        (("derive", "adam", "--model", "gone.py"), "no file gone.py"),
        (("verify", "adam", "--model", "GPT", "--widths", "64:128"), "--widths beside --model"),
        (("verify", "adam", "--model", "GPT", "--out", "x"), "--out beside --model"),
        (("verify", "adam", "--model", "GPT", "--memory-limit", "1GiB"), "--memory-limit beside"),
        (("derive", "adam", "--model", "GPT", "--samples", "4"), "--samples beside --model"),
        (("explain", "adam", "--model", "GPT", "--layer", "output"), "--layer beside --model"),
        (("derive", "adam", "--model", "GPT", "--depth", "4"), "--depth beside --model"),
        (("derive", "adam", "--model", "GPT", "--step", "2"), "--step beside --model"),
        (("explain", "adam", "--model", "GPT"), "no tensor to explain"),
        (("explain", "adam", "--model", "GPT", "--tensor", "embed.weigth"), "embed.weigth"),
        (("verify", "--model", "GPT"), "0 rules beside --model"),
        (("derive", "sam", "--model", "GPT"), "ascended"),
        (("verify", "adam", "--model", "GPT", "--expect", "x"), "the expectation 'x'"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    typed: Typed, gpt: Path, words: tuple[str, ...], found: str
) -> None:
    done = typed(*(str(gpt) if w == "GPT" else w for w in words))
    assert done.code == 2 and found in done.err and "do this" in done.err


PLAIN = """
import math
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.last = nn.Linear(6, SIZE), nn.Linear(SIZE, 3)
        EXTRA

    def forward(self, x):
        h = torch.relu(self.first(x))
        BODY
        return self.last(h)

def build(width=16, other=2):
    return Model(width)MOVED

def batch():
    return torch.ones(4, 6), torch.ones(4, 3)
"""
UNUSABLE: dict[str, tuple[dict[str, str], tuple[str, ...], str]] = {
    "no batch": ({"def batch": "def batched"}, (), r"no function batch .*(.|\n)*def batch\(\)"),
    "an axis that grows nothing": (
        {}, ("--axis", "other=2,4,8"), r"the axis 'other', with which nothing of the model grows"
    ),
    "sizes that fit no rational": (
        {"SIZE": "int(width * math.log(width))"}, (),
        r"a length of the tensor 'first.weight' that is 44, 110, 185 at the sizes"
    ),
    "a power of two": (
        {"SIZE": "2 ** (width // 8)"}, (), r"'first.weight' that is 4, 16, 64 at the sizes"
    ),
    "one size": ({}, ("--axis", "width=16"), r"the axis 'width=16'(.|\n)*--axis width=64,128,192"),
    "an operation without a row": (
        {"BODY": "h = torch.fft.rfft(h).abs()[..., :1] + h"}, (), r"fft"
    ),
    "a tensor that the loss does not see": (
        {"EXTRA": "self.idle = nn.Linear(3, width)"}, (), r"the trained tensor 'idle.weight', from"
    ),
    "a gradient that stops": (
        {"EXTRA": "self.idle = nn.Linear(width, SIZE)", "BODY": "h = h + self.idle(h).detach()"},
        (), r"'idle.weight', whose gradient stops on every path from the loss, in .*model\.py:14",
    ),
    "no trained tensor": ({"MOVED": ".requires_grad_(False)"}, (), r"without a trained tensor"),
    "state in forward": (
        {"EXTRA": "self.register_buffer('seen', torch.zeros(1))", "BODY": "self.seen += 1"}, (),
        r"the buffer 'seen', which forward changes in place",
    ),
    "a part of a buffer": (
        {"EXTRA": "self.register_buffer('seen', torch.zeros(4))", "BODY": "self.seen[0] = 1"},
        (), r"the buffer 'seen', which forward changes in place",
    ),
    "a parameter in forward": (
        {"BODY": "with torch.no_grad(): self.first.weight.mul_(0.99)"}, (),
        r"the parameter 'first.weight', which forward changes in place",
    ),
    "a tensor in forward": (
        {"EXTRA": "self.seen = torch.zeros(width)", "BODY": "self.seen.add_(1); h = h + self.seen"},
        (), r"the tensor 'seen', which forward changes in place",
    ),
    "a counter in forward": (
        {"EXTRA": "self.seen = 0", "BODY": "self.seen += 1; h = h * self.seen"}, (),
        r"state that forward keeps from one call to the next: seen",
    ),
    "an average in forward": (
        {"EXTRA": "self.m = torch.zeros(width)", "BODY": "self.m = self.m + 1; h = h - self.m"},
        (), r"state that forward keeps from one call to the next: m",
    ),
    "a module on CUDA without one": (
        {"MOVED": ".to('cuda')"}, (),
        r"line 18, which asks for a CUDA device that is not there(.|\n)*leave \.to\('cuda'\)",
    ),
    "a batch on CUDA without one": (
        {"torch.ones(4, 6)": "torch.ones(4, 6).cuda()"}, (), r"batch\(\) .*, which asks for a CUDA"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_model_that_cannot_be_used_is_refused_in_three_parts(
    typed: Typed, tmp_path: Path, case: str
) -> None:
    if "CUDA" in case and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    changes, words, found = UNUSABLE[case]
    path = written(tmp_path, changes)
    place = list(UNUSABLE).index(case)
    for verb, *more in (VERBS[place % 4], VERBS[(place + 1) % 4]):
        done = typed(verb, "sign(G)", "--model", str(path), *more, *words)
        assert done.code == 2, done.out + done.err
        assert re.search(found, done.err), done.err
        assert [part for part in ("found: ", "needed: ", "do this: ") if part not in done.err] == []
        assert "Traceback" not in done.err


VERBS = (
    ("derive",),
    ("explain", "--tensor", "first.weight"),
    ("predict", "--set", "c=0"),
    ("verify",),
)
BLANK = {"SIZE": "width", "EXTRA": "", "BODY": "", "MOVED": ""}


def written(folder: Path, changes: dict[str, str]) -> Path:
    """The plain model with some of its text replaced."""
    text = PLAIN
    for old, new in {**changes, **BLANK}.items():
        text = text.replace(old, changes.get(old, new))
    path = folder / "model.py"
    path.write_text(text)
    return path


USABLE = {
    "as it is": {},
    "without an average": {"EXTRA": "self.m = torch.zeros(width)", "BODY": "h = h - self.m"},
    "attention weights kept for a figure": {"EXTRA": "self.seen = None", "BODY": "self.seen = h"},
    "a table made at the first call": {
        "EXTRA": "self.table = None",
        "BODY": "if self.table is None: self.table = torch.arange(len(h)).sin()[:, None]\n"
        "        h = h + self.table",
    },
    "writes into tensors of its own": {"BODY": "y = h * 2; y[:, 0] = 1; y.add_(h); h = h + y"},
    "statistics of batch norm": {"EXTRA": "self.n = nn.BatchNorm1d(SIZE)", "BODY": "h = self.n(h)"},
}


@pytest.mark.parametrize("case", USABLE)
def test_a_model_whose_calls_are_alike_is_derived(typed: Typed, tmp_path: Path, case: str) -> None:
    path = written(tmp_path, USABLE[case])
    assert typed("derive", "sign(G)", "--model", str(path)).code == 0


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        ("(f - y).square().mean() * float('nan')", "a number that is nan, nan, nan"),
        ("torch.special.bessel_j0(f - y).mean()", "'aten.special_bessel_j0.default'"),
    ],
)
def test_what_a_loss_of_ones_own_does_is_told_by_the_line_where_it_begins(
    loss: str, found: str, typed: Typed, tmp_path: Path
) -> None:
    """torch keeps lines of forward alone."""
    file = tmp_path / "own.py"
    file.write_text(f"{written(tmp_path, {}).read_text()}\ndef loss(f, y):\n    return {loss}\n")
    line = file.read_text().splitlines().index("def loss(f, y):") + 1
    code, _, err = typed("derive", "sgd", "--model", str(file))
    assert code == 2 and found in err and f"{file}:{line}" in err and "export.py" not in err
    assert "nan, nan, nan;" not in err, "no numbers are offered that are none"
