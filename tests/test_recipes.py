"""Recipes: groups of tensors, each with a rule; found on a model, derived and measured."""

import json
from pathlib import Path

import pytest
import torch
from sympy import Rational, S
from torch import nn
from typed import Typed

from derivations.recipes import in_practice, recipe_of
from empirical.trace.trained import trained
from scaling.models.architectures import mixture, perceptron, transformer
from scaling.models.recipe import Recipe, TensorGroup, TensorKind
from scaling.models.recipe_text import is_recipe, parse_recipe, read_recipe
from scaling.models.settings import Settings
from scaling.sizes.errors import InvalidInput, NotCovered, RuleError, ScalingError
from scaling.solve.graph_solution import derive_graph
from scaling.states.graph_passes import Passes
from scaling.states.tensor_kinds import tensor_kinds

GPT = str(Path(__file__).resolve().parent.parent / "docs" / "gpt.py")
TWO = "hidden: muon; rest: adamw"
FILE = """
name = "mine"
[[group]]
select = ["hidden", "*.proj.*"]
rule = "shampoo"
values = { e = "1/2", rho_L = 1e-4 }
[[group]]
rule = "adamw"
"""
HALF = Rational(1, 2)


def test_text_a_file_and_python_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(FILE)
    read = recipe_of(path)
    assert recipe_of(str(path)) == read and read.name == "mine"
    text = parse_recipe(
        "hidden, *.proj.*: shampoo with e=1/2, rho_L=0.0001; rest: adamw",
        lambda rule: recipe_of(rule).rules[0],
    )
    assert text.groups == read.groups
    first, last = read.groups
    made = Recipe(
        (
            TensorGroup(("hidden", "*.proj.*"), first.rule, {"rho_L": 1e-4}, {"e": HALF}),
            TensorGroup(("rest",), last.rule),
        )
    )
    assert made.groups == read.groups
    assert recipe_of(str(text)).groups == read.groups


def test_a_rule_with_named_parts_stands_in_a_recipe() -> None:
    found = recipe_of("hidden: P @ G where P = (B + rho*I)**(-1/2); rest: sgd")
    assert str(found.groups[0].rule) == "(B + rho*I)**(-1/2) @ G"
    assert not is_recipe("P @ G where P = B") and not is_recipe("G[1:2]")


def test_practice_fills_what_a_group_leaves_open() -> None:
    first, last = in_practice(recipe_of("hidden: shampoo with e=1; rest: adam")).groups
    assert (first.exponents, last.values) == ({"e": 1}, {"beta1": 0.9, "beta2": 0.999})


@pytest.mark.parametrize(
    ("text", "found", "do_this"),
    [
        ("hidden: muon; hidden: adamw", "'hidden' twice", "leave one"),
        ("rest: muon; hidden: adamw", "behind 'rest'", "put 'hidden: adamw' first"),
        ("hidden: muon with beta=1", "symbol of 'muon' 'beta'", "choose one"),
        ("hidden: adamw with beta=0.9; rest: sgd", "'beta'", "did you mean 'beta"),
        ("hidden: frozen with e=1; rest: sgd", "'e=1' of tensors that are frozen", "leave it out"),
        ("hidden: muon; adamw", "the part 'adamw'", "hidden: muon; rest: adamw"),
        ("hidden: mou; rest: adamw", "optimizer 'mou'", "did you mean"),
        ("hidden: G @ A @ B; rest: adamw", "in the group 'hidden'", "on the left: B @ (G @ A)"),
        ("gone.toml", "the recipe gone.toml, which cannot be read", "write one"),
    ],
)
def test_what_is_no_recipe_is_refused(text: str, found: str, do_this: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        recipe_of(text)
    assert found in refused.value.found and do_this in refused.value.do_this


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("group = 3", "no table [[group]]"),
        ("[[group]]\nselects = 'rest'\nrule = 'sgd'", "the key 'selects' of a group"),
        ("[[group]]\nselect = 'rest'", "the group {'select': 'rest'}"),
        ("[[group]\n", "which is no TOML"),
        ("other = 1\n[[group]]\nrule='sgd'", "the key 'other'"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as refused:
        read_recipe(path)
    assert (
        found in refused.value.found and "[[group]]" in str(refused.value) + refused.value.do_this
    )


KINDS = {
    "embed": TensorKind.EMBEDDING,
    "blocks.0.up": TensorKind.HIDDEN,
    "blocks.0.bias": TensorKind.BIAS,
    "head": TensorKind.READOUT,
}


@pytest.mark.parametrize(
    ("text", "found", "do_this"),
    [
        ("hidden: muon; bias: sgd; embed: sgd", "'head' (readout), which no group", "rest: adamw"),
        ("hiden: muon; rest: adamw", "'hiden', which is no kind", "did you mean 'hidden'"),
        ("*.qkv: muon; rest: adamw", "'*.qkv', which is no kind", "choose from embed (embedding)"),
        (
            "blocks.*: sgd; hidden: muon; rest: adamw",
            "'hidden: muon', whose tensors are all taken",
            "put 'hidden: muon' before 'blocks.*: sgd'",
        ),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(text: str, found: str, do_this: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        recipe_of(text).assigned(KINDS)
    assert found in refused.value.found and do_this in refused.value.do_this


def test_the_first_group_that_selects_a_tensor_has_it() -> None:
    groups = recipe_of("*.up: sgd; hidden, head: muon; gain: lion; rest: adamw")
    with pytest.raises(InvalidInput, match="taken by"):  # the only hidden matrix is *.up
        recipe_of("*.up: sgd; hidden: muon; rest: adamw").assigned(KINDS)
    found = {name: group.rule_name for name, group in groups.assigned(KINDS).items()}
    assert found == {
        "embed": "adamw", "blocks.0.up": "sgd", "blocks.0.bias": "adamw", "head": "muon",
    }  # fmt: skip
    assert groups.absent(KINDS) == ("gain",)


def test_kinds_follow_from_use_and_not_from_shape() -> None:
    """Packed, stored (in, out), experts, tied, added tables: what each contracts and leaves."""
    kinds = tensor_kinds(Passes(transformer("width", tied=True)))
    assert kinds["embedding"] is TensorKind.EMBEDDING  # looked up, and multiplied with as well
    assert kinds["positions"] is TensorKind.EMBEDDING
    experts = tensor_kinds(Passes(mixture("width")))
    assert (experts["router"], experts["up"]) == (TensorKind.READOUT, TensorKind.HIDDEN)
    gpt = trained(recipe_of(TWO), GPT).kinds
    assert {name for name, kind in gpt.items() if kind is TensorKind.HIDDEN} == {
        f"blocks.0.{x}.weight" for x in ("qkv", "out", "up", "down")
    }
    assert {str(gpt[x]) for x in ("tokens.weight", "places")} == {"embedding"}
    assert (gpt["head.weight"], gpt["norm.weight"], gpt["blocks.0.up.bias"]) == (
        TensorKind.READOUT, TensorKind.GAIN, TensorKind.BIAS,
    )  # fmt: skip


@pytest.mark.parametrize("axis", [None, "depth=2,4,8"])
def test_muon_and_adamw_give_each_tensor_what_its_own_rule_gives(axis: str | None) -> None:
    recipe = recipe_of(TWO)
    model = trained(recipe, GPT, axis)
    graph = model.lowered.graph
    both = derive_graph(recipe, graph, kinds=model.kinds)
    alone = {name: derive_graph(recipe_of(name), graph) for name in ("muon", "adamw")}
    kinds = {"muon": 0, "adamw": 0}
    for name, x in both.tensors.items():
        rule = "muon" if x.kind is TensorKind.HIDDEN else "adamw"
        one = alone[rule].tensors[name]
        assert (x.rule.name, x.b, x.c, dict(x.d)) == (rule, one.b, one.c, dict(one.d)), name
        kinds[rule] += 1
    assert kinds["muon"] == 4 and kinds["adamw"] > 8
    differ = [n for n in both.tensors if alone["muon"].tensors[n].c != alone["adamw"].tensors[n].c]
    assert differ or axis  # the two rules differ in the width, so that groups matter


CLIPPED = "G / sqrt(over_layers(norm(G)**2))"


def test_a_global_norm_runs_over_the_tensors_of_every_group() -> None:
    """The readout leads the norm; whoever trains it, the others are divided by it."""
    whole = derive_graph(CLIPPED, perceptron(3))
    grouped = derive_graph(recipe_of(f"readout: sign(G); rest: {CLIPPED}"), perceptron(3))
    still = derive_graph(recipe_of(f"readout: frozen; rest: {CLIPPED}"), perceptron(3))
    for name in ("input", "hidden"):
        assert grouped.tensors[name].c == whole.tensors[name].c
        assert still.tensors[name].c == whole.tensors[name].c + HALF
    assert any("all trained tensors" in x for x in grouped.assumptions)
    assert "output" not in still.tensors


def test_the_norm_that_is_divided_by_is_that_of_torch() -> None:
    """clip_grad_norm_ of all parameters grows as M^1/2 at b = (0, 1/2, 1), as the last test has."""
    norms, rest = [], []
    for width in (64, 1024):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(8, width, bias=False), nn.ReLU(), nn.Linear(width, width, bias=False),
            nn.ReLU(), nn.Linear(width, 4, bias=False),
        ).double()  # fmt: skip
        for layer, std in ((0, 8**-0.5), (2, width**-0.5), (4, 1 / width)):
            nn.init.normal_(model[layer].weight, std=std)
        x, y = torch.randn(16, 8).double(), torch.randn(16, 4).double()
        nn.functional.mse_loss(model(x), y).backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 1e9)))
        rest.append(float(nn.utils.clip_grad_norm_([model[0].weight, model[2].weight], 1e9)))
    exponents = [
        torch.log(torch.tensor(b / a)) / torch.log(torch.tensor(16.0)) for a, b in (norms, rest)
    ]
    assert abs(exponents[0] - 0.5) < 0.1 and abs(exponents[1]) < 0.1


def test_a_sum_of_what_a_rule_makes_runs_over_its_own_tensors() -> None:
    """K-FAC's norm constraint: what SGD trains has no K-FAC update to add."""
    constrained = "P / sqrt(over_layers(inner(P, G))) where P = (B + rho*I)**(-1) @ G"
    grouped = derive_graph(recipe_of(f"hidden: {constrained}; rest: G"), perceptron(3))
    assert any("the tensors of its group" in x for x in grouped.assumptions)
    with pytest.raises(InvalidInput, match="in one rule"):
        recipe_of(
            "hidden: G/sqrt(over_layers(norm(G)**2))/sqrt(over_layers(norm(G @ A)**2)); rest: G"
        )


def test_each_group_has_exponents_of_its_own_and_settings_overrule_them() -> None:
    recipe = recipe_of("hidden: shampoo with e=1; rest: shampoo with e=1/2")
    answer = derive_graph(recipe, perceptron(3))
    one = derive_graph("(L + rho*I)**(-1/2) @ G @ (R + rho*I)**(-1/2)", perceptron(3))
    half = derive_graph("(L + rho*I)**(-1/4) @ G @ (R + rho*I)**(-1/4)", perceptron(3))
    c = {name: x.c for name, x in answer.tensors.items()}
    assert c == {
        "input": half.tensors["input"].c,
        "hidden": one.tensors["hidden"].c,
        "output": half.tensors["output"].c,
    }
    assert one.tensors["input"].c != half.tensors["input"].c
    same = derive_graph(recipe, perceptron(3), Settings(exponents={"e": S.One}))
    assert same.tensors["input"].c == one.tensors["input"].c


def test_kinds_are_not_told_along_an_axis_where_matrices_do_not_grow() -> None:
    with pytest.raises(InvalidInput, match="along the depth, along which matrices may not grow"):
        derive_graph(recipe_of(TWO), transformer("depth", multiplier=-S.One))
    named = recipe_of("blocks.*: muon; rest: adamw")
    assert derive_graph(named, transformer("depth", multiplier=-S.One)).tensors
    kinds = tensor_kinds(Passes(transformer("width")))
    found = derive_graph(recipe_of(TWO), transformer("depth", multiplier=-S.One), kinds=kinds)
    assert found.tensors["blocks.up"].rule.name == "muon"
    assert found.tensors["embedding"].rule.name == "adamw"


def test_blocks_that_one_stands_for_are_trained_alike() -> None:
    uneven = recipe_of("blocks.1.*: sgd; rest: adamw")
    with pytest.raises(InvalidInput) as refused:
        trained(recipe_of("blocks.0.*: sgd; rest: adamw"), GPT, "depth=2,4,8")
    assert "where the number of blocks grows" in refused.value.found
    assert "blocks.*." in refused.value.do_this
    with pytest.raises(InvalidInput):
        trained(uneven, GPT, "depth=2,4,8")


def test_tensors_that_a_recipe_freezes_stay_in_the_model_that_is_run() -> None:
    recipe = recipe_of("embedding: frozen; *.norm.*, *.bias: sgd; rest: adamw")
    with pytest.raises(InvalidInput, match=r"'\*\.norm\.\*'"):
        trained(recipe, GPT)
    model = trained(recipe_of("embedding: frozen; *.bias: sgd; rest: adamw"), GPT)
    still = {
        n for n, p in model.file.build({"width": 64}).named_parameters() if not p.requires_grad
    }
    assert still == {"tokens.weight", "places"}
    answer = derive_graph(recipe_of("embedding: frozen; *.bias: sgd; rest: adamw"),
                          model.lowered.graph, kinds=model.kinds)  # fmt: skip
    assert not still & set(answer.tensors)
    deep = trained(recipe_of("*.up.*: frozen; rest: adamw"), GPT, "depth=2,4,8")
    own = dict(deep.file.build({"depth": 8}).named_parameters())
    assert sum(not p.requires_grad for p in own.values()) == 16


def test_where_the_number_of_layers_grows_a_global_norm_is_refused_in_any_group() -> None:
    recipe = recipe_of(f"blocks.*: muon; rest: {CLIPPED}")
    with pytest.raises(NotCovered, match="number of layers grows"):
        derive_graph(recipe, transformer("depth", multiplier=-S.One))


def test_every_verb_takes_a_recipe(typed: Typed, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('[[group]]\nselect = "hidden"\nrule = "muon"\n[[group]]\nrule = "adamw"\n')
    code, out, _ = typed("derive", str(path), "--model", GPT, "--format", "json")
    found = json.loads(out)
    assert code == 0 and found["recipe"] == TWO
    up, head = found["tensors"]["blocks.0.up.weight"], found["tensors"]["head.weight"]
    assert (up["rule"], up["group"], up["kind"], up["d"]) == ("orth(G)", "hidden", "hidden", {})
    assert set(head["d"]) == {"eps", "decay"} and head["group"] == "rest"
    code, out, _ = typed("derive", TWO, "--model", GPT)
    assert code == 0 and "muon: dW = orth(G)" in out and "group" in out
    code, out, _ = typed("explain", TWO, "--model", GPT, "--tensor", "blocks.0.up.weight")
    assert code == 0 and out.startswith("muon, blocks.0.up.weight: dW = orth(G)")
    code, out, _ = typed("predict", TWO, "--model", GPT, "--set", "c=0")
    assert code == 0 and "unstable" in out


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("derive", TWO), "the recipe 'hidden: muon; rest: adamw', where one rule"),
        (("derive", "hidden: muon", "--model", GPT), "which no group of 'hidden: muon' takes"),
        (
            ("derive", TWO, "--model", GPT, "--set", "d_eps_blocks.0.up.weight=1"),
            "damping or decay of 'hidden: muon'",
        ),
        (("derive", TWO, "--model", GPT, "--set", "d_esp=1"), "d_esp"),
    ],
)
def test_what_a_recipe_cannot_be_asked_is_refused(
    typed: Typed, words: tuple[str, ...], found: str
) -> None:
    code, _, err = typed(*words)
    assert code == 2 and found in err and "do this" in err


@pytest.mark.usefixtures("measured_once")
@pytest.mark.slow
def test_a_recipe_is_measured_and_a_planted_error_is_contradicted(typed: Typed) -> None:
    """Two rules and a norm over both, on tensors whose updates are exact: Muon's, and biases."""
    recipe = f"hidden: orth(G); rest: {CLIPPED}"
    words = ["verify", recipe, "--model", GPT, "--axis", "width=32:128", "--seeds", "3"]
    _, out, _ = typed(*words, "--format", "json")
    checks = {(c["name"], c["quantity"]): c for c in json.loads(out)["checks"]}
    assert not [c for c in checks.values() if c["verdict"] == "contradict"]
    assert checks["blocks.0.up.weight", "own"]["verdict"] == "agree"
    assert checks["tokens.weight", "own"]["verdict"] != "contradict"
    wrong, _, _ = typed(*words, "--expect", "own_blocks.0.up.weight=1")
    assert wrong == 1


def test_a_refusal_of_a_recipe_is_one_of_ours() -> None:
    for text in ("hidden:", ": muon", "hidden: muon with", ";;", "a: b: c"):
        with pytest.raises((ScalingError, RuleError)):
            recipe_of(text)


def test_packed_parts_are_said_and_kept_and_nonsense_is_refused(tmp_path: Path) -> None:
    text = "hidden: muon in 3 parts with lr=0.1; rest: sign(G)"
    recipe = recipe_of(text)
    assert [group.parts for group in recipe.groups] == [3, 1] and str(recipe) == text
    answer = derive_graph(recipe, perceptron(3))
    said = [x for x in answer.assumptions if x.startswith("3 matrices in each, along fan_out")]
    hidden = [name for name, x in answer.tensors.items() if x.kind is TensorKind.HIDDEN]
    assert len(said) == 1 and hidden and all(name in said[0] for name in hidden)
    one = derive_graph(recipe_of("hidden: muon with lr=0.1; rest: sign(G)"), perceptron(3))
    assert {n: x.c for n, x in one.tensors.items()} == {n: x.c for n, x in answer.tensors.items()}
    file = tmp_path / "packed.toml"
    file.write_text('[[group]]\nselect = "rest"\nrule = "muon"\nparts = 3\n')
    assert recipe_of(str(file)).groups[0].parts == 3
    with pytest.raises(InvalidInput, match=r"tensors in 'two' parts(.|\n)*in 3 parts"):
        recipe_of("rest: muon in two parts")
