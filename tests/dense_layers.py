"""Layers as explicit float64 matrices, and what every rule is worth on them, in numpy and scipy.

Nothing here imports the interpreter: `tensors` hands it the same data, the rest is its judge.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import block_diag, fractional_matrix_power

from empirical.numbers.layer_matrices import LayerTensors

Array = NDArray[np.float64]
VALUES = {"rho": 0.3, "rho_A": 0.2, "rho_B": 0.1, "e": 0.5, "e_A": 1.0, "e_B": 0.5, "eps": 1e-3}


@dataclass(frozen=True)
class Dense:
    """One layer as plain matrices."""

    H: Array
    D: Array
    W: Array
    F: Array

    @property
    def G(self) -> Array:
        return self.D @ self.H.T / self.H.shape[1]

    @property
    def A(self) -> Array:
        return self.H @ self.H.T / self.H.shape[1]

    @property
    def B(self) -> Array:
        return self.F @ self.F.T / self.F.shape[1]

    @property
    def L(self) -> Array:
        return self.G @ self.G.T

    @property
    def R(self) -> Array:
        return self.G.T @ self.G


def power(x: Array, p: float, rho: float = 0.0) -> Array:
    return np.real(fractional_matrix_power(x + rho * np.eye(len(x)), p))


def pseudo_power(x: Array, p: float) -> Array:
    s, u = np.linalg.eigh(x)
    live = s > 1e-12 * s.max()
    return (u[:, live] * s[live] ** p) @ u[:, live].T


def polar(x: Array) -> Array:
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    live = s > 1e-12 * s.max()
    return u[:, live] @ vh[live]


def blocks(x: Array, size: int) -> Array:
    return block_diag(*(x[i : i + size, i : i + size] for i in range(0, len(x), size)))


def diagonal(x: Array) -> Array:
    return np.diag(np.diag(x))


def means(g: Array) -> Array:
    return (g**2).mean(1, keepdims=True) @ (g**2).mean(0, keepdims=True)


Oracle = Callable[[Dense], Array]
RULES: dict[str, Oracle] = {
    "G": lambda x: x.G,
    "(B + rho_B*I)**(-e_B) @ G @ (A + rho_A*I)**(-e_A)": lambda x: (
        power(x.B, -0.5, 0.1) @ x.G @ power(x.A, -1, 0.2)
    ),
    "(B + rho_B*I)**(-1) @ G @ (A + rho_A*I)**(-1)": lambda x: (
        power(x.B, -1, 0.1) @ x.G @ power(x.A, -1, 0.2)
    ),
    "(B + rho_B*I)**(-1/3) @ G": lambda x: power(x.B, -1 / 3, 0.1) @ x.G,
    "G @ (A + rho_A*I)**(-1)": lambda x: x.G @ power(x.A, -1, 0.2),
    "(L + rho*I)**(-e/2) @ G @ (R + rho*I)**(-e/2)": lambda x: (
        power(x.L, -0.25, 0.3) @ x.G @ power(x.R, -0.25, 0.3)
    ),
    "(L + rho*norm(L)*I)**(-1/2) @ G": lambda x: (
        power(x.L, -0.5, 0.3 * float(np.linalg.norm(x.L))) @ x.G
    ),
    "G @ (A + rho*trace(A)*I)**(-1)": lambda x: x.G @ power(x.A, -1, 0.3 * np.trace(x.A)),
    "G @ (A + rho*specnorm(A)*I)**(-1)": lambda x: (
        x.G @ power(x.A, -1, 0.3 * float(np.linalg.norm(x.A, 2)))
    ),
    "orth(G)": lambda x: polar(x.G),
    "sqrt(fan_out/fan_in) * orth(G)": lambda x: np.sqrt(len(x.D) / len(x.H)) * polar(x.G),
    "sign(G)": lambda x: np.sign(x.G),
    "tanh(G/rms(G))": lambda x: np.tanh(x.G / np.sqrt((x.G**2).mean())),
    "G*min(norm(G), rho)*min(1, norm(G))": lambda x: (
        x.G * min(np.linalg.norm(x.G), 0.3) * min(1, np.linalg.norm(x.G))
    ),
    "G*mean(G*G)*mean((G - W).T)": lambda x: x.G * (x.G**2).mean() * (x.G - x.W).mean(),
    "G*agree(G, W)": lambda x: x.G * (np.sign(x.G) * np.sign(x.W) > 0),
    "G / (sqrt(G*G) + eps)": lambda x: x.G / (np.abs(x.G) + 1e-3),
    "G / sqrt(row_mean(G*G) @ col_mean(G*G) / rms(G)**2 + eps)": lambda x: (
        x.G / np.sqrt(means(x.G) / np.mean(x.G**2) + 1e-3)
    ),
    "G - row_mean(G) - col_mean(G)": lambda x: (
        x.G - x.G.mean(1, keepdims=True) - x.G.mean(0, keepdims=True)
    ),
    "(diag(B) + rho*I)**(-1/2) @ G": lambda x: power(diagonal(x.B), -0.5, 0.3) @ x.G,
    "G @ (block(A, 7) + rho*I)**(-1/2)": lambda x: x.G @ power(blocks(x.A, 7), -0.5, 0.3),
    "(block(L, 3) + diag(B) + rho*I)**(-1) @ G": lambda x: (
        power(blocks(x.L, 3) + diagonal(x.B), -1, 0.3) @ x.G
    ),
    "G @ (A + diag(A) + rho*I)**(-1)": lambda x: x.G @ power(x.A + diagonal(x.A), -1, 0.3),
    "G @ (A @ R + R @ A) @ R": lambda x: x.G @ (x.A @ x.R + x.R @ x.A) @ x.R,
    "(A @ G.T).T / trace(A @ R)": lambda x: x.G @ x.A / np.trace(x.A @ x.R),
    "3*G - 2*G @ G.T @ G": lambda x: 3 * x.G - 2 * x.G @ x.G.T @ x.G,
    "W @ A + rho*W - orth(W)": lambda x: x.W @ x.A + 0.3 * x.W - polar(x.W),
    "G @ block(diag(A), 5) @ (2*I)**(-1)": lambda x: x.G @ diagonal(x.A) / 2,
    "-G * (row_mean(W).T @ B @ row_mean(W))": lambda x: -x.G * (x.W.mean(1) @ x.B @ x.W.mean(1)),
}
LAYERS = {  # fan_in, fan_out, samples, Fisher samples, degenerate
    "hidden": (30, 20, 5, 0, False),
    "hidden, true Fisher": (30, 20, 5, 4, False),
    "hidden, degenerate": (30, 20, 6, 0, True),
    "degenerate, true Fisher": (30, 20, 6, 9, True),
    "one sample": (30, 20, 1, 0, False),
    "more samples than inputs": (16, 40, 25, 0, True),
    "fewer outputs than samples": (33, 3, 8, 0, True),
    "one output": (33, 1, 6, 0, False),
    "bias": (1, 17, 5, 0, False),
}


def layer(name: str, seed: int = 0) -> Dense:
    fan_in, fan_out, n, m, degenerate = LAYERS[name]
    draw = np.random.default_rng(seed).standard_normal
    h, d = draw((fan_in, n)), draw((fan_out, n))
    if degenerate:  # dead units, a repeated sample, a sample without gradient
        h = np.maximum(h, 0)
        h[: fan_in // 4] = 0
        h[:, -1], d[:, -1] = h[:, 0], d[:, 0]
        d[:, 1] = 0
        d[fan_out // 2] = 0
    return Dense(h, d, draw((fan_out, fan_in)), draw((fan_out, m)) if m else d)


def tensors(x: Dense, dtype: torch.dtype = torch.float64) -> LayerTensors:
    h, d, w, f = (torch.from_numpy(y).to(dtype) for y in (x.H, x.D, x.W, x.F))
    return LayerTensors(h, d, w, None if x.F is x.D else f)


def assert_close(found: torch.Tensor | Array, expected: Array, rtol: float = 1e-10) -> None:
    scale = rtol * float(np.abs(expected).max(initial=0))
    np.testing.assert_allclose(np.asarray(found), expected, rtol=rtol, atol=scale + 1e-300)
