"""The chain as a graph has the answers of the chain: every rule of the catalogue, exactly."""

import pytest
import sympy
from sympy import Expr, Rational, S
from tour import tour

from derivations.catalogue import catalogue
from scaling.models.architectures import perceptron
from scaling.models.building import with_multipliers
from scaling.models.chain import Activation, Loss, Setting, mlp
from scaling.models.settings import Settings
from scaling.sizes.errors import NotCovered
from scaling.solve.conditions import STANDARD
from scaling.solve.derive import derive
from scaling.solve.graph_solution import derive_graph
from scaling.solve.initialisation import initialisation
from scaling.solve.presets import PARAMETRIZATIONS, parametrization
from scaling.solve.tensor_rates import tensor_rates, with_decays_after
from scaling.states.graph_passes import Passes
from scaling.states.problem import Problem
from scaling.states.tensor_uses import tensor_sizes

HALF = Rational(1, 2)
LATER = ("aggmo",)  # divides by 1 - beta, which is positive
RULES = {name: entry.rule for name, entry in tour().items()}
RULES |= {name: catalogue()[name].rule for name in LATER}
ON_CHAINS_ALONE = {name for name, rule in RULES.items() if rule.ascents}
LOSSES = {Loss.MSE: "mean_squared_error", Loss.CROSS_ENTROPY: "cross_entropy"}


def check(name: str, depth: int, biases: bool, activation: Activation, loss: Loss) -> None:
    rule = RULES[name]
    chain = derive(rule, setting=Setting(mlp(depth, biases), activation, loss)).exponents
    graph = derive_graph(rule, perceptron(depth, biases, activation.label, LOSSES[loss]))
    assert list(graph.tensors) and set(graph.tensors) == set(chain.c)
    for layer, x in graph.tensors.items():
        assert x.b == chain.b[layer], layer
        for state in (x.start, x.moved):
            assert state.c is not None, layer
            assert sympy.expand(state.c - chain.c[layer]) == 0, (layer, state.c, chain.c[layer])
            assert state.d.keys() == chain.d[layer].keys()
            for symbol, value in state.d.items():
                assert sympy.expand(value - chain.d[layer][symbol]) == 0, (layer, symbol)
    assert not graph.changes


@pytest.mark.parametrize("name", sorted(RULES.keys() - ON_CHAINS_ALONE))
def test_a_rule_of_the_catalogue_has_one_answer(name: str) -> None:
    check(name, 3, True, Activation.RELU, Loss.MSE)


@pytest.mark.parametrize("name", ["kfac", "adam", "muon", "soap", "lars", "adafactor"])
@pytest.mark.parametrize("activation", [Activation.TANH, Activation.LINEAR])
def test_depth_activation_and_loss_change_both_alike(name: str, activation: Activation) -> None:
    check(name, 4, False, activation, Loss.CROSS_ENTROPY)
    check(name, 2, True, activation, Loss.CROSS_ENTROPY)


def check_first_step(name: str, given: Settings) -> None:
    """The start alone, as `derive` reads it: its dampings are balanced there."""
    chain = derive(RULES[name], given).exponents
    problem = Problem(RULES[name], settings=given)
    start = Passes(with_multipliers(perceptron(), given.a), given.b)
    problems = dict.fromkeys(start.parameters, problem)
    for layer, x in tensor_rates(problems, STANDARD, start, problem.bounds()).items():
        assert x.c is not None
        assert sympy.expand(x.c - chain.c[layer]) == 0, (layer, x.c, chain.c[layer])
        for symbol, value in with_decays_after(problem, STANDARD, x, x.c).d.items():
            assert sympy.expand(value - chain.d[layer][symbol]) == 0, (layer, symbol)


@pytest.mark.parametrize("name", ["kfac", "adam", "shampoo", "sgd", "adamw"])
@pytest.mark.parametrize("b", ["1/2", "3/4", "3/2", "2"])
def test_a_given_start_of_the_readout_changes_both_alike(name: str, b: str) -> None:
    check_first_step(name, Settings(b={"output": sympy.Rational(b)}))


@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("activation", [Activation.RELU, Activation.TANH, Activation.LINEAR])
@pytest.mark.parametrize("loss", Loss)
@pytest.mark.parametrize("b", [None, HALF, Rational(3, 2)])
def test_sizes_at_the_start_are_those_of_the_chain(
    depth: int, activation: Activation, loss: Loss, b: Expr | None
) -> None:
    """One forward and one backward pass: start.py is the closed form of both on dense layers."""
    given = Settings(b={} if b is None else {"output": b})
    problem = Problem(RULES["sgd"], Setting(mlp(depth, True), activation, loss), given)
    chain, _, _ = initialisation(problem, STANDARD)
    network = perceptron(depth, True, activation.label, LOSSES[loss])
    graph = tensor_sizes(Passes(network, given.b))
    assert graph.keys() == chain.sizes.keys()
    for layer, x in chain.sizes.items():
        y = graph[layer]
        assert (y.h, y.delta, y.w) == (x.h, x.delta, x.w), layer
        assert (y.mean_h, y.mean_delta) == (x.mean_h, x.mean_delta), layer


@pytest.mark.parametrize("name", ["sgd", "adam", "kfac", "shampoo", "muon", "adafactor_relative"])
@pytest.mark.parametrize("b", [S.One, S.Infinity])
def test_the_moved_state_has_the_second_step_of_the_chain(name: str, b: Expr) -> None:
    """With a readout that starts at zero the first step leaves all rates below it open."""
    given = Settings(b={"output": b})
    chain = derive(RULES[name], given, step=2).exponents
    for layer, x in derive_graph(RULES[name], perceptron(), given).tensors.items():
        assert sympy.expand(x.c - chain.c[layer]) == 0, (layer, x.c, chain.c[layer])
        if not chain.c[layer].has(sympy.Symbol(f"c_{layer}")):
            for symbol, value in x.d.items():
                assert sympy.expand(value - chain.d[layer][symbol]) == 0, (layer, symbol)


@pytest.mark.parametrize("name", sorted(ON_CHAINS_ALONE))
def test_gradients_at_moved_weights_are_refused_on_graphs(name: str) -> None:
    with pytest.raises(NotCovered, match="ascended"):
        derive_graph(RULES[name], perceptron())


@pytest.mark.parametrize("name", ["sgd", "adam", "kfac", "shampoo", "adafactor", "muon"])
@pytest.mark.parametrize("preset", sorted(PARAMETRIZATIONS))
def test_parametrizations_by_name_have_one_answer(name: str, preset: str) -> None:
    """arXiv 2407.05872: multipliers are factors of the code, and starts are given."""
    texts = dict(text.split("=") for text in parametrization(preset, mlp(3)))
    a, b = (
        {k[2:]: sympy.Rational(v) for k, v in texts.items() if k[0] == letter} for letter in "ab"
    )
    check_first_step(name, Settings(a=a, b=b))
