"""Theory against measurement on random rules, and text that no one would write."""

import random
import re
import string

import pytest
from fuzzing import Case, fuzz, outcome
from random_questions import drawn

from derivations.catalogue import catalogue
from scaling.models.chain import Activation
from scaling.rules.operators import FUNCTIONS
from scaling.rules.parser import parse
from scaling.sizes.errors import ScalingError


def test_random_rules_agree_or_are_refused() -> None:
    seen = fuzz(16)
    decided = seen["agree"] + seen["near"]
    assert decided > 3 * (seen["crossover"] + seen["inconclusive"]), seen  # the check has a subject
    assert seen["agree"] > 10 and decided > 24, seen


def test_a_wrong_theory_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    import fuzzing

    right = fuzzing.measured

    def wrong(trial: object) -> object:
        found = right(trial)  # type: ignore[arg-type]
        return {
            k: (widths, sizes * [w**0.5 for w in widths]) for k, (widths, sizes) in found.items()
        }

    monkeypatch.setattr(fuzzing, "measured", wrong)
    with pytest.raises(AssertionError, match="is predicted M"):
        outcome(Case("G @ (A + rho_r*I)**(-1)", (), Activation.TANH))


ALPHABET = [
    *string.ascii_letters, *string.digits, *"+-*/@().,_ \t\n'\"[]{}=<>:;#&|~^%$!\\\x00é∞",
    "**", "(", ")", "@", "G", "A", "rho", "**(-1/2)", *FUNCTIONS, *(f"{f}(" for f in FUNCTIONS),
]  # fmt: skip


def test_no_text_makes_the_parser_fail_in_words_of_its_own() -> None:
    draw = random.Random(0)
    rules = [o.update for o in catalogue().values()]
    read = refused = 0
    for _ in range(20_000):
        if draw.random() < 0.5:
            text = "".join(draw.choice(ALPHABET) for _ in range(draw.randint(1, 12)))
        else:
            old = draw.choice(rules)
            at, cut = draw.randrange(len(old)), draw.randint(0, 4)
            text = old[:at] + draw.choice(ALPHABET) + old[at + cut :]
        try:
            parse(text)
            read += 1
        except ScalingError as error:
            assert error.found and error.needed and error.do_this
            refused += 1
    assert min(read, refused) > 500


LATER = re.compile(r"running_max|yogi|spectral_map|project|previous|agree")


def test_functions_that_came_later_are_drawn_by_seeds_of_their_own() -> None:
    """Pairs that are recorded by name stay what they were."""
    early, late = ([drawn(f"{seed}/{i}").rule for i in range(40)] for seed in (3, 1000))
    assert not any(LATER.search(rule) for rule in early)
    assert sum(bool(LATER.search(rule)) for rule in late) > 5
