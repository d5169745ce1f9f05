"""Every refusal of the calculus offers a rule, and the rule that it offers is accepted."""

import gc
import re
from collections.abc import Iterator

import pytest
from surface import SETTINGS, UNCOVERED, Words
from typed import exit_code

OFFER = re.compile(r"do this: write for example (.*)$", re.MULTILINE)
OF_A_NODE = re.compile(r"found: .*, in '.*' of the \w+ layer$", re.MULTILINE)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.enable()  # `main` switches it off
    gc.collect()


LONG = "G" + " @ (A + rho*I)**(-1)" * 20 + " - abs(G)"


@pytest.mark.parametrize("words", [(LONG,), *((text,) for text in UNCOVERED), *SETTINGS])
def test_the_rule_that_a_refusal_offers_is_derived(
    words: Words, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exit_code(("derive", *words), monkeypatch) == 2
    refusal = capsys.readouterr().err
    if not OF_A_NODE.search(refusal):
        return  # of a setting: other tests hold what these advise
    offered = OFFER.search(refusal)
    assert offered, refusal
    assert exit_code(("derive", offered[1], *words[1:]), monkeypatch) == 0, offered[1]
    assert offered[1] != words[0]
