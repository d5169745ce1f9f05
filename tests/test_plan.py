"""Plans: numbers of a large model from a small one, beside published tables and measured steps."""

import importlib.util
import json
import math
import re
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from typed import Typed

from derivations.recipes import recipe_of
from empirical import ModelPlan, plan
from empirical.trace.given_model import model_of
from empirical.trace.trained import trained
from scaling.rules.parser import parse
from scaling.sizes.errors import InvalidInput, NotCovered
from scaling.solve.sourced_powers import degree, family_of, sourced_powers

GPT = Path(__file__).resolve().parent.parent / "docs" / "gpt.py"
TUNED = {"lr": 3e-3, "eps": 1e-8, "decay": 0.1}
BASE = {"width": 32, "depth": 2}
LARGE = {"width": 256, "depth": 8}
WIDE, DEEP = 8, 4


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def gpt() -> ModuleType:
    return loaded(GPT)


@cache
def planned(target: str = "large", changed: bool = True, recipe: str = "adamw") -> ModelPlan:
    sizes = LARGE if target == "large" else BASE
    return plan(gpt().build, gpt().batch, recipe, BASE, sizes, TUNED, change_code=changed)


def ratios(found: ModelPlan, quantity: str) -> dict[str, float]:
    """The factor of every tensor of the second block, and of what is outside of blocks."""
    base = {"lr": 3e-3, "eps": 1e-8, "decay": 0.1}[quantity]
    out = {}
    for name, x in found.tensors.items():
        if not name.startswith("blocks.") or name.startswith("blocks.1."):
            out[name] = {"lr": x.lr, **x.dampings, **x.decays}[quantity] / base
    return out


MATRICES = {f"blocks.1.{name}.weight" for name in ("qkv", "out", "up", "down")}


def test_complete_p_follows_from_the_model() -> None:
    """arXiv 2505.01618, Table 1 at alpha = 1; readout with its multiplier absorbed, 2512.22382."""
    found = planned()
    lr, eps, decay = (ratios(found, k) for k in ("lr", "eps", "decay"))
    for name in lr:
        hidden, readout = name in MATRICES, name == "head.weight"
        inside = name.startswith("blocks.")
        assert lr[name] == pytest.approx(1 / WIDE if hidden or readout else 1), name
        assert decay[name] == pytest.approx(WIDE if hidden or readout else 1), name
        expected = 1 / (WIDE * DEEP) if inside else 1 if readout else 1 / WIDE
        assert eps[name] == pytest.approx(expected), name
    small = planned("base")
    for name, power in (("blocks.1.up.weight", 0.5), ("head.weight", 1), ("tokens.weight", 0)):
        first, last = small.tensors[name].std, found.tensors[name].std
        assert first is not None and last is not None
        assert last / first == pytest.approx(WIDE**-power, rel=0.02)  # the base draws two blocks
    assert found.tensors["norm.weight"].std is None
    assert found.tensors["blocks.1.before.bias"].std is None


def test_the_plan_of_the_base_is_what_was_tuned() -> None:
    found = planned("base")
    assert {(x.lr, x.dampings["eps"], x.decays["decay"]) for x in found.tensors.values()} == {
        (3e-3, 1e-8, 0.1)
    }
    assert not found.changes and not found.changed
    model = gpt().build(**BASE)
    for name, std in ((n, x.std) for n, x in found.tensors.items()):
        own = float(dict(model.named_parameters())[name].detach().std())
        assert std is None or own == pytest.approx(std, rel=0.35), name


def test_code_as_it_is_has_smaller_rates_and_says_where() -> None:
    found = planned(changed=False)
    places = {(x.axis, x.line, x.found, x.needed) for x in found.changes}
    lines = GPT.read_text().splitlines()
    assert {(a, f, n) for a, _, f, n in places} == {("width", "-1/2", "-1"), ("depth", "0", "-1")}
    assert {lines[line - 1].strip()[:9] for _, line, _, _ in places} == {
        "attention", "x = x + s", "return x ",
    }  # fmt: skip
    assert sorted(x.factor for x in found.changes) == pytest.approx([0.25, 0.25, WIDE**-0.5])
    slower = found.tensors["blocks.5.qkv.weight"].lr / planned().tensors["blocks.5.qkv.weight"].lr
    assert slower == pytest.approx(WIDE**-0.5 * DEEP**-0.5)
    with pytest.raises(InvalidInput, match="change_code=True"):
        found.wrap(gpt().build(**LARGE))


def test_every_block_is_trained_like_the_slowest_and_the_last_one_is_not_taken_for_it() -> None:
    """In the base the second block is the last, which no attention above it binds."""
    found = planned(changed=False)
    for part in ("out.weight", "up.weight", "between.bias"):
        numbers = {
            (x.lr, x.dampings["eps"]) for name, x in found.tensors.items() if name.endswith(part)
        }
        assert len(numbers) == 1
    assert any("slowest" in text for text in found.assumptions)
    alone = plan(gpt().build, gpt().batch, "adamw", BASE, {"width": 256}, TUNED)
    assert alone.tensors["blocks.1.up.weight"].lr > alone.tensors["blocks.0.up.weight"].lr
    assert not any("slowest" in text for text in alone.assumptions)


EDITS = (
    ("(width // heads) ** -0.5", f"(width // heads) ** -0.5 * {WIDE**-0.5!r}"),
    ("x = x + self.out(", f"x = x + {1 / DEEP!r} * self.out("),
    ("return x + self.down(", f"return x + {1 / DEEP!r} * self.down("),
)


def test_a_wrapped_model_is_the_edited_one(tmp_path: Path) -> None:
    text = GPT.read_text()
    for old, new in EDITS:
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = tmp_path / "edited.py"
    path.write_text(text)
    own, edited = gpt().build(**LARGE).double(), loaded(path).build(**LARGE).double()
    edited.load_state_dict(own.state_dict())
    x, _ = gpt().batch()
    before = own(x)
    wrapped = planned().wrap(own)
    assert torch.allclose(own(x), edited(x), rtol=1e-10)
    assert not torch.allclose(own(x), before, rtol=1e-3)
    wrapped.remove()
    assert torch.equal(own(x), before)


def test_attention_of_torch_is_wrapped_by_its_scale() -> None:
    class Attention(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.embed, self.q = nn.Embedding(16, width), nn.Linear(width, width)
            self.head = nn.Linear(width, 16)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            x = self.embed(ids)
            y = nn.functional.scaled_dot_product_attention(self.q(x), x, x)
            return self.head(y)

    def build(width: int = 16) -> nn.Module:
        return Attention(width)

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.randint(16, (2, 6), generator=torch.manual_seed(0))
        return ids, ids

    found = plan(build, batch, "sign(G)", {"width": 16}, {"width": 64}, {"lr": 0.1},
                 change_code=True)  # fmt: skip
    (change,) = found.changes
    assert change.factor == pytest.approx(0.5)
    model = build(64).double()
    ids, _ = batch()
    q = model.q.weight.detach().clone(), model.q.bias.detach().clone()
    found.wrap(model)
    once = model(ids)
    unwrapped = build(64).double()
    unwrapped.load_state_dict(model.state_dict())
    with torch.no_grad():  # half the logits, by another way
        unwrapped.q.weight.copy_(q[0] / 2)
        unwrapped.q.bias.copy_(q[1] / 2)
    assert torch.allclose(once, unwrapped(ids), rtol=1e-10)


def moved(numbers: ModelPlan | None, sizes: dict[str, int], seed: int) -> tuple[float, float]:
    """How far one torch step moves the last features and the logits; None: PyTorch's defaults."""
    torch.manual_seed(seed)
    model = gpt().build(**sizes).double()
    if numbers is None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=TUNED["lr"], weight_decay=0.1)
    else:
        numbers.apply_(model, seed)
        numbers.wrap(model)
        optimizer = torch.optim.AdamW(numbers.param_groups(model))
    seen: list[torch.Tensor] = []
    model.norm.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    x, y = gpt().batch()
    before = model(x)
    nn.functional.cross_entropy(before.flatten(0, 1), y.flatten()).backward()
    optimizer.step()
    changes = (seen[0], before.detach()), (model(x).detach(), seen[-1])
    (h, f), (f_after, h_after) = changes
    return tuple(float((b - a).square().mean().sqrt()) for a, b in ((h, h_after), (f, f_after)))  # type: ignore[return-value]


def test_a_step_moves_a_planned_model_as_it_moves_the_base_and_defaults_do_not() -> None:
    """Plain torch: AdamW on param groups. The control is the same step with PyTorch's defaults."""
    small = [moved(planned("base"), BASE, seed) for seed in range(2)]
    large = [moved(planned(), LARGE, seed) for seed in range(2)]
    control = [moved(None, LARGE, seed) for seed in range(1)]
    for k, within in ((0, 1.3), (1, 2.0)):  # features; logits, which start to shrink with them
        a, b, c = (sum(row[k] for row in rows) / len(rows) for rows in (small, large, control))
        assert 1 / within < b / a < within, (k, a, b)
        assert c / a > 5, (k, a, c)


def test_groups_are_plain_and_as_few_as_there_are_numbers() -> None:
    found, model = planned(), gpt().build(**LARGE)
    groups = found.param_groups(model)
    assert len(groups) == len({(x.lr, x.dampings["eps"], x.decays["decay"])
                               for x in found.tensors.values()})  # fmt: skip
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    optimizer = torch.optim.AdamW(groups)
    found.require(optimizer, model)
    assert {g["betas"] for g in optimizer.param_groups} == {(0.9, 0.999)}
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert {round(g["lr"], 9) for g in optimizer.param_groups} == {0.0015, round(3e-3 / 16, 9)}
    again = torch.optim.AdamW(found.param_groups(model))
    again.load_state_dict(optimizer.state_dict())
    assert schedule.get_last_lr() == [g["lr"] for g in again.param_groups]
    compiled = torch.compile(model)
    assert len(found.param_groups(compiled)) == len(groups)
    plain = torch.optim.AdamW(model.parameters(), lr=3e-3)
    with pytest.raises(InvalidInput, match="of 'places' in AdamW, which has"):
        found.require(plain, model)
    with pytest.raises(InvalidInput, match="does not train"):
        found.require(torch.optim.AdamW(found.param_groups(model)[:1]), model)


def test_averages_that_nobody_gave_are_left_to_the_optimizer() -> None:
    model = flat(64)
    for tuned, betas in ((TUNED, (0.8, 0.95)), ({**TUNED, "beta1": 0.7, "beta2": 0.9}, (0.7, 0.9))):
        found = plan(flat, rows, "adamw", {"width": 16}, {"width": 64}, tuned)
        optimizer = torch.optim.AdamW(found.param_groups(model), betas=(0.8, 0.95))
        assert {group["betas"] for group in optimizer.param_groups} == {betas}
    larger = plan(flat, rows, "adamw", {"batch": 8}, {"batch": 16}, TUNED)
    assert any("beta1 = 0.9 at the base, as usual" in text for text in larger.assumptions)


def test_two_optimizers_take_their_own_groups() -> None:
    tuned = {"lr": {"hidden": 0.02, "rest": 3e-3}, "eps": 1e-8, "decay": 0.1}
    found = plan(gpt().build, gpt().batch, "hidden: muon_rms_decay; rest: adamw", BASE, LARGE,
                 tuned, change_code=True)  # fmt: skip
    for name, x in found.tensors.items():
        if name.endswith("up.weight"):
            assert x.lr == pytest.approx(0.02 * WIDE**-0.5)
    model = gpt().build(**LARGE)
    muon = torch.optim.Muon(found.param_groups(model, "hidden"), adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(found.param_groups(model, "rest"))
    found.require(muon, model, "hidden")
    found.require(adamw, model, "rest")
    x, y = gpt().batch()
    nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
    muon.step()
    adamw.step()
    both = {id(p) for o in (muon, adamw) for g in o.param_groups for p in g["params"]}
    assert both == {id(p) for p in model.parameters()}
    with pytest.raises(InvalidInput, match="'hiden'"):
        found.param_groups(model, "hiden")


def test_a_plan_is_saved_whole_and_loaded_without_the_model(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    planned().save(path)
    assert ModelPlan.load(path) == planned()
    found = json.loads(path.read_text())
    assert set(found) >= {"recipe", "base", "at", "tensors", "changes", "assumptions"}
    one = found["tensors"]["blocks.1.up.weight"]
    assert set(one) >= {"std", "lr", "dampings", "decays", "group"}
    assert found["tensors"]["norm.weight"]["std"] is None
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(InvalidInput, match="cannot be written"):
        planned().save(tmp_path / "no" / "plan.json")
    for text in ("{", "{}", '{"format": 99}'):
        path.write_text(text)
        with pytest.raises(InvalidInput, match="cannot be read"):
            ModelPlan.load(path)


def test_weights_are_drawn_by_seed_and_what_stays_stays() -> None:
    found = plan(gpt().build, gpt().batch, "head.weight: frozen; rest: adamw", {"width": 32},
                 {"width": 64}, TUNED, keep=("tokens.*",))  # fmt: skip
    assert list(found.frozen) == ["head.weight"]
    model, again = gpt().build(width=64), gpt().build(width=64)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    drawn = found.apply_(model, seed=3)
    found.apply_(again, seed=3)
    assert "blocks.0.up.weight" in drawn and "places" in drawn
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) is (name not in drawn), name
        if name in drawn:
            assert torch.equal(p, dict(again.named_parameters())[name])
    assert not {"tokens.weight", "head.weight", "norm.weight", "norm.bias"} & set(drawn)
    weight = dict(model.named_parameters())["blocks.0.up.weight"]
    assert float(weight.detach().std()) == pytest.approx(
        found.tensors["blocks.0.up.weight"].std, rel=0.03
    )


class Block(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = (
            nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)
        )  # fmt: skip
        self.scale = 1 / depth

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * self.down(self.up(self.norm(x)).relu())


def flat(width: int = 16, depth: int = 2) -> nn.Module:
    """Input, blocks and readout in one list: the name of the readout says nothing."""
    blocks = [Block(width, depth) for _ in range(depth)]
    return nn.Sequential(nn.Linear(4, width), *blocks, nn.LayerNorm(width), nn.Linear(width, 3))


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(8, 4), torch.zeros(8, dtype=torch.int64)


def test_tensors_that_change_their_names_with_the_depth_keep_their_numbers() -> None:
    found = plan(flat, rows, "adamw", {"width": 16, "depth": 2}, {"width": 64, "depth": 6}, TUNED)
    assert not found.changes
    lr = {name: x.lr / 3e-3 for name, x in found.tensors.items()}
    assert lr["8.weight"] == lr["3.up.weight"] == lr["6.down.weight"] == pytest.approx(1 / 4)
    assert lr["0.weight"] == lr["7.weight"] == lr["3.norm.weight"] == pytest.approx(1)
    eps = {name: x.dampings["eps"] / 1e-8 for name, x in found.tensors.items()}
    assert eps["4.up.weight"] == pytest.approx(1 / 4 / 3) and eps["8.weight"] == pytest.approx(1)
    small = plan(flat, rows, "adamw", {"width": 16, "depth": 2}, {"width": 16}, TUNED)
    readout, hidden = small.tensors["4.weight"].std, small.tensors["1.up.weight"].std
    assert found.tensors["8.weight"].std == pytest.approx(readout / 4)
    assert found.tensors["6.up.weight"].std == pytest.approx(hidden / 2, rel=0.2)


class Numbered(nn.Module):
    """A block whose tensors have numbers of their own."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.scale = 1 / depth

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * self.mlp(x)


def test_the_number_of_a_block_is_blanked_and_no_other_number_of_a_name() -> None:
    """A second layer in a block is no twin of the first: it was frozen and shown with it."""

    def build(width: int = 16, depth: int = 2) -> nn.Module:
        blocks = [Numbered(width, depth) for _ in range(depth)]
        return nn.Sequential(nn.Linear(4, width), *blocks, nn.Linear(width, 3))

    recipe = "*.mlp.0.weight: frozen; rest: sign(G)"
    base, sizes = {"width": 16, "depth": 2}, {"width": 32, "depth": 4}
    found = plan(build, rows, recipe, base, sizes, {"lr": 0.1})
    assert list(found.frozen) == [f"{k}.mlp.0.weight" for k in range(1, 5)]
    assert {f"{k}.mlp.2.weight" for k in range(1, 5)} <= set(found.tensors)
    shown = [row[0] for row in found.table().rows]
    assert "*.mlp.2.weight" in shown and "*.mlp.*.weight" not in shown
    model = trained(recipe_of(recipe), model_of(build, rows), "depth=2,3,4").file
    for depth in (2, 4, 5):  # 5 is no size that was traced
        still = [n for n, p in model.build({"depth": depth}).named_parameters()
                 if not p.requires_grad]  # fmt: skip
        assert still == [f"{k}.mlp.0.weight" for k in range(1, depth + 1)]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"base": {"width": 64}, "target": {"width": 32}}, "width=64 at the base, larger than 32"),
        ({"target": {"width": 32, "depht": 4}}, "axis 'depht'"),
        ({"target": {"depth": 4}, "base": {"width": 32}}, "depth=4 at the target, and none"),
        ({"base": {"width": 0}}, "width=0"),
        ({"tuned": {"lr": 0.1, "eps": 1e-8, "rho": 1}}, "number 'rho'"),
        ({"tuned": {"eps": 1e-8}}, "no lr for the group"),
        ({"tuned": {"lr": 0.1}}, "no eps for the group"),
        ({"tuned": {"lr": math.nan, "eps": 1e-8}}, "lr=nan"),
        ({"tuned": {"lr": {"hiden": 0.1}, "eps": 1e-8}}, "group of the recipe 'hiden'"),
        ({"keep": ("*.lost",)}, "keep='*.lost'"),
        ({"batch": (1, 2)}, "batch=tuple"),
        ({"recipe": "hidden: adamw"}, "'0.weight' (embedding), which no group of"),
    ],
)
def test_what_makes_no_plan_is_refused(change: dict, found: str) -> None:
    given = {"build": flat, "batch": rows, "recipe": "adamw", "base": {"width": 16},
             "target": {"width": 64}, "tuned": TUNED, **change}  # fmt: skip
    with pytest.raises(InvalidInput) as refused:
        plan(**given)
    assert found in refused.value.found


def test_a_plan_along_the_depth_alone_has_the_base_among_its_sizes() -> None:
    """Where nothing grows every block still has an answer, and the numbers are those tuned."""
    same = plan(flat, rows, "adamw", {"depth": 2}, {"depth": 2}, TUNED)
    assert set(same.tensors) == {name for name, _ in flat().named_parameters()}
    assert {x.lr for x in same.tensors.values()} == {TUNED["lr"]}

    def deep(depth: int = 2) -> nn.Module:
        return flat(depth=depth)

    alone = plan(deep, rows, "adamw", {"depth": 2}, {"depth": 2}, TUNED)
    assert {name: x.lr for name, x in alone.tensors.items()} == {k: 3e-3 for k in same.tensors}


def test_one_block_at_the_base_is_refused_by_name() -> None:
    with pytest.raises(NotCovered, match="depth=1 at the base, where no block repeats"):
        plan(flat, rows, "adamw", {"depth": 1}, {"depth": 4}, TUNED)


def test_a_plan_for_another_model_is_refused_and_nothing_is_drawn() -> None:
    found = plan(flat, rows, "adamw", {"width": 16}, {"width": 64}, TUNED)
    narrow = flat(16)
    before = [p.detach().clone() for p in narrow.parameters()]
    with pytest.raises(InvalidInput, match=r"'0\.weight' of shape \(16, 4\), which has \(64, 4\)"):
        found.apply_(narrow)
    assert all(torch.equal(p, q) for p, q in zip(narrow.parameters(), before, strict=True))
    with pytest.raises(InvalidInput, match=r"a model without the tensor '0\.weight'"):
        found.param_groups(nn.Linear(2, 2))
    with pytest.raises(InvalidInput, match=r"the tensor '5\.weight'"):
        found.param_groups(nn.Sequential(*flat(64), nn.Linear(3, 3)))


def test_a_decay_that_was_not_given_is_zero_and_said_to_be() -> None:
    tuned = {"lr": 3e-3, "eps": 1e-8}
    found = plan(flat, rows, "adamw", {"width": 16}, {"width": 64}, tuned)
    assert {x.decays["decay"] for x in found.tensors.values()} == {0.0}
    assert any("no decay was given for 'rest'" in text for text in found.assumptions)


def test_a_number_of_a_group_stands_where_one_is_given_for_all(
    typed: Typed, tmp_path: Path
) -> None:
    """No decay of gains and biases, as people train: in the recipe, by group, on the command line.

    The constants of a ready-made recipe are those of its library, and give way.
    """
    path = tmp_path / "model.py"
    path.write_text("""
import torch
from torch import nn

def build(width=16):
    return nn.Sequential(nn.Linear(4, width), nn.LayerNorm(width), nn.Linear(width, 3))

def batch():
    return torch.ones(8, 4), torch.zeros(8, dtype=torch.int64)
""")
    build, batch = (getattr(loaded(path), name) for name in ("build", "batch"))
    sizes = {"width": 16}, {"width": 64}
    recipe = "gain, bias: adamw with decay=0, lr=1e-4; rest: adamw"
    written = plan(build, batch, recipe, *sizes, TUNED)
    assert (written.tensors["1.weight"].lr, written.tensors["0.weight"].lr) == (1e-4, 3e-3)
    decays = {name: dict(x.decays)["decay"] for name, x in written.tensors.items()}
    assert decays == {"0.weight": 0.1, "2.weight": pytest.approx(0.4)} | dict.fromkeys(
        ("0.bias", "1.weight", "1.bias", "2.bias"), 0.0
    )
    assert any("decay = 0 of 'gain, bias" in text for text in written.assumptions)
    usual = plan(build, batch, "torch_adamw", *sizes, {**TUNED, "decay": 0.3})
    assert usual.tensors["0.weight"].decays == {"decay": 0.3}
    words = ("plan", "gain, bias: adamw; rest: adamw", "--model", str(path), "--base", "width=16",
             "--at", "width=64", "--lr", "3e-3", "--eps", "1e-8")  # fmt: skip
    place = tmp_path / "plan.json"
    done = typed(*words, "--decay", "rest=0.1", "--decay", "gain, bias=0", "--save", str(place))
    assert done.code == 0, done
    found = ModelPlan.load(place).tensors
    assert {name: dict(x.decays)["decay"] for name, x in found.items()} == decays
    for wrong in (("--decay", "x"), ("--decay", "0.1", "--decay", "rest=0.1"), ("--eps", "a=1")):
        assert typed(*words, *wrong).code == 2


# --- batch and samples: powers of the literature -----------------------------------------------


def test_adam_in_the_batch_has_the_square_root_rule() -> None:
    """arXiv 2205.10287: lr sqrt(k), 1 - beta k, eps k^-1/2; 2405.13698: lr decay / batch stays."""
    base, target = {"width": 16, "batch": 8}, {"width": 16, "batch": 32}
    found = plan(flat, rows, "adamw", base, target, TUNED)
    x = found.tensors["1.up.weight"]
    assert x.lr == pytest.approx(6e-3) and x.dampings["eps"] == pytest.approx(5e-9)
    assert x.lr * x.decays["decay"] == pytest.approx(4 * 3e-3 * 0.1)
    assert dict(x.averages) == {"beta1": pytest.approx(0.6), "beta2": pytest.approx(0.996)}
    (line,) = [text for text in found.assumptions if "2205.10287" in text]
    assert "not derived here" in line
    with pytest.raises(InvalidInput, match="1 - beta1"):
        plan(flat, rows, "adamw", base, {"width": 16, "batch": 128}, TUNED)


def test_more_samples_and_a_larger_batch_together_are_the_number_of_steps() -> None:
    """arXiv 2512.22382, S steps: lr S^-1/2, decay S^-1/2, eps S^1/2, 1 - beta S^-1."""
    base = {"width": 16, "batch": 8, "samples": 1000}
    target = {"width": 16, "batch": 16, "samples": 8000}  # four times the steps
    x = plan(flat, rows, "adamw", base, target, TUNED).tensors["1.up.weight"]
    assert (x.lr, x.decays["decay"]) == (pytest.approx(3e-3 / 2), pytest.approx(0.1 / 2))
    assert x.dampings["eps"] == pytest.approx(2e-8)
    assert 1 - x.averages["beta2"] == pytest.approx(1e-3 / 4)


def test_other_rules_have_no_power_unless_one_is_given() -> None:
    from sympy import Rational

    base, target = {"width": 16, "batch": 8}, {"width": 16, "batch": 32}
    with pytest.raises(NotCovered, match="'muon' where the batch grows"):
        plan(flat, rows, "muon", base, target, {"lr": 0.02})
    powers = {"batch": {"lr": Rational(1, 2)}}
    found = plan(flat, rows, "muon", base, target, {"lr": 0.02}, powers=powers)
    assert all(x.lr == pytest.approx(0.04) for x in found.tensors.values())
    assert any("as given" in text for text in found.assumptions)


@pytest.mark.parametrize(
    ("rule", "family"),
    [
        ("ema(G, b1)/(sqrt(ema(G*G, b2)) + eps) + decay*W", "Adam"),
        ("debiased(G, b1)/sqrt(debiased(G*G, b2) + eps)", "Adam"),
        ("G/(sqrt(ema(G*G, b)) + eps)", "Adam"),
        ("atan(ema(G, b1)/sqrt(ema(G*G, b2)))", "Adam"),
        ("G", "SGD"),
        ("(1 - b)*G + b*ema(G, b) + decay*W", "SGD"),
        ("sign(G)", None),
        ("G*G/(sqrt(G*G) + eps)", None),
        ("G*W", "SGD"),
        ("orth(G)", None),
        ("G/(ema(G*G, b) + eps)", None),
        ("G/norm(G)", None),
    ],
)
def test_the_family_of_a_rule(rule: str, family: str | None) -> None:
    assert family_of(parse(rule)) == family


def test_a_damping_has_the_degree_of_what_it_is_added_to() -> None:
    """Gradient noise of size B^-1/2: eps in the root is a square of it."""
    inside = parse("G/sqrt(ema(G*G, b) + eps)")
    assert degree(inside, "eps") == 2
    assert degree(parse("G/(sqrt(ema(G*G, b)) + eps) + decay*W"), "eps") == 1
    torch.manual_seed(0)
    noise = torch.randn(4096, 64).double()
    sizes = [float(noise[:, :k].mean(1).square().mean()) for k in (4, 64)]  # v of a mean over k
    power = math.log(sizes[1] / sizes[0]) / math.log(16)
    assert abs(power - float(sourced_powers(inside, "batch").damping * 2)) < 0.05


# --- the command line ---------------------------------------------------------------------------

ARGUMENTS = ("--model", str(GPT), "--base", "width=32", "--at", "width=64")


def test_the_command_prints_and_saves_what_python_returns(typed: Typed, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    words = ("plan", "adamw", *ARGUMENTS, "--lr", "3e-3", "--eps", "1e-8", "--decay", "0.1")
    code, out, err = typed(*words, "--save", str(path), "--format", "json")
    assert code == 0, err
    mine = plan(gpt().build, gpt().batch, "adamw", {"width": 32}, {"width": 64}, TUNED)
    shown = json.loads(out)
    assert shown["tensors"] == json.loads(json.dumps(mine.as_json()))["tensors"]
    assert ModelPlan.load(path).tensors == mine.tensors
    code, out, _ = typed(*words)
    assert code == 0 and "0.001" in out and "change " in out and "assumed: " in out


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("plan", "adamw", *ARGUMENTS, "--lr", "x"), "--lr x"),
        (("plan", "adamw", *ARGUMENTS), "no lr for the group"),
        (("plan", "adamw", *ARGUMENTS, "--lr", "1", "--lr", "rest=2"), "2 numbers of --lr"),
        (("plan", "adamw", *ARGUMENTS[:3], "width", "--at", "width=64"), "--base width, with"),
        (("plan", "adamw", *ARGUMENTS[:3], "width=64", "--at", "width=32", "--lr", "1",
          "--eps", "1"), "larger than 32"),
        (("plan", "adamw", *ARGUMENTS, "--power", "batch=2"), "--power batch=2"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_refused_with_code_2(
    typed: Typed, words: tuple[str, ...], found: str
) -> None:
    code, out, err = typed(*words)
    assert code == 2 and found in err and "do this" in err and not out


def test_a_missing_number_is_asked_for_in_the_words_of_the_command_line(typed: Typed) -> None:
    """And what is offered, taken literally, is asked for no more; constants given stay."""
    words = ["plan", "rest: adamw with beta1=0.8", *ARGUMENTS]
    for symbol in ("lr", "eps"):
        code, _, err = typed(*words)
        offered = re.search(rf"or give it for all groups: (--{symbol} 0.001),", err)
        assert code == 2 and offered and f"with beta1=0.8, {symbol}=0.001'" in err
        words += offered[1].split()
    assert typed(*words)[0] == 0
