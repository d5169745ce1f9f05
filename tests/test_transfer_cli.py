"""`scaling transfer`: loss against rate at growing sizes, under the plan and as the user has it."""

from pathlib import Path

import pytest
import torch

from empirical.trace.model_file import read_model
from scaling.sizes.errors import InvalidInput

MLP = """
import torch
from torch import nn


def build(width=8):
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4))


def batch(seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 8, generator=draw)
    return x, x[:, :4] * x[:, 4:]
"""
ADAM = """

def optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=0.01)
"""


def written(folder: Path, text: str = MLP + ADAM) -> Path:
    path = folder / "model.py"
    path.write_text(text)
    return path


# --- the file -----------------------------------------------------------------------------------


def test_a_file_may_have_its_optimizer_and_fresh_batches(tmp_path: Path) -> None:
    file = read_model(str(written(tmp_path)))
    model = file.build({})
    (own,) = file.optimizers(model)
    assert isinstance(own, torch.optim.Adam) and file.draws
    (x,), _ = file.batch({})
    (same,), _ = file.batch({"seed": 0})
    (other,), _ = file.batch({"seed": 1})
    assert torch.equal(x, same) and not torch.equal(x, other)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("return 3", "returns a int"),
        ("return []", "returns a list"),
        ("return nobody", "raises NameError"),
    ],
)
def test_what_is_no_optimizer_is_refused(tmp_path: Path, body: str, found: str) -> None:
    file = read_model(str(written(tmp_path, f"{MLP}\ndef optimizer(model):\n    {body}\n")))
    with pytest.raises(InvalidInput, match=found):
        file.optimizers(file.build({}))


def test_a_seed_is_no_axis(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="axis 'seed'"):
        read_model(str(written(tmp_path))).axis("seed=1,2,3")
