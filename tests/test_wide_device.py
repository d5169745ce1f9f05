"""Networks on a device: all is on it that is as long as a side, and the numbers are the same.

`elsewhere` stands in for a GPU where there is none: it refuses what a GPU refuses, and its
arithmetic is the CPU's. Tests marked cuda ask a GPU the same.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from elsewhere import Elsewhere, elsewhere
from wide_trials import trial

from empirical.data.sources import load
from empirical.measure.calibration import calibrate
from empirical.measure.measurement import Quantity, measure
from empirical.measure.training import dense_network
from empirical.measure.trial import Constants, Trial
from empirical.verify.campaign import Mode, RunRequest, plan
from empirical.wide import Streaming, measure_wide, usual_memory
from empirical.wide.method import refuse_unless_wide
from empirical.wide.noise import ROWS, Bits
from scaling.cli.requests import problem_with, subject_of
from scaling.sizes.errors import InvalidInput

ALL, OWN = Quantity.ALL, Quantity.OWN
WAYS = [
    ("kfac", ROWS + 17, 1, ALL),  # by Gram matrices, in two chunks
    ("soap", 500, 2, ALL),  # with columns in an eigenbasis
    ("adam", 200, 2, ALL),  # entry by entry, with averages
    ("shampoo_blocked", 200, 1, ALL),  # blocks
    ("adafactor", 3000, 1, OWN),  # a sample of rows, with sums over them
    ("sam", 200, 1, ALL),  # moved weights
    ("lamb", 200, 1, ALL),  # norms of weights
]
"""One rule for every way that there is."""


def sizes(
    t: Trial, constants: Constants, width: int, steps: int, quantity: Quantity, **options: Any
) -> dict[str, float]:
    """All that is measured of one network."""
    streaming = Streaming(chunk=ROWS, **options)
    found = measure_wide(t, constants, width, 5, steps, streaming, quantity)
    shown = {
        f"{q} {name}": getattr(x, q)
        for name, x in found.sizes.items()
        for q in ("init", "own", "feature")
    }
    return {name: x for name, x in shown.items() if x is not None}


@pytest.mark.parametrize(
    "device",
    [
        "elsewhere",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.cuda,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
    ],
)
@pytest.mark.parametrize(("name", "width", "steps", "quantity"), WAYS, ids=[w[0] for w in WAYS])
def test_a_network_elsewhere_is_the_one_here(
    name: str, width: int, steps: int, quantity: Quantity, device: str
) -> None:
    t = trial(name)
    constants = calibrate(t, 32)
    here = sizes(t, constants, width, steps, quantity, bits=Bits.PHILOX)
    with elsewhere() if device == "elsewhere" else nullcontext(device) as place:
        there = sizes(t, constants, width, steps, quantity, device=place)
    rounding = 1e-6 if quantity is OWN else 1e-9  # samples are float32
    assert there == pytest.approx(here, rel=rounding)
    assert len({round(x, 12) for x in here.values()}) > 3


@pytest.mark.parametrize("name", ["kfac", "adamw", "sam"])
def test_a_dense_network_elsewhere_is_the_one_here(name: str) -> None:
    t = trial(name)
    constants = calibrate(t, 16)
    here = measure(t, constants, 24, 5, steps=2).sizes
    with elsewhere() as place:
        there = measure(replace(t, device=place), constants, 24, 5, steps=2).sizes
    assert here == there and len({x.own for x in here.values()}) == 3


def test_data_that_stay_here_are_refused_by_a_dense_network_elsewhere() -> None:
    t = trial("sgd")
    with elsewhere() as place:
        model = dense_network(replace(t, device=place), t.scales(24, calibrate(t, 16)), 24, 5)
        assert all(isinstance(p.detach(), Elsewhere) for p in model.parameters())
        with pytest.raises(RuntimeError, match="operands on two devices"):
            model(t.data.inputs)


def test_what_is_forgotten_here_is_refused() -> None:
    with elsewhere() as place:
        x = torch.ones(3, 2, device=place)
        assert isinstance(x @ x.T, Elsewhere) and x.sum() * torch.tensor(2.0) == 12
        with pytest.raises(RuntimeError, match="operands on two devices"):
            x @ torch.ones(2, 2)
        with pytest.raises(RuntimeError, match="numpy"):
            x.numpy()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 2}, "found: workers=2 with device=cuda"),
        ({"bits": Bits.SFC64}, "found: bits=sfc64 with device=cuda\nneeded: .*Philox"),
    ],
)
def test_options_that_no_gpu_has_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Streaming(device="cuda", **options)


def test_wide_networks_are_planned_on_the_device_that_is_asked_for() -> None:
    subject = subject_of("kfac", problem_with("kfac"))
    for device, workers in (("cpu", 2), ("cuda", 1)):
        request = RunRequest(load("digits", samples=4), device=device, threads=2)
        plans = plan([subject], request)
        assert {x.device for _, x in plans} == {device}
        wide = next(x for _, x in plans if x.mode is Mode.WIDE)
        assert (wide.streaming.device, wide.streaming.workers) == (device, workers)
        assert wide.streaming.memory_limit == usual_memory(device)


def test_a_gpu_reaches_further_than_a_cpu() -> None:
    rule = trial("adam").problem.rule
    for own, width in ((True, 10**9), (False, 10**6)):
        refuse_unless_wide(rule, width, own, "cuda")
        with pytest.raises(InvalidInput, match=f"found: the width {width:,}"):
            refuse_unless_wide(rule, width, own)
        with pytest.raises(InvalidInput, match="a width of at most"):
            refuse_unless_wide(rule, 100 * width, own, "cuda")
