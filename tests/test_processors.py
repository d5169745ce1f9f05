"""The numeric tests again, as another processor would run them.

torch, MKL and OpenBLAS choose their kernels by what a processor can do; these variables make them
choose as if it could do less. Sums are added up in another order then, and tests of numbers hold
all the same.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
OLDEST = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Prescott",
}
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2", "OPENBLAS_CORETYPE": "Haswell"}
FEW = ("numbers", "wide_sample")
NUMERIC = (
    *FEW, "bounded_damping", "network_norms", "networks", "rotation", "wide_implicit",
    "wide_joint", "wide_rows", "wide_strips", "wide_weights",
)  # fmt: skip
STATISTICS = (
    "law or rejects or forget or planted or moments or independent or exchangeable or pi_split"
    " or share_the_rows or calibrated or the_limit_knows or command_line or told_the_sum"
)
"""Tests of many networks, which hold in any order of summation if one holds."""


def python(setting: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **setting, "OMP_NUM_THREADS": "1"}
    environment.pop("BUDGET", None)
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def needs(setting: dict[str, str]) -> None:
    known = torch.backends.cpu.get_cpu_capability()
    if setting is AVX2 and known != "AVX512":
        pytest.skip(f"what runs anyway is {known}")
    if setting is OLDEST and known == "DEFAULT":
        pytest.skip("the processor has nothing to leave out")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "names"), [(OLDEST, NUMERIC), (AVX2, FEW[:1])], ids=["oldest", "AVX2"]
)
def test_numbers_hold_on_another_processor(setting: dict[str, str], names: tuple[str, ...]) -> None:
    needs(setting)
    files = [f"tests/test_{name}.py" for name in names]
    run = python(setting, "-m", "pytest", "-n", "0", "-k", f"not ({STATISTICS})", *files)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr


@pytest.mark.parametrize("setting", [OLDEST, AVX2], ids=["oldest", "AVX2"])
def test_the_settings_are_heard(setting: dict[str, str]) -> None:
    """Without this the tests above might run as they do anyway."""
    needs(setting)
    code = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    found = python(setting, "-c", code).stdout.strip()
    assert found == setting["ATEN_CPU_CAPABILITY"].upper()


def test_a_test_of_numbers_that_asks_for_bits_fails_there() -> None:
    """What this file is there to see: bits do depend on the processor, if not on all of them."""
    code = """
import torch
x = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
print((x @ x).sum(dim=0).square().sum().item().hex(), x.exp().sum().item().hex())
"""
    needs(OLDEST)
    assert len({python(setting, "-c", code).stdout for setting in ({}, OLDEST)}) == 2
