"""Windows of words: their ids, the vocabulary, what is held out, and files that are not whole."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from empirical.data import text
from empirical.data.text import given, load, vocabulary_of, words_of
from scaling.sizes.errors import InvalidInput

SENTENCE = words_of("the cat saw the dog and the dog saw a cat")


def test_windows_are_the_neighbours_of_every_word() -> None:
    words = given(SENTENCE, [], vocabulary=10, radius=2, samples=None, probe=None)
    back = [words.vocabulary[i] for i in words.targets]
    assert back == SENTENCE[2:-2]
    for middle, context in enumerate(words.inputs, start=2):
        around = SENTENCE[middle - 2 : middle] + SENTENCE[middle + 1 : middle + 3]
        assert [words.vocabulary[i] for i in context] == around
    assert words.probe_inputs.shape == (0, 4) and words.inputs.dtype == torch.int64


def test_rare_words_are_unknown_and_the_vocabulary_is_by_frequency() -> None:
    assert vocabulary_of(SENTENCE, 4) == ("<unk>", "the", "cat", "dog")
    assert vocabulary_of(["<unk>", "<unk>", "b"], 9) == ("<unk>", "b")
    words = given(SENTENCE, [], vocabulary=2, radius=1, samples=None, probe=0)
    assert [int(i) for i in words.targets] == [int(w == "the") for w in SENTENCE[1:-1]]


def test_held_out_windows_come_from_the_end_of_the_text() -> None:
    numbered = [f"w{i}" for i in range(200)]
    words = given(numbered, vocabulary=500, radius=1, samples=None, probe=None)
    assert len(words.targets) == 178 and len(words.probe_targets) == 18
    # Words of the end are not in the vocabulary, which is that of the training part.
    assert set(words.probe_targets.tolist()) == {0} and 0 not in words.targets.tolist()
    other = given(numbered, ["w3", "w4", "w5"], vocabulary=500, radius=1, probe=1, samples=5)
    assert other.vocabulary[int(other.probe_targets)] == "w4"


def test_the_seed_alone_decides_which_windows() -> None:
    first, again, other = load(samples=20), load(samples=20, probe=3), load(samples=20, seed=1)
    assert torch.equal(first.inputs, again.inputs) and torch.equal(first.targets, again.targets)
    assert torch.equal(load(samples=5).inputs, first.inputs[:5])
    assert not torch.equal(first.inputs, other.inputs)


def test_the_text_that_ships_is_english() -> None:
    words = load("pydoc", vocabulary=300, samples=None, probe=None)
    assert words.samples > 20_000 and len(words.probe_targets) > 2_000
    assert {"the", "of", "is", "and", "function"} < set(words.vocabulary[:100])
    counts = Counter(words.targets.tolist())
    assert counts[1] > counts[50] > counts[250] > 0
    assert int(words.inputs.max()) == 299


def wikitext(folder: Path, tokens: dict[str, int]) -> Path:
    for file, count in tokens.items():
        lines = [" = Title = ", *["the Cat <unk> sat"] * ((count - 4) // 5)]
        (folder / file).write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_wikitext_is_read_as_its_tokens_are(tmp_path: Path, monkeypatch: Any) -> None:
    small = {"wiki.train.tokens": 1000, "wiki.valid.tokens": 100}
    monkeypatch.setattr(text, "WIKITEXT2", small)
    words = load("wikitext2", wikitext(tmp_path, small), samples=None, probe=None, vocabulary=5)
    assert words.vocabulary == ("<unk>", "<eos>", "cat", "sat", "the")
    assert words.name == "wikitext2" and abs(words.samples - 996) < 6
    assert 80 < len(words.probe_targets) < 100
    (tmp_path / "wiki.valid.tokens").write_text("the cat")
    with pytest.raises(InvalidInput, match=r"wiki\.valid\.tokens with 3 tokens, a part of the 100"):
        load("wikitext2", tmp_path)


def test_a_truncated_file_is_named_with_what_it_should_hold(tmp_path: Path) -> None:
    wikitext(tmp_path, {"wiki.train.tokens": 500, "wiki.valid.tokens": 500})
    message = (
        r"found: .*wiki\.train\.tokens with \d+ tokens, a part of the 2,088,628 of WikiText-2\n"
        r"needed: a folder with wiki\.train\.tokens and wiki\.valid\.tokens.*\n"
        r"do this: get wikitext-2-v1 .*huggingface.*root .*; for a text of your own"
    )
    with pytest.raises(InvalidInput, match=message):
        load("wikitext2", tmp_path)


def test_files_that_are_missing_or_no_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"found: wikitext2 without a root\nneeded: a folder"):
        load("wikitext2")
    with pytest.raises(InvalidInput, match=r"found: no file .*wiki\.train\.tokens\n"):
        load("wikitext2", tmp_path / "absent")
    (tmp_path / "wiki.train.tokens").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match=r"wiki\.train\.tokens, which cannot be read"):
        load("wikitext2", tmp_path)


@pytest.mark.parametrize(("options", "message"), [
    ({"name": "wikitext"}, r"found: text 'wikitext'\n.*\ndo this: .*'wikitext2'"),
    ({"vocabulary": 1}, r"found: vocabulary=1\nneeded: at least 2"),
    ({"radius": 0}, r"found: radius=0\nneeded: at least 1"),
    ({"samples": 10**7}, r"found: samples=10000000, and \d+ windows of radius 2 in pydoc"),
    ({"probe": -1}, r"found: probe=-1"),
])  # fmt: skip
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        load(**options)
