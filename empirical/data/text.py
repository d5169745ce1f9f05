"""Words and their neighbours: text as (ids of the context, id of the word in the middle).

A text is cut into lower-cased words; the most frequent ones are the vocabulary, in the order of
their frequency (alphabetical where that is equal), and all others are "<unk>", which has the id 0.
A window of radius r around a position gives 2 r ids of context and one target; windows do not cross
the ends of the text. The last part of a text is held out, so that no window there shares a word
occurrence with one that is trained on. Which windows are drawn depends on the seed alone.

    pydoc        the language reference that ships with Python, pydoc_data.topics: about 0.5 million
                 characters of English with some code and markup in it
    wikitext2    wiki.train.tokens and wiki.valid.tokens (held out) in a folder of the user's;
                 2,088,628 and 217,646 tokens with one end a line (Merity et al., arXiv 1609.07843)

Nothing is downloaded. Python's text differs a little between its versions: numbers that rest on it
are those of one version.

Not covered: sub-words, sentence boundaries, sampling windows by the frequency of their words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling.sizes.errors import InvalidInput, unknown

UNKNOWN = "<unk>"
HELD_OUT = 0.1
"""The share of a text that is held out where the source does not say which."""

NAMES = ("pydoc", "wikitext2")
"""Texts that ``load`` knows."""

WIKITEXT2 = {"wiki.train.tokens": 2_088_628, "wiki.valid.tokens": 217_646}
"""Published numbers of tokens, the ends of lines among them."""


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """Windows to train on and windows to probe with; ids are int64."""

    inputs: Tensor
    """(n, 2 * radius)"""
    targets: Tensor
    """(n,)"""
    probe_inputs: Tensor
    probe_targets: Tensor
    vocabulary: tuple[str, ...]
    """The word of every id."""
    name: str

    @property
    def samples(self) -> int:
        """Training windows, n."""
        return len(self.inputs)


def load(
    name: str = "pydoc",
    root: str | Path | None = None,
    vocabulary: int = 500,
    radius: int = 2,
    samples: int | None = 256,
    probe: int | None = 256,
    seed: int = 0,
) -> Words:
    """Windows of a text that is known by name; ``root`` is the folder that holds WikiText-2.

    ``vocabulary`` counts "<unk>". ``samples`` and ``probe`` are drawn without replacement; None
    takes all windows there are, in the order of the text.

    InvalidInput is raised on a name that is not known, a file that is missing or too short, and on
    what `given` refuses.

    >>> words = load("pydoc", vocabulary=100, samples=8)
    >>> words.inputs.shape, words.targets.shape, words.vocabulary[0]
    (torch.Size([8, 4]), torch.Size([8]), '<unk>')
    """
    if name not in NAMES:
        raise unknown("text", name, NAMES)
    if name == "pydoc":
        return given(_pydoc(), None, vocabulary, radius, samples, probe, seed, name)
    train, held_out = wikitext(root)
    return given(train, held_out, vocabulary, radius, samples, probe, seed, name)


def given(
    text: Sequence[str],
    held_out: Sequence[str] | None = None,
    vocabulary: int = 500,
    radius: int = 2,
    samples: int | None = 256,
    probe: int | None = 256,
    seed: int = 0,
    name: str = "given",
) -> Words:
    """Windows of a text of one's own, as a list of words; see `words_of`.

    ``held_out`` is where probe windows come from, the last tenth of the text if it is not given.

    InvalidInput is raised on a vocabulary below 2, a radius below 1, and more windows than there
    are.

    >>> rose = "a rose is a rose is a rose".split()
    >>> words = given(rose, vocabulary=4, radius=1, samples=None, probe=0)
    >>> words.vocabulary, words.inputs[0].tolist(), words.targets[0].item()
    (('<unk>', 'a', 'is', 'rose'), [1, 2], 3)
    """
    for what, size, least in (("vocabulary", vocabulary, 2), ("radius", radius, 1)):
        if size < least:
            raise InvalidInput(f"{what}={size}", f"at least {least}", f"pass {what}={least}")
    if held_out is None:
        cut = len(text) - round(HELD_OUT * len(text))
        text, held_out = text[:cut], text[cut:]
    known = vocabulary_of(text, vocabulary)
    number = {word: i for i, word in enumerate(known)}
    draw = np.random.default_rng(seed)
    found: list[tuple[Tensor, Tensor]] = []
    for part, count, what in ((text, samples, "samples"), (held_out, probe, "probe")):
        ids = np.array([number.get(word, 0) for word in part], dtype=np.int64)
        contexts, targets = _windows(ids, radius)
        if count is not None:
            if not 0 <= count <= len(targets):
                raise InvalidInput(
                    f"{what}={count}, and {len(targets)} windows of radius {radius} in {name}",
                    f"at least 0 and at most {len(targets)}",
                    f"pass {what}={min(256, len(targets))}, or None for all of them",
                )
            chosen = draw.permutation(len(targets))[:count]
            contexts, targets = contexts[chosen], targets[chosen]
        found.append((torch.from_numpy(contexts.copy()), torch.from_numpy(targets.copy())))
    (inputs, aims), (probe_inputs, probe_aims) = found
    return Words(inputs, aims, probe_inputs, probe_aims, known, name)


def words_of(text: str) -> list[str]:
    """Lower-cased runs of letters, with an apostrophe inside if there is one.

    >>> words_of("Don't compare 1 with '==' True.")
    ["don't", 'compare', 'with', 'true']
    """
    return re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", text.lower())


def vocabulary_of(words: Sequence[str], size: int) -> tuple[str, ...]:
    """The word "<unk>" and the ``size - 1`` most frequent ones; fewer if the text has fewer."""
    counts = Counter(words)
    counts.pop(UNKNOWN, None)
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return (UNKNOWN, *ordered[: size - 1])


def _windows(ids: NDArray[np.int64], radius: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every window that lies in the text: contexts (n, 2 radius), targets (n,)."""
    length = 2 * radius + 1
    if len(ids) < length:
        return np.zeros((0, 2 * radius), np.int64), np.zeros(0, np.int64)
    every = np.lib.stride_tricks.sliding_window_view(ids, length)
    return np.delete(every, radius, axis=1), every[:, radius]


def _pydoc() -> list[str]:
    from pydoc_data.topics import topics

    return [word for topic in sorted(topics) for word in words_of(topics[topic])]


def wikitext(root: str | Path | None) -> tuple[list[str], list[str]]:
    """The tokens of WikiText-2 to train on, and those held out, of a folder.

    Raises:
        InvalidInput: for files that are missing, damaged or too short.
    """
    train, held_out = (_tokens(root, file) for file in WIKITEXT2)
    return train, held_out


def _tokens(root: str | Path | None, file: str) -> list[str]:
    """The tokens of one file as they are, lower-cased; every line ends in "<eos>"."""
    wanted = f"a folder with {' and '.join(WIKITEXT2)} in it, one paragraph a line"
    fetch = (
        "get wikitext-2-v1 (Salesforce, https://huggingface.co/datasets/Salesforce/wikitext), "
        "unpack it, and pass the folder as root (--data-root on the command line)"
    )
    if root is None:
        raise InvalidInput("wikitext2 without a root", wanted, fetch)
    path = Path(root) / file
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InvalidInput(f"no file {path}", wanted, fetch) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}, which cannot be read ({error})", wanted, fetch) from error
    words = [word for line in text.split("\n") for word in (*line.lower().split(), "<eos>")]
    if len(words) < 0.99 * WIKITEXT2[file]:  # how line ends are counted differs a little
        raise InvalidInput(
            f"{path} with {len(words):,} tokens, a part of the {WIKITEXT2[file]:,} of WikiText-2",
            wanted,
            f"{fetch}; for a text of your own call empirical.data.text.given",
        )
    return words
