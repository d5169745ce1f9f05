"""The second step in theory: what the first leaves open, what appears, and what is refused."""

from typing import Any

import pytest
from golden import TABLES, Golden, differences
from spread import spread
from sympy import Expr, Rational, S
from tour import kinds, tour

from derivations.catalogue import catalogue
from scaling.calculus.read import read
from scaling.calculus.values import Aligned, Vector
from scaling.cli.requests import literal_of, problem_of
from scaling.models.chain import Activation, Loss, Setting, mlp
from scaling.models.settings import read_settings
from scaling.rules.like_terms import collect
from scaling.rules.parser import parse
from scaling.sizes.errors import InvalidInput, NotCovered
from scaling.sizes.scale import Order, Size
from scaling.solve.derive import Derived, derive
from scaling.solve.predict import Prediction, predict
from scaling.solve.presets import ALIGNMENTS, PARAMETRIZATIONS, parametrization
from scaling.states.problem import Exponents, Problem, rate
from scaling.states.second_step import AfterStep, after_step
from scaling.states.start import at_start

HALF, oo = S.Half, S.Infinity
RELU, TANH = Activation.RELU, Activation.TANH
PLAIN = [t for t in TABLES if not t.given and t.rule in catalogue()]
ROTATED = [name for name, one in tour().items() if "eig(" in str(one.rule)]
UPHILL = [name for name, one in tour().items() if one.rule.ascents]


def solve(rule: str, *given: str, step: int = 2, **options: Any) -> Derived:
    known = catalogue()[rule].rule if rule in catalogue() else parse(rule)
    setting = Setting(mlp(options.pop("depth", 3), options.pop("biases", False)), **options)
    return derive(known, read_settings(given, known, setting.layers), setting, step=step)


def after(rule: str, b: tuple[Any, ...], c: tuple[Any, ...], **options: Any) -> Prediction:
    setting = Setting(mlp(len(b)), **options)
    names = [layer.name for layer in setting.layers]
    table = Exponents(
        dict.fromkeys(names, S.Zero),
        dict(zip(names, map(S, b), strict=True)),
        dict(zip(names, map(S, c), strict=True)),
        {name: {} for name in names},
    )
    return predict(Problem(parse(rule), setting, step=2), table)


def second(found: Derived) -> AfterStep:
    """The network after the first step of a derived rule."""
    problem, x = found.problem, found.exponents
    return after_step(at_start(problem, x.a, x.b, found.bounds), x.c, x.d)


# --- exponents ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "activation", "loss"),
    spread([k for k in kinds() if k not in ROTATED + UPHILL], [RELU, TANH], list(Loss)),
)
def test_what_is_maximal_at_the_first_step_is_at_the_second(
    rule: str, activation: Activation, loss: Loss
) -> None:
    one = solve(rule, step=1, activation=activation, loss=loss, biases=True)
    two = solve(rule, activation=activation, loss=loss, biases=True)
    assert two.exponents == one.exponents
    found = predict(two.problem, two.exponents, two.bounds)
    for name, layer in found.layers.items():
        assert (layer.own, layer.feature, layer.regime) == (0, 0, "maximal"), name


@pytest.mark.parametrize("rule", ROTATED)
def test_eigenbases_are_refused_at_the_second_step(rule: str) -> None:
    """A corner that held one step's directions does not hold those of an average of two."""
    with pytest.raises(NotCovered, match="eigenvectors at the second step"):
        solve(rule)


@pytest.mark.parametrize("rule", UPHILL)
def test_gradients_at_moved_weights_are_refused_at_the_second_step(rule: str) -> None:
    with pytest.raises(NotCovered, match=r"'ascended\(.*\)' at the second step"):
        solve(rule)


def test_decays_follow_the_rates_of_the_second_step() -> None:
    """A rate that the second step lowers, or opens, takes its decay along: lr x decay = 1."""
    for rule, given in (
        ("adamw", ()),
        ("adamw", ("b_output=oo",)),
        ("G + decay*W", ("b_output=oo",)),
    ):
        found = solve(rule, *given)
        assert found.free == ()
        for layer, c in found.exponents.c.items():
            assert found.exponents.d[layer]["decay"] == -c, layer
        assert all(x.order is Order.EQUAL for x in found.shrinkages)
    lowered = solve("G + fan_in*(debiased(G, 0.9) - G) + decay*W", "c_output=1")
    assert list(lowered.exponents.c.values()) == [-1, 1, 1]
    assert lowered.exponents.d["hidden"] == {"decay": -1}


def test_a_first_step_that_takes_all_of_the_weights_away_is_refused() -> None:
    with pytest.raises(NotCovered, match="step 2 after a first step that takes"):
        solve("G + decay*W", "d_decay_output=-3/2")


@pytest.mark.parametrize("table", PLAIN, ids=lambda t: t.id)
def test_a_readout_that_starts_at_zero_has_the_published_rates_from_the_second_step(
    table: Golden,
) -> None:
    """dW_L has entries of order 1/M, as a maximal readout has."""
    one, two = solve(table.rule, "b_output=oo", step=1), solve(table.rule, "b_output=oo")
    assert {"c_input", "c_hidden"} <= set(one.free)
    assert two.free == ()
    assert two.exponents.b["output"] is oo
    free = Golden(table.rule, table.reference, table.c, ("0", "1/2", ""), table.d)
    assert differences(free, two) == []
    for layer in ("input", "hidden", "output"):
        assert differences(free.perturbed("c", layer), two), layer
    deep = solve(table.rule, "b_output=oo", depth=5)
    assert deep.free == ()
    assert deep.exponents.c["hidden_1"] == deep.exponents.c["hidden_3"] == two.exponents.c["hidden"]


def test_a_rate_is_lowered_where_the_second_step_is_the_larger_one() -> None:
    """The added term is exactly zero at the first step and M times the gradient at the second."""
    rule = "G + fan_in*(debiased(G, 0.9) - G)"
    assert list(solve(rule, step=1).exponents.c.values()) == [-1, 0, 1]
    found = solve(rule, "c_output=1")
    assert list(found.exponents.c.values()) == [-1, 1, 1]
    at = predict(found.problem, found.exponents).layers
    assert (at["hidden"].own, at["output"].own) == (0, 1)
    assert list(solve(rule).exponents.c.values()) == [-1, 1, 2]  # the input layer still moves f
    with pytest.raises(NotCovered, match="which the first step moves by less than its own size"):
        solve(rule, "c_input=0")


@pytest.mark.parametrize(
    "rule",
    [
        "G @ (debiased(A, 0.9) - A + R)",
        "G + debiased(W, 0.9) - W",
        "G + G @ debiased(A, 0.9) - G @ A",
        "debiased(2*W, 0.9) - W - W + G",
    ],
)
def test_what_the_first_step_leaves_as_it_was_does_not_differ_by_its_own_size(rule: str) -> None:
    """The input is data, and dW_1 is smaller than W: no difference has the size of either."""
    with pytest.raises(NotCovered, match="which the first step moves by less than its own size"):
        solve(rule)


def test_weights_that_decay_differ_by_their_own_size() -> None:
    change = parse_part("debiased(norm(W), 0.9) - norm(W)")
    found = solve("G + decay*W")
    late = second(found).context(found.problem.setting.layer("hidden"), found.exponents.d["hidden"])
    value, _ = read(late, change)
    assert value.main.width == HALF  # that of W
    still = second(solve("G"))
    with pytest.raises(NotCovered, match=r"the difference of norm\(W\) between two steps"):
        read(still.context(found.problem.setting.layer("hidden"), {}), change)


def test_an_update_that_is_zero_at_the_first_step_has_a_rate_from_the_second() -> None:
    rule = "G + norm(debiased(G, 0.9) - G) / norm(G) * G"
    assert solve(rule).exponents.c == solve(rule, step=1).exponents.c


@pytest.mark.parametrize(
    ("b", "c", "own", "regimes"),
    [
        ((0, HALF, oo), (-1, 0, 1), (0, 0, 0), ("maximal",) * 3),
        ((0, HALF, oo), (-1, HALF, 1), (0, -HALF, 0), ("maximal", "sub-maximal", "maximal")),
        ((0, HALF, oo), (-1, -HALF, 1), (0, HALF, 0), ("maximal", "unstable", "unstable")),
        # a smaller readout rate sends a smaller cotangent back: it is all there is
        ((0, HALF, oo), (-1, 0, 2), (-1, -1, -1), ("frozen",) * 3),
        ((0, HALF, HALF), (0, 1, 1), (-HALF, -HALF, 0), ("lazy", "lazy", "maximal")),
        # a readout of M^(-2), and dW of 1/M: the aligned term is the larger one
        ((0, HALF, 2), (-1, 0, 1), (0, 0, 0), ("maximal",) * 3),
        ((0, HALF, 2), (-1, 0, 3), (-1, -1, -2), ("frozen",) * 3),
    ],
)  # fmt: skip
def test_the_second_step_of_gradient_descent_is_evaluated_as_it_is(
    b: tuple[Any, ...], c: tuple[Any, ...], own: tuple[Any, ...], regimes: tuple[str, ...]
) -> None:
    found = after("G", b, c).layers
    assert tuple(x.own for x in found.values()) == own
    assert tuple(str(x.regime) for x in found.values()) == regimes


# --- means over delta ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "first", "then"), [(RELU, -HALF, 0), (TANH, -HALF, -HALF)], ids=["relu", "tanh"]
)
def test_the_mean_of_delta_appears_at_the_second_step_if_h_has_one(
    activation: Activation, first: Expr, then: Expr
) -> None:
    found = second(solve("sgd", activation=activation, depth=4))
    for name in ("input", "hidden_1", "hidden_2"):
        before, now = found.before[name].context.sizes, found.sizes[name]
        assert before.mean_delta.width - before.delta.width == first
        assert now.mean_delta.width - now.delta.width == then, name
        assert now.delta == before.delta


@pytest.mark.parametrize("name", ["input", "hidden"])
@pytest.mark.parametrize(("activation", "psi"), [(RELU, 0), (TANH, -HALF)], ids=["relu", "tanh"])
def test_h_fac_has_rank_one_terms_at_the_second_step_only(
    name: str, activation: Activation, psi: Expr
) -> None:
    found = solve("h_fac", activation=activation)
    late = second(found)
    layer = found.problem.setting.layer(name)
    context = late.context(layer, found.exponents.d[name])
    for means, size in (("row_mean", activation), ("col_mean", psi)):
        momentum = f"debiased({means}(G), beta1) - {means}(G)"
        term = f"({momentum}) / sqrt(debiased({means}(G*G + eps), beta2))"
        node = parse(f"({term})*(0*G) + G").expression  # an update that holds the term
        node = next(x for x in node.walk() if str(x) == str(parse_part(term)))
        early, _ = read(late.before[name].context, node)
        value, _ = read(context, node)
        assert early.main.is_zero and isinstance(value, Vector)
        expected = size
        if means == "row_mean":  # h_0 is data and has a mean; h_1 under tanh has none
            expected = -HALF if (activation is TANH and name == "hidden") else S.Zero
        assert value.entry.width == expected, (means, value)


def parse_part(text: str) -> Any:
    """Text that is no update by itself."""
    from scaling.rules.parser import parse_formula

    return parse_formula(text)


def test_weights_at_the_second_step_are_what_was_and_what_was_added() -> None:
    found = solve("G + rms(W)*G", "b_output=oo")
    late = second(found)
    context = late.context(found.problem.setting.layer("output"), {})
    node = parse_part("rms(W)")
    assert read(late.before["output"].context, node)[0].main.is_zero
    assert read(context, node)[0].main.width == -1  # eta G


def test_an_average_of_two_steps_is_as_large_as_the_larger_one() -> None:
    found = solve("momentum", "b_output=oo")
    late = second(found)
    for name, first, entry in (("hidden", -oo, -1), ("output", 0, 0)):
        context = late.context(found.problem.setting.layer(name), {})
        node = parse_part("ema(G, 0.9)")
        early, value = (read(x, node)[0] for x in (late.before[name].context, context))
        assert isinstance(early, Aligned) and isinstance(value, Aligned)
        assert early.entry.is_zero if first == -oo else early.entry.width == first
        assert value.entry.width == entry
    assert rate(S.One).of is Size.SCALAR


# --- debiased averages cancel -------------------------------------------------------------------

CANCELS = [
    "debiased(G, 0.9) - G", "G - debiased(debiased(G, 0.9), 1/2)",
    "debiased(2*G + W, 0.9) - W - G - G", "sqrt(debiased(G*G, 0.9)) - sqrt(G*G)",
    "debiased(row_mean(G), 0.9) - row_mean(debiased(G, 0.8))",
]  # fmt: skip


@pytest.mark.parametrize("text", CANCELS)
def test_what_is_debiased_cancels_at_the_first_step_and_not_at_the_second(text: str) -> None:
    from scaling.rules.rewrites import at_first

    node = parse_part(text)
    assert collect(node, at_first) == []
    assert collect(node) != []
    other = parse_part(text.replace("debiased", "ema"))  # (1 - beta) of it, which does not cancel
    assert collect(other, at_first) != []


# --- refusals -----------------------------------------------------------------------------------


def test_a_step_beyond_what_is_analysed_is_refused_by_name() -> None:
    with pytest.raises(NotCovered, match=r"step 3(.|\n)*dW_2(.|\n)*scaling measure RULE --steps 3"):
        solve("sgd", step=3)
    with pytest.raises(InvalidInput, match="step 0"):
        solve("sgd", step=0)


UNSOUND = [
    ("G", (0, HALF, 1), (-1, -1, 1), "first step that moves h_2 by M\\^\\(1\\)"),
    ("G", (0, HALF, HALF), (0, 1, 0), "first step that moves f by M\\^\\(1\\)"),
    ("G + row_mean(G) + col_mean(G)", (0, HALF, 1), (-1, 0, 1), "common to all outputs"),
    ("G + debiased(row_mean(G), 1/2) - row_mean(G)", (0, HALF, 1), (0, 1, 2), "difference of row"),
    ("ema(B, 0.9)**(-1) @ G", (0, HALF, 1), (0, 1, 1), "new at the second step"),
    ("(diag(L) + fan_in**(-9)*I)**(-1/4) @ ema(G, 0.9)", (0, HALF, 1), (0, 1, 1), "not vanish"),
    ("G / abs(ema(G, 0.9))", (0, HALF, 1), (0, 1, 1), "vanishes where G does not"),
    ("ema(G, 0.9) / abs(G)", (0, HALF, 1), (0, 1, 1), "vanishes where G does not"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "b", "c", "why"), UNSOUND)
def test_what_is_unsound_at_the_second_step_is_refused(
    rule: str, b: tuple[Any, ...], c: tuple[Any, ...], why: str
) -> None:
    with pytest.raises(NotCovered, match=why):
        after(rule, b, c)


def test_a_given_alignment_says_nothing_of_the_second_step() -> None:
    with pytest.raises(NotCovered, match="step 2 under a given alignment"):
        solve("sgd", alignments={"hidden": ALIGNMENTS["full"]})


@pytest.mark.parametrize("rule", ["adam_atan2", "G / sqrt(ema(G*G, 0.9))"])
def test_a_quotient_that_is_bounded_by_its_average_is_covered(rule: str) -> None:
    assert solve(rule).exponents.c == solve(rule, step=1).exponents.c
    assert solve(rule).exponents.c["hidden"] == Rational(1)


@pytest.mark.parametrize("init", PARAMETRIZATIONS)
@pytest.mark.parametrize("rule", ["sgd", "momentum", "adam", "muon", "kfac"])
def test_with_multipliers_too_the_second_step_asks_for_the_rates_of_the_first(
    rule: str, init: str
) -> None:
    known, layers = catalogue()[rule].rule, mlp(4)
    settings = read_settings(parametrization(init, layers), known, layers)
    first, second = (derive(known, settings, Setting(layers), step=step) for step in (1, 2))
    assert second.exponents == first.exponents


def test_a_given_rate_leaves_open_what_it_left_open() -> None:
    late = "G / (norm(G - debiased(G, b)) + eps)"
    for layer, c in (("hidden", S.Zero), ("input", S.Zero), ("output", HALF)):
        assert solve(late, f"c_{layer}={c}").exponents.c[layer] == c


ADABELIEF = (
    "debiased(G, b1) / (sqrt(debiased((G - debiased(G, b1))*(G - debiased(G, b1)), b2)) + eps)"
)


def test_a_damping_that_only_the_second_step_fixes_is_known_at_the_first() -> None:
    """AdaBelief's deviation is zero at the first step, where eps alone divides the gradient."""
    first, both = solve(ADABELIEF, step=1), solve(ADABELIEF)
    assert set(first.free) == {f"d_eps_{name}" for name in ("input", "hidden", "output")}
    assert not both.free
    adam = solve("adam_debiased").exponents
    assert (both.exponents.c, both.exponents.d) == (adam.c, adam.d)
    assert both == solve(ADABELIEF) and both.problem.settings.d == {}
    given = [f"d_eps_{name}={d['eps']}" for name, d in adam.d.items()]
    assert solve(ADABELIEF, *given).exponents == both.exponents
    table = literal_of(problem_of(ADABELIEF, given, step=2))[0]
    assert table == both.exponents


@pytest.mark.parametrize("rule", ["G - G", "sign(debiased(G, b)) - sign(debiased(G, b))"])
def test_what_cancels_as_it_is_written_is_zero_at_every_step(rule: str) -> None:
    """No difference between two steps, which might be unknown."""
    for step in (1, 2):
        assert set(solve(rule, step=step).free) == {"c_input", "c_hidden", "c_output"}


@pytest.mark.parametrize(
    ("rule", "given", "phi", "step"),
    [
        ("row_mean(G) @ col_mean(abs(G))", (), TANH, 2),
        ("row_mean(G) @ col_mean(abs(G))", ("c_output=1",), TANH, 2),
        ("G + fan_in*(debiased(G, 0.9) - G)", (), RELU, 2),
        ("G + fan_in*(debiased(G, 0.9) - G)", ("c_hidden=3",), RELU, 2),
        ("sgd", ("b_output=oo",), RELU, 1),
        ("sgd", ("b_output=oo",), RELU, 2),
        ("G/norm(G) - ema(G, 0.5)/norm(ema(G, 0.5))", (), RELU, 1),
        ("kfac", (), RELU, 2),
        ("adamw", (), RELU, 2),
    ],
)
def test_a_derivation_ends_on_the_rate_of_the_table(
    rule: str, given: tuple[str, ...], phi: Activation, step: int
) -> None:
    found = solve(rule, *given, step=step, activation=phi)
    for name, line in found.steps.items():
        rates = [one for one in line.lines() if one.subject.startswith(f"c of {name}")]
        assert rates[-1].result == rate(found.exponents.c[name])
