"""A recipe from text or from a TOML file.

    RECIPE = GROUP; GROUP; ...
    GROUP  = SELECTOR, SELECTOR, ...: RULE [in NUMBER parts] [with SYMBOL=NUMBER, ...]

A symbol is one of the rule, or ``lr``, the learning rate that was tuned for the group. ``in 3
parts`` reads each tensor as three matrices, one for each third of its fan_out: queries, keys and
values that are packed into one. Without it the tensor is one matrix.
``frozen`` in the place of a rule leaves tensors as they are. A rule is text of the rule language,
or a name that ``read`` knows. A file has the same in tables:

    [[group]]
    select = "hidden"                      # or a list of kinds and patterns
    rule = "muon_rms_decay"
    values = { decay = 0.1 }
    parts = 3                              # optional

    [[group]]
    select = "rest"
    rule = "adamw"

>>> print(parse_recipe("hidden: orth(G); *.bias: frozen; rest: G*rho with rho=0.5"))
hidden: orth(G); *.bias: frozen; rest: G*rho with rho=0.5
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from scaling.models.recipe import FROZEN, RATE, REST, Recipe, TensorGroup, as_recipe
from scaling.models.settings import positive, read_settings
from scaling.rules.parser import parse
from scaling.rules.rule import Rule
from scaling.sizes.errors import InvalidInput, RuleError, unknown

ReadRule = Callable[[str], Rule]
_SELECTOR = r"(?:[\w.*?-]|\[[^\]]*\])+"
_GROUP = re.compile(rf"\s*{_SELECTOR}(?:\s*,\s*{_SELECTOR})*\s*:")
_PARTS = re.compile(r"\s+in\s+(\S+)\s+parts$")
_WITH = re.compile(r"\s+with\s+(?=[A-Za-z_]\w*\s*=)")
EXAMPLE = "write for example 'hidden: muon; rest: adamw'"


def is_recipe(text: str) -> bool:
    """Whether text has groups, and is not one rule.

    >>> is_recipe("hidden: muon; rest: adamw"), is_recipe("orth(G)"), is_recipe("FILE.toml")
    (True, False, True)
    """
    return _GROUP.match(text) is not None or text.strip().endswith(".toml")


def parse_recipe(text: str, read: ReadRule = parse) -> Recipe:
    """A recipe from text; a rule alone is one of one group.

    Args:
        text: groups, as above, or the rule of all tensors.
        read: from the text of a rule to the rule.

    Raises:
        InvalidInput: for a part that is no group, an unknown kind, or a constant of no rule.
        RuleError: for text that is no rule.
    """
    if not is_recipe(text):
        return as_recipe(read(text))
    parts = [part.strip() for part in text.split(";")]
    return Recipe(tuple(_group(part, read) for part in parts if part))


def read_recipe(path: Path, read: ReadRule = parse) -> Recipe:
    """A recipe from a TOML file.

    Raises:
        InvalidInput: for a file that is not there, that is no TOML, or whose tables are no groups.
    """
    import tomllib  # costs the start of every command

    try:
        found = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"the recipe {path}, which cannot be read: {error}",
            "a TOML file with a table [[group]] for each group",
            "write one, or pass the recipe as text: 'hidden: muon; rest: adamw'",
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(
            f"the recipe {path}, which is no TOML: {error}", "TOML", f"mend it; {_table()}"
        ) from None
    tables = found.get("group", [])
    odd = [key for key in found if key not in ("group", "name")]
    if odd or not isinstance(tables, list) or not tables:
        raise InvalidInput(
            f"the key '{odd[0]}' in {path}" if odd else f"no table [[group]] in {path}",
            "a name, and a table [[group]] for each group",
            _table(),
        )
    name = found.get("name", path.stem)
    return Recipe(tuple(_table_group(path, x, read) for x in tables), str(name))


def _group(text: str, read: ReadRule) -> TensorGroup:
    selectors, colon, rest = text.partition(":")
    if not colon:
        raise InvalidInput(f"the part '{text}' of a recipe", "SELECTORS: RULE", EXAMPLE)
    rule, *constants = _WITH.split(rest.strip(), maxsplit=1)
    pairs = [pair for pair in ",".join(constants).split(",") if pair.strip()]
    packed = _PARTS.search(rule)
    parts = _parts(packed[1] if packed else "1")
    rule = _PARTS.sub("", rule)
    return _made([s.strip() for s in selectors.split(",") if s.strip()], rule, pairs, read, parts)


def _table_group(path: Path, table: Any, read: ReadRule) -> TensorGroup:
    known = ("select", "rule", "values", "parts")
    odd = [key for key in table if key not in known] if isinstance(table, dict) else ["group"]
    if odd:
        raise InvalidInput(
            f"the key '{odd[0]}' of a group in {path}", f"one of {', '.join(known)}", _table()
        )
    select, rule, values = table.get("select", REST), table.get("rule"), table.get("values", {})
    select = [select] if isinstance(select, str) else select
    if not isinstance(rule, str) or not isinstance(values, dict) or not _are_texts(select):
        raise InvalidInput(
            f"the group {table} in {path}", "select and rule as texts, values as a table", _table()
        )
    pairs = [f"{k}={v}" for k, v in values.items()]
    return _made(select, rule, pairs, read, _parts(str(table.get("parts", 1))))


def _parts(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise InvalidInput(
            f"tensors in '{text}' parts",
            "a whole number of matrices",
            "write for example in 3 parts",
        )
    return int(text)


def _made(
    selectors: Iterable[str], text: str, pairs: Iterable[str], read: ReadRule, parts: int
) -> TensorGroup:
    selectors = tuple(selectors)
    if text == FROZEN:
        for pair in pairs:
            raise InvalidInput(
                f"'{pair}' of tensors that are frozen", "no constants", "leave it out"
            )
        return TensorGroup(selectors, None)
    try:
        rule = read(text)
    except RuleError as error:
        found = f"in the group '{', '.join(selectors)}': {error.found}"
        raise RuleError(found, error.needed, error.do_this) from None
    symbols = (*rule.exponents, *rule.scaled, *rule.constants)
    known = {key.strip(): x.strip() for key, _, x in (pair.partition("=") for pair in pairs)}
    for key in known:
        if key not in (*symbols, RATE):
            raise unknown(f"symbol of '{rule.name or rule}'", key, (*symbols, RATE))
    rate = {RATE: positive(RATE, known.pop(RATE))} if RATE in known else {}
    given = read_settings([f"{key}={x}" for key, x in known.items()], rule, ())
    return TensorGroup(selectors, rule, {**rate, **given.values}, given.exponents, parts)


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(x, str) for x in values)


def _table() -> str:
    return 'write for example\n    [[group]]\n    select = "rest"\n    rule = "adamw"'
