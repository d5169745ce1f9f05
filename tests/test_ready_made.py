"""Ready-made recipes: each held against the first two steps of the library that runs it.

Those of torch, lion_pytorch, pytorch_optimizer and curvlinops run in every environment of the extra
`dev`. optax brings jax, soap and distributed_shampoo are repositories without a package: each is
held against the steps that it took when they were recorded, and where it is installed, against
itself. Dampings are given sizes that matter, so that an eps in another place shows.
"""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from library_runs import (
    RECORDS,
    Runs,
    Tensors,
    apart,
    held_against_record,
    ready,
    replayed,
    run,
    small_batch,
    small_model,
    with_values,
)
from torch import nn
from typed import Typed

from derivations.catalogue import catalogue
from derivations.ready_made import ready_made
from derivations.recipes import in_practice, recipe_of
from scaling.models.architectures import perceptron
from scaling.models.recipe import Recipe
from scaling.solve.graph_solution import derive_graph

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
RTOL = 1e-5
Made = Callable[[Tensors, float], list[Any]]
EPS = 1e-3
SOURCES = ("recorded", "library")
TORCH: dict[str, tuple[Recipe, Made]] = {
    "torch_muon": (
        ready("torch_muon", eps=EPS),
        lambda by, lr: [
            torch.optim.Muon(by["hidden"], lr=lr),
            torch.optim.AdamW(by["rest"], lr=lr, eps=EPS),
        ],
    ),
    "torch_muon_match_rms": (
        ready("torch_muon_match_rms", eps=EPS),
        lambda by, lr: [
            torch.optim.Muon(by["hidden"], lr=lr, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(by["rest"], lr=lr, eps=EPS),
        ],
    ),
    "torch_adam": (
        ready("torch_adam", eps=EPS),
        lambda by, lr: [torch.optim.Adam(by["rest"], lr=lr, eps=EPS)],
    ),
    "torch_adamw": (
        ready("torch_adamw", eps=EPS),
        lambda by, lr: [torch.optim.AdamW(by["rest"], lr=lr, eps=EPS)],
    ),
    "torch_adafactor": (
        ready("torch_adafactor", eps=0.25),
        lambda by, lr: [
            torch.optim.Adafactor(by["rest"], lr=lr, weight_decay=0.1, eps=(None, 0.25))
        ],
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_a_recipe_takes_the_steps_of_torch_and_with_a_planted_constant_others(name: str) -> None:
    recipe, made = TORCH[name]
    steps, _, lr = run(recipe, made, 0.01)
    assert apart(steps, recipe, lr) < RTOL
    for symbol in dict.fromkeys(k for group in recipe.groups for k in group.values):
        usual = next(g.values[symbol] for g in recipe.groups if symbol in g.values)
        planted = with_values(recipe, {symbol: 0.98 * usual})
        assert apart(steps, planted, lr) > 10 * RTOL, symbol


def test_constants_are_those_that_torch_has_by_itself() -> None:
    made: dict[str, Made] = {
        "torch_adam": lambda by, lr: [torch.optim.Adam(by["rest"], lr=lr)],
        "torch_adamw": lambda by, lr: [torch.optim.AdamW(by["rest"], lr=lr)],
        "torch_adafactor": lambda by, lr: [
            torch.optim.Adafactor(by["rest"], lr=lr, weight_decay=0.1)
        ],
    }
    for name, one in made.items():
        steps, _, lr = run(ready(name), one, 0.01)
        assert apart(steps, ready(name), lr) < RTOL


def test_the_factors_of_muon_are_told_apart() -> None:
    steps, _, lr = run(*TORCH["torch_muon"], 0.01)
    assert apart(steps, TORCH["torch_muon_match_rms"][0], lr) > 0.1


def test_lion_is_that_of_its_library() -> None:
    library = pytest.importorskip("lion_pytorch", reason="pip install lion-pytorch")
    steps, recipe, lr = run(
        ready("lion_pytorch"),
        lambda by, lr: [library.Lion(by["rest"], lr=lr, weight_decay=0.1)],
        0.5,
    )
    assert apart(steps, recipe, lr) < RTOL
    assert apart(steps, with_values(recipe, {"beta1": 0.3}), lr) > 0.1
    assert apart(steps, with_values(recipe, {"decay": 0.11}), lr) > 10 * RTOL


def optax_adam() -> Runs:
    """optax.scale_by_adam with eps inside of the root, where it is installed."""
    optax = pytest.importorskip("optax", reason="pip install optax")
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)

    class Optax:
        """The steps of a transformation, on tensors of torch."""

        def __init__(self, parameters: list[nn.Parameter], lr: float, change: Any) -> None:
            self.parameters, self.lr, self.change, self.state = parameters, lr, change, None

        def step(self) -> None:
            gradients = [jax.numpy.asarray(p.grad.numpy()) for p in self.parameters]
            if self.state is None:
                self.state = self.change.init(gradients)
            updates, self.state = self.change.update(gradients, self.state)
            for p, update in zip(self.parameters, updates, strict=True):
                p.data.add_(torch.tensor(jax.device_get(update)), alpha=-self.lr)

    change = optax.scale_by_adam(eps=0, eps_root=1e-5)
    made: Runs = lambda by, lr: [Optax(by["rest"], lr, change)]  # noqa: E731
    return held_against_record("optax", made, f"optax {optax.__version__}")


@pytest.mark.parametrize("source", SOURCES)
def test_adam_with_eps_inside_the_root_is_that_of_its_library(source: str) -> None:
    made = replayed("optax") if source == "recorded" else optax_adam()
    steps, recipe, lr = run(ready("adam_eps_inside", eps=1e-5), made, 0.01)
    assert apart(steps, recipe, lr) < RTOL
    assert apart(steps, ready("torch_adam", eps=1e-5), lr) > 10 * RTOL


def test_lamb_is_that_of_its_library() -> None:
    library = pytest.importorskip("pytorch_optimizer", reason="pip install pytorch_optimizer")
    steps, recipe, lr = run(
        ready("lamb_clamped", eps=EPS),
        lambda by, lr: [library.Lamb(by["rest"], lr=lr, eps=EPS)],
        0.01,
    )
    assert apart(steps, recipe, lr) < RTOL
    assert apart(steps, recipe_of("rest: lamb with beta1=0.9, beta2=0.999, eps=0.001"), lr) > 1


def own_soap() -> Runs:
    """SOAP of its own repository, where it can be imported."""
    library = pytest.importorskip("soap", reason="soap.py of github.com/nikhilvyas/SOAP")

    def made(by: Tensors, lr: float) -> list[Any]:
        return [library.SOAP([*by["bias, gain"], *by["rest"]], lr=lr, eps=EPS,
                             precondition_frequency=1)]  # fmt: skip

    return held_against_record("soap", made, "github.com/nikhilvyas/SOAP at a1e5535")


@pytest.mark.parametrize("source", SOURCES)
def test_soap_is_that_of_its_own_code_where_two_steps_have_one_gradient(source: str) -> None:
    """The second step has the eigenbases of the first; its eps is over sqrt(1 - beta2)."""
    made = replayed("soap") if source == "recorded" else own_soap()
    recipe = ready("soap_as_run", eps=EPS / 0.05**0.5)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        steps, _, lr = run(recipe, made, 1e-6, held=True)
    finally:
        torch.set_default_dtype(usual)
    assert not any(bool(x.any()) for x in steps[0].moved.values())
    assert apart(steps[1:], recipe, lr) < RTOL
    assert apart(steps[1:], ready("soap_as_run", eps=EPS), lr) > 10 * RTOL


def own_shampoo(norm_of: str) -> Runs:
    """DistributedShampoo of its own repository, where it can be imported."""
    library = pytest.importorskip(
        "distributed_shampoo", reason="github.com/facebookresearch/optimizers"
    )
    grafting = {
        "sgd": library.SGDPreconditionerConfig(),
        "adam": library.AdamPreconditionerConfig(beta2=0.9, epsilon=EPS),
    }[norm_of]
    whole = library.SingleDeviceDistributedConfig(target_parameter_dimensionality=2)
    roots = library.RootInvShampooPreconditionerConfig(factor_matrix_dtype=torch.float64)

    def made(by: Tensors, lr: float) -> list[Any]:
        return [
            library.DistributedShampoo(
                [*by["bias, gain"], *by["rest"]], lr=lr, betas=(0.9, 0.9), epsilon=1e-4,
                weight_decay=0.01, grafting_config=grafting, distributed_config=whole,
                preconditioner_config=roots,
            )
        ]  # fmt: skip

    version = "github.com/facebookresearch/optimizers at f606606"
    return held_against_record(f"distributed_shampoo_{norm_of}", made, version)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("norm_of", ["sgd", "adam"])
def test_distributed_shampoo_is_that_of_its_own_code(norm_of: str, source: str) -> None:
    """Its 1 - beta2^t is float32, which has five digits of 1 - 0.999: so beta2 = 0.9 here."""
    name = f"distributed_shampoo_{norm_of}"
    made = replayed(name) if source == "recorded" else own_shampoo(norm_of)
    given = {"beta2": 0.9, "rho": 1e-4, "eps": EPS}
    recipe = ready(name, **given)
    steps, _, lr = run(recipe, made, 0.01)
    assert apart(steps, recipe, lr) < RTOL
    other = {"sgd": "adam", "adam": "sgd"}[norm_of]
    assert apart(steps, ready(f"distributed_shampoo_{other}", **given), lr) > 0.1
    assert apart(steps, with_values(recipe, {"rho": 1e-3}), lr) > 10 * RTOL


def test_no_ready_made_recipe_is_without_its_library_or_its_record() -> None:
    """The extra `dev` installs the libraries, or their steps are recorded."""
    extras = tomllib.loads(PROJECT.read_text("utf-8"))["project"]["optional-dependencies"]
    assert any("recipes" in x for x in extras["dev"] if x.startswith("scaling["))
    installed = {x.partition(">")[0].replace("-", "_") for x in extras["recipes"]} | {"torch"}
    recorded = " ".join(json.loads(x.read_text())["library"] for x in RECORDS.glob("*.json"))
    for name, one in ready_made().items():
        package = one.package.replace("-", "_")
        assert package in installed or one.package in recorded, name


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("kfac_pi_split", {"damping": 1e-3, "use_heuristic_damping": True}),
        ("kfac_two_dampings", {"damping": (1e-2, 1e-3)}),
    ],
)
def test_kfac_is_that_of_its_library(name: str, options: dict[str, Any]) -> None:
    library = pytest.importorskip("curvlinops", reason="pip install curvlinops-for-pytorch")
    model = small_model(biases=False)

    class Natural:
        """One step along the inverse of the Fisher matrix of the batch."""

        def __init__(self, lr: float) -> None:
            self.lr = lr

        def step(self) -> None:
            parameters = list(model.parameters())
            gradients = [p.grad.clone() for p in parameters if p.grad is not None]
            factors = library.KFACLinearOperator(
                model, nn.CrossEntropyLoss(), parameters, [small_batch()],
                fisher_type="empirical", check_deterministic=False,
            )  # fmt: skip
            inverse = library.KFACInverseLinearOperator(factors, **options)
            for p, update in zip(parameters, inverse @ gradients, strict=True):
                p.data.add_(update, alpha=-self.lr)

    recipe = ready(name, rho=1e-3, rho_A=1e-2, rho_B=1e-3)
    steps, _, lr = run(recipe, lambda by, lr: [Natural(lr)], 1e-4, biases=False, model=model)
    assert apart(steps, recipe, lr) < RTOL
    planted = ready(name, rho=1.1e-3, rho_A=1e-2, rho_B=1.1e-3)
    assert apart(steps, planted, lr) > 10 * RTOL


@pytest.mark.parametrize("name", ready_made())
def test_every_recipe_is_derived(name: str) -> None:
    answer = derive_graph(recipe_of(name), perceptron(biases=False))
    assert all(x.c.is_number for x in answer.tensors.values())
    assert recipe_of(name).name == name and not in_practice(recipe_of(name)).absent({})[2:]


def test_recipes_are_listed_and_shown(typed: Typed) -> None:
    code, out, _ = typed("list", "--recipes")
    assert code == 0 and all(name in out for name in ready_made())
    code, out, _ = typed("list", "torch_muon")
    assert code == 0 and "newton_schulz" in out and "bfloat16" in out and "decay=0.01" in out
    assert typed("derive", "torch_adafactor")[0] == 0
    code, _, err = typed("derive", "torch_muon")
    assert code == 2 and "the recipe 'torch_muon'" in err and "--model" in err
    code, _, err = typed("list", "torch_moun", "--recipes")
    assert code == 2 and "did you mean 'torch_muon'?" in err


def test_no_ready_made_recipe_has_the_name_of_a_declaration() -> None:
    assert not set(ready_made()) & set(catalogue())
