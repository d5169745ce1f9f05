"""The chain as a graph has the answers of the chain: every rule of the catalogue, exactly."""

import pytest
import sympy

from derivations.catalogue import catalogue
from scaling.models.architectures import perceptron
from scaling.models.building import with_multipliers
from scaling.models.chain import Activation, Loss, Setting, mlp
from scaling.models.settings import Settings
from scaling.sizes.errors import NotCovered
from scaling.solve.conditions import STANDARD
from scaling.solve.derive import derive
from scaling.solve.graph_solution import derive_graph
from scaling.solve.presets import PARAMETRIZATIONS, parametrization
from scaling.solve.tensor_rates import tensor_rates, with_decays_after
from scaling.states.graph_passes import Passes
from scaling.states.problem import Problem

RULES = {name: entry.rule for name, entry in catalogue().items()}
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
