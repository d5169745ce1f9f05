"""`make gpu` at small size on the CPU: all of its parts, and the page, also when one is cut off."""

from __future__ import annotations

import gc
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from typed import exit_code

from empirical.verify.graph_verification import verify_graph

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folder of benchmarks, importable and the root of what is run."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.chdir(ROOT)
    yield
    gc.enable()


@pytest.mark.slow
@pytest.mark.usefixtures("benchmarks")
def test_all_parts_run_and_the_page_has_what_they_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_parts

    def here(words: Sequence[str], seconds: float, printed: Path, errors: Path) -> int:
        """In this process, which has imported all that they need; the tests in their own."""
        if words[:2] == ("-m", "pytest"):
            return gpu_parts.process(words, seconds, printed, errors)
        out, err = printed.open("w"), errors.open("w")
        with out, err, redirect_stdout(out), redirect_stderr(err):
            if words[:2] == ("-m", "scaling.cli"):
                return exit_code(tuple(words[2:]), monkeypatch)
            monkeypatch.setattr(sys, "argv", list(words))
            runpy.run_path(words[0], run_name="__main__")
        return 0

    (tmp_path / "machine.txt").write_text("Machine: one\n")
    page, chosen = tmp_path / "page.md", gpu_parts.parts("cpu", tmp_path, tiny=True)
    gpu_parts.run(chosen, tmp_path, page, here)
    text = page.read_text()
    codes = [(tmp_path / f"{i}.part").read_text().split("\t")[1] for i in range(1, 6)]
    assert codes[0] in "05" and codes[2] == codes[3] == "0", text  # 5: no test was chosen
    assert {codes[1], codes[4]} <= {"0", "1", "3"}, text  # a verdict on three tiny widths
    steps = [json.loads(line) for line in (tmp_path / "wide.jsonl").read_text().splitlines()]
    assert [(x["rule"], x["width"]) for x in steps] == [
        ("kfac", 2000), ("adam", 2000), ("kfac", 4000), ("adam", 4000)
    ]  # fmt: skip
    assert all(x["seconds"] > 0 and x["ratio"] > 0 for x in steps)
    for found in ("passed" if torch.cuda.is_available() else "skipped",
                  "| sgd | dense | hidden | own |", "| kfac | 2,000 | all |", "| 3a | ",
                  "| 0.weight |"):  # fmt: skip
        assert found in text, found
    whole = gpu_parts.parts("cuda", tmp_path, tiny=False)
    assert sum(part.seconds for part in whole) <= gpu_parts.TOTAL < 600
    for small, full in zip(chosen, whole, strict=True):
        assert small.words[:3] == full.words[:3] or small.words[0] == full.words[0]
        assert "cuda" in full.words


@pytest.mark.usefixtures("benchmarks")
def test_a_part_that_is_cut_off_leaves_what_it_found(tmp_path: Path) -> None:
    import gpu_page
    import gpu_parts

    (tmp_path / "machine.txt").write_text("Machine: one\n")
    slow = gpu_parts.Part(9, ("-c", "import time; print('found', flush=True); time.sleep(60)"))
    refused = gpu_parts.Part(9, ("-c", "import sys; sys.exit('found: x')"))
    page = tmp_path / "page.md"

    def quick(words: Sequence[str], seconds: float, *files: Path) -> int:
        assert 0 < seconds <= 9
        return int(gpu_parts.process(words, 1, *files))

    row = {"rule": "kfac", "width": 10**9, "quantity": "all", "skipped": "skipped: about 900 s"}
    (tmp_path / "wide.jsonl").write_text(json.dumps(row) + "\n")
    late = gpu_parts.Part(0, ("-c", "print('late')"))
    gpu_parts.run([slow, refused, late], tmp_path, page, quick)
    text = page.read_text()
    assert "cut off after 1 s, with what was found until then.\n\n`found`" in text
    assert "exit code 1" in text and text.count("Not reached yet.") == 2
    assert "no time was left" in text and "late" not in gpu_page.printed(tmp_path, 3)
    assert "| kfac | 1,000,000,000 | all | skipped: about 900 s |" in text


def test_without_a_gpu_the_run_is_refused(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    done = subprocess.run(
        ["bash", str(ROOT / "benchmarks" / "gpu.sh"), "--page", str(tmp_path / "page.md")],
        capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable}, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "torch sees no CUDA device" in done.stderr
    assert not (tmp_path / "page.md").exists()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_on_cuda_is_measured_as_on_the_cpu() -> None:
    here, there = (
        verify_graph("adamw", "docs/gpt.py", "width=16,24,32", seeds=[0], device=device)
        for device in ("cpu", "cuda")
    )
    for one, other in zip(here.checks, there.checks, strict=True):
        assert other.fit.slope == pytest.approx(one.fit.slope, rel=1e-6, abs=1e-6)
