"""A new function is two rows: a copy of the source with nothing else changed knows all of it.

Functions that do not exist, of several kinds: those whose row says their size (softsign, top), one
that is a formula of others (relu), and one of which the calculus knows nothing (median).
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scaling.rules.parser import parse
from scaling.sizes.errors import RuleError

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
COPIED = ("scaling", "empirical", "derivations", "docs", "tests")
ROWS = {
    "scaling/rules/operators.py": (
        "FUNCTIONS = _rows(\n",
        """
    _function("softsign(X)", "x/(1 + |x|) of each entry x of X", shapes.ENTRIES, "softsign(G)",
              _ENTRY, reading=OfEntries(_ONE, _ZERO, _ODD)),
    _function("relu(X)", "the larger of 0 and each entry of X", shapes.ENTRIES, "relu(G)",
              _ENTRY, Trait.POSITIVE, Trait.HOMOGENEOUS, reading=Formula("(x + abs(x))/2")),
    _function("median(X)", "the median of the absolute values of all entries",
              shapes.GRADIENT_LIKE, "median(G)", Trait.POSITIVE, Trait.HOMOGENEOUS,
              result=shapes.to_scalar),
    _function("top(x, y)", "the larger of two scalars, again", shapes.NUMBER, "top(1, norm(G))",
              _ENTRY, result=shapes.to_scalar, reading=Extreme(larger=True),
              second=SecondOperand.SCALAR),
""",
    ),
    "empirical/numbers/operators.py": (
        "MEANINGS: Mapping[str, Meaning] = MappingProxyType(\n    {\n",
        """
        "softsign": _of_entries(torch.nn.functional.softsign),
        "relu": _of_entries(torch.relu),
        "top": _of_entries(torch.maximum),
        "median": _of_values(lambda x: Entries(x.dense().abs().median())),
""",
    ),
}
ASKED = """
import json, torch
from test_wide_sample import own_of
from empirical.networks import MLP
from empirical.networks.stacked import covers
from empirical.numbers.interpreter import evaluate
from empirical.numbers.layer_matrices import LayerTensors
from empirical.wide.method import path_of
from scaling import derive, parse
from scaling.rules.language import G, relu
from scaling.sizes.errors import ScalingError
from scaling.solve.alternatives import decisive, regime_lines

def rates(text):
    return [str(c) for c in derive(parse(text)).exponents.c.values()]

def refusal(text):
    try:
        derive(parse(text))
    except ScalingError as error:
        return str(error)

def of(text, x):
    x = torch.tensor([x]).double()
    return evaluate(parse(text), LayerTensors(torch.eye(3).double(), 3*x, 0*x), {}).dense().tolist()

def wide(text):
    found, whole = own_of(text, (40, 30))
    return [found, float(whole.square().mean().sqrt())]

print(json.dumps({
    "text": str(parse("softsign(G) + relu(abs(G))")), "built": str(relu(G)),
    "rates": [rates("softsign(G/rms(G))"), rates("sign(G)")],
    "formula": [rates("G/mean(relu(G))"), rates("G/mean(abs(G))")],
    "inner": [rates("G/inner(softsign(G), G)"), rates("G/inner(G, G)")],
    "cancels": [rates("sign(G) + G*(mean(relu(2*G)) - 2*mean(relu(G)))"), rates("sign(G)")],
    "regimes": list(regime_lines(derive(parse("G*softsign(norm(W))")))),
    "decisive": [x.otherwise for x in decisive(derive(parse("G*softsign(norm(W))")))],
    "refused": [refusal("G/median(G)"), refusal("softsign(G @ G)"), refusal("softsgn(G)")],
    "literal": [rates("G/top(norm(G), 1e-12)"), rates("G/max(norm(G), 1e-12)")],
    "beside": covers(MLP(2, 4, 2), parse("G/top(norm(G), 1)")),
    "numbers": [of("softsign(G)", [1.0, -3.0, 0.0]), of("relu(G)", [1.0, -3.0, 0.0]),
                of("G/median(G)", [1.0, -4.0, 2.0])],
    "paths": [str(path_of(parse(x))) for x in ("softsign(G)", "G*relu(G)", "G/median(G)")],
    "wide": [wide("softsign(G/rms(G))"), wide("sign(G)*relu(abs(G) - rms(G))")],
}))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of the source, with some rows more in each of two files."""
    folder = tmp_path_factory.mktemp("two_rows")
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (place, rows) in ROWS.items():
        text = (folder / name).read_text(encoding="utf-8")
        assert text.count(place) == 1
        (folder / name).write_text(text.replace(place, place + rows.lstrip("\n")), encoding="utf-8")
    return folder


def run(copy: Path, *words: str) -> str:
    paths = os.pathsep.join(map(str, (copy, copy / "tests")))
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, *words], cwd=copy, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_language_the_theory_and_the_numbers_know_what_two_rows_say(copy: Path) -> None:
    found = json.loads(run(copy, "-c", ASKED))
    assert found["text"] == "softsign(G) + relu(abs(G))"
    assert found["built"] == "relu(G)"
    for same in ("rates", "formula", "cancels", "inner", "literal"):
        assert found[same][0] == found[same][1], same
    assert any(line.endswith("softsign is saturated there") for line in found["regimes"])
    assert any(text.startswith("below the bound") for text in found["decisive"])
    unknown, shape, misspelt = found["refused"]
    assert "the function median, in 'median(G)'" in unknown
    assert "write for example" in unknown
    assert "G @ G" in shape
    assert "softsign" in misspelt
    assert found["beside"]
    assert found["numbers"] == [[[0.5, -0.75, 0.0]], [[1.0, 0.0, 0.0]], [[0.5, -2.0, 1.0]]]
    assert found["paths"] == ["rows", "rows", "None"]
    for wide, whole in found["wide"]:
        assert wide == pytest.approx(whole, rel=1e-9)


def test_the_tests_of_rows_hold_the_new_ones_and_the_table_of_functions_has_them(
    copy: Path,
) -> None:
    run(copy, "docs/fill.py", "docs/language.md")
    page = (copy / "docs" / "language.md").read_text(encoding="utf-8")
    assert "| `softsign(X)` | x/(1 + \\|x\\|) of each entry x of X | `softsign(G)` |" in page
    chosen = "softsign or relu or median or top or lists or documentation or halves"
    tests = ("tests/test_operators.py", "tests/test_traits.py")
    told = run(
        copy, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", "-k", chosen, *tests
    )
    assert "passed" in told or "100%" in told


@pytest.mark.parametrize("text", ["softsign(G)", "relu(G)", "G/median(G)", "G/top(norm(G), 1)"])
def test_they_do_not_exist(text: str) -> None:
    with pytest.raises(RuleError, match="found: function"):
        parse(text)
