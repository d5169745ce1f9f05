"""The limit of own updates and Gram matrices: closed forms, and measurements that approach them."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import erf

from derivations.catalogue import find
from empirical.data.sources import load
from empirical.limits.infinite_width import KERNELS, by_quadrature, limits
from empirical.measure.calibration import calibrate
from empirical.measure.trial import Constants, Trial
from empirical.wide import Streaming, measure_wide
from empirical.wide.columns import gram
from empirical.wide.noise import Stream
from empirical.wide.wide_network import network
from scaling.models.chain import Activation, Setting, mlp
from scaling.models.settings import read_settings
from scaling.sizes.errors import NotCovered
from scaling.solve.derive import derive
from scaling.states.problem import Problem

DATA = load("digits", samples=12, probe=12)
COV = np.array([[1.0, 0.5, -0.3], [0.5, 2.0, 0.1], [-0.3, 0.1, 0.7]])


ACTIVATIONS = {phi.label: phi for phi in Activation}


def trial(name, *fixed, activation=Activation.RELU, biases=False, fisher=False):
    declared = find(name)
    setting = Setting(mlp(3, biases), activation)
    usual = [f"{k}={v}" for k, v in declared.exponents.items()]
    chosen = read_settings([*usual, *fixed], declared.rule, setting.layers)
    base = derive(declared.rule, read_settings(usual, declared.rule, setting.layers), setting)
    problem = Problem(declared.rule, setting, chosen, fisher)
    return Trial(problem, base.exponents.updated(chosen), dict(declared.values), DATA)


@pytest.mark.parametrize(
    ("name", "phi", "slope"),
    [
        ("relu", lambda u: np.maximum(u, 0), lambda u: (u > 0).astype(float)),
        ("erf", erf, lambda u: 2 / math.sqrt(math.pi) * np.exp(-(u**2))),
        ("tanh", np.tanh, lambda u: 1 / np.cosh(u) ** 2),
        ("linear", lambda u: u, np.ones_like),
        (
            "gelu",
            lambda u: u * stats.norm.cdf(u),
            lambda u: stats.norm.cdf(u) + u * stats.norm.pdf(u),
        ),
    ],
)
def test_kernel_is_the_mean_over_gaussian_pre_activations(name, phi, slope):
    u = np.random.default_rng(0).multivariate_normal(np.zeros(3), COV, size=400_000)
    for kernel, function in ((KERNELS[name].value, phi), (KERNELS[name].slope, slope)):
        sampled = function(u).T @ function(u) / len(u)
        assert np.abs(kernel(COV) - sampled).max() < 0.02, (name, kernel(COV), sampled)


def test_quadrature_agrees_with_the_closed_form():
    assert np.abs(by_quadrature(erf)(COV) - KERNELS["erf"].value(COV)).max() < 1e-6


CASES = [
    (n, a, False) for n in ("sgd", "kfac", "shampoo", "foof", "lars") for a in ("relu", "tanh")
]


@pytest.mark.parametrize(("name", "phi", "biases"), [*CASES, ("kfac", "erf", True)])
def test_own_updates_approach_their_limit_as_the_root_of_the_width(name, phi, biases):
    one = trial(
        name,
        *(["b_output_bias=1/2"] if biases else []),
        activation=ACTIVATIONS[phi],
        biases=biases,
    )
    constants = calibrate(one, 64)
    gaps = {}
    for width in (300, 30_000):
        limit = limits(one, constants, width)
        runs = [measure_wide(one, constants, width, seed) for seed in range(6)]
        gaps[width] = max(
            float(np.sqrt(np.mean([(r.sizes[x].own / limit[x].own - 1) ** 2 for r in runs])))
            for x in limit
        )
    # a hundred times the width: ten times closer, within a factor of three
    assert gaps[30_000] < 0.05, gaps
    assert 10 / 3 < gaps[300] / gaps[30_000] < 30, gaps


def test_gram_matrices_approach_theirs():
    one = trial("kfac")
    constants = calibrate(one, 64)
    gaps = []
    for width in (1000, 100_000):
        scales = one.scales(width, constants)
        x = torch.cat([DATA.inputs, DATA.probe_inputs]).T
        net = network(
            one.problem.setting, scales, x, DATA.classes, width, Stream(0, (width,)), Streaming()
        )
        limit = limits(one, constants, width)
        above = {"hidden": net.h[1], "output": net.h[2]}
        gaps.append(
            max(
                float(np.abs(gram(h, h).numpy() / limit[name].inputs - 1).max())
                for name, h in above.items()
            )
        )
    assert gaps[1] < 0.05 and 3 < gaps[0] / gaps[1] < 30, gaps


def test_a_wrong_constant_is_not_approached():
    one = trial("kfac")
    constants = calibrate(one, 64)
    doubled = Constants({k: 2 * v for k, v in constants.eta.items()}, constants.rho)
    limit = limits(one, doubled, 30_000)["hidden"].own
    assert abs(measure_wide(one, constants, 30_000, 0).sizes["hidden"].own / limit - 1) > 0.4


@pytest.mark.parametrize(
    ("name", "fixed", "options", "why"),
    [
        ("sign", (), {}, "entrywise"),
        ("lars", ("b_output_bias=1/2",), {"biases": True}, "norm of the bias of the output"),
        ("sgd", ("b_output=1/2",), {}, "random in the limit"),
        ("sgd", ("b_output_bias=0",), {"biases": True}, "random in the limit"),
        ("kfac", (), {"fisher": True}, "sampled cotangents: B is random"),
    ],
)
def test_what_has_no_limit_is_refused_by_name(name, fixed, options, why):
    one = trial(name, *fixed, **options)
    with pytest.raises(NotCovered, match=why):
        limits(one, calibrate(one, 64), 1000)
