"""A chain of dense layers under any rule, in numpy float64: a judge that shares no code.

Nothing here imports the package. A rule's text is read by Python's own parser (`ast`) and worth
what its operators say on matrices; forward and backward passes are written out by hand.

    u_l = M^(-a_l) W_l h_(l-1)    h_l = phi(u_l)    f = u_L    W_l ~ N(0, M^(-2 b_l))
    W_l <- W_l - rate_l (M / M_0)^(-c_l) dW_l              rho = value (M / M_0)^(-d)

`own` gives |dW_l h_(l-1)|, the root mean square over outputs and samples, once over the batch that
made dW and once over samples held out. `slope` fits an exponent of M over the upper half of the
widths and says how far seeds scatter.

A matrix of one side is kept as diag(s) + F C F^T, a matrix of n directions as P Q^T, so that the
cost is M times the number of samples until a rule looks at single entries. Beyond width `DRAWN`
M x M weights are not drawn either: what they do to the few vectors that they meet is, in law
(`Revealed`). Powers of singular matrices are pseudo-powers and 0/0 is 0, as the rules have it.

Not covered (`Unread`): eig, ascended, named parts of a rule.
"""

from __future__ import annotations

import ast
import itertools
import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from revealed_weights import Revealed

Array = NDArray[np.float64]
WIDTHS = (128, 256, 512, 1024, 2048)
DRAWN = 8192
"""The largest width at which whole matrices are made."""
NOTHING = 1e-13
"""Singular values below this part of the largest are zero."""


class Unread(Exception):
    """What the simulator does not cover."""


# --- matrices -------------------------------------------------------------------------------------


class Wide:
    """A matrix of two sides: entries, or P Q^T where few directions make it."""

    def __init__(self, entries: Array | None = None, p: Array | None = None,
                 q: Array | None = None) -> None:  # fmt: skip
        self._entries, self.p, self.q = entries, p, q

    @property
    def is_thin(self) -> bool:
        return self._entries is None

    @cached_property
    def entries(self) -> Array:
        if self._entries is not None:
            return self._entries
        if self.shape[0] * self.shape[1] > DRAWN**2:
            raise Unread(f"single entries of {self.shape[0]} x {self.shape[1]}")
        return self.p @ self.q.T

    @property
    def shape(self) -> tuple[int, int]:
        return (len(self.p), len(self.q)) if self.is_thin else self._entries.shape

    @property
    def T(self) -> Wide:
        return Wide(p=self.q, q=self.p) if self.is_thin else Wide(self._entries.T)

    @cached_property
    def svd(self) -> tuple[Array, Array, Array]:
        """Live singular values with their vectors, (M, k), (k,), (k, N)."""
        if self.is_thin:
            (u, r), (v, s) = np.linalg.qr(self.p), np.linalg.qr(self.q)
            x, sizes, y = np.linalg.svd(r @ s.T)
            k = len(sizes)
            u, y = u @ x[:, :k], y[:k] @ v.T
        else:
            u, sizes, y = np.linalg.svd(self._entries, full_matrices=False)
        live = sizes > NOTHING * sizes.max(initial=0)
        return u[:, live], sizes[live], y[live]

    @property
    def norm(self) -> float:
        if self.is_thin:
            r, s = np.linalg.qr(self.p, "r"), np.linalg.qr(self.q, "r")
            return float(np.linalg.norm(r @ s.T))
        return float(np.linalg.norm(self._entries))

    def times(self, x: Array) -> Array:
        """This matrix times vectors."""
        return self.p @ (self.q.T @ x) if self.is_thin else self._entries @ x


@dataclass(frozen=True)
class Square:
    """diag(s) + F C F^T on one side; ``dense`` where it is neither."""

    s: Array
    f: Array | None = None
    c: Array | None = None
    dense: Array | None = None
    basis: tuple[Array, Array, float] | None = None
    """Eigenvectors, eigenvalues, and that of the rest, where these are known: they round less."""
    pieces: Array | None = None
    """Blocks along the diagonal, (count, k, k), in the place of all of the above."""

    @property
    def size(self) -> int:
        return len(self.s)

    @cached_property
    def matrix(self) -> Array:
        if self.size > DRAWN:
            raise Unread(f"all entries of a matrix of side {self.size}")
        if self.pieces is not None:
            return _assembled(self.pieces)
        x = np.diag(self.s)
        if self.f is not None:
            x = x + self.f @ self.c @ self.f.T
        return x if self.dense is None else x + self.dense

    @property
    def T(self) -> Square:
        if self.pieces is not None:
            return replace(self, pieces=self.pieces.transpose(0, 2, 1))
        c = None if self.c is None else self.c.T
        return Square(self.s, self.f, c, None if self.dense is None else self.dense.T, self.basis)

    def times(self, x: Array) -> Array:
        if self.pieces is not None:
            count, k, _ = self.pieces.shape
            return (self.pieces @ x.reshape(count, k, -1)).reshape(x.shape)
        if self.basis is not None:
            q, s, rest = self.basis
            part = q.T @ x
            beyond = x - q @ part
            return q @ (s[:, None] * part) + rest * (beyond - q @ (q.T @ beyond))
        y = self.s[:, None] * x
        if self.f is not None:
            y = y + self.f @ (self.c @ (self.f.T @ x))
        return y if self.dense is None else y + self.dense @ x

    def scaled(self, x: float) -> Square:
        if self.pieces is not None:
            return replace(self, pieces=x * self.pieces)
        c = None if self.c is None else x * self.c
        basis = (
            None if self.basis is None else (self.basis[0], x * self.basis[1], x * self.basis[2])
        )
        return Square(x * self.s, self.f, c, None if self.dense is None else x * self.dense, basis)

    def plus(self, y: Square) -> Square:
        if y.pieces is not None and self.pieces is None:
            return y.plus(self)
        if self.pieces is not None:
            if y.pieces is not None and y.pieces.shape == self.pieces.shape:
                return replace(self, pieces=self.pieces + y.pieces)
            if y.pieces is None and y.f is None and y.dense is None:
                count, k, _ = self.pieces.shape
                return replace(self, pieces=self.pieces + y.s.reshape(count, k, 1) * np.eye(k))
            x = Square(np.zeros(self.size), dense=self.matrix)
            return x.plus(Square(np.zeros(self.size), dense=y.matrix))
        dense = self.dense if y.dense is None else y.dense if self.dense is None else (
            self.dense + y.dense)  # fmt: skip
        if self.f is None or y.f is None:
            f, c = (self.f, self.c) if y.f is None else (y.f, y.c)
        else:
            f, c = np.hstack([self.f, y.f]), _blocks(self.c, y.c)
        return Square(self.s + y.s, f, c, dense)

    def at(self, y: Square) -> Square:
        both = (self, y)
        flat = all(np.ptp(m.s) == 0 and m.dense is None and m.pieces is None for m in both)
        if not flat:
            return Square(np.zeros(self.size), dense=self.matrix @ y.matrix)
        s, t = float(self.s[0]), float(y.s[0])
        total = Square(self.s * y.s)
        if self.f is not None:
            total = total.plus(Square(0 * self.s, self.f, t * self.c))
        if y.f is not None:
            total = total.plus(Square(0 * self.s, y.f, s * y.c))
        if self.f is not None and y.f is not None:
            core = self.c @ (self.f.T @ y.f) @ y.c
            k, m = core.shape
            c = np.zeros((k + m, k + m))
            c[:k, k:] = core
            total = total.plus(Square(0 * self.s, np.hstack([self.f, y.f]), c))
        return total

    @cached_property
    def spectrum(self) -> tuple[Array, Array, float]:
        """Eigenvalues and vectors beside the rest, which has one eigenvalue (none: NaN)."""
        if self.dense is None and np.ptp(self.s) == 0:
            if self.f is None:
                return np.zeros(0), np.zeros((self.size, 0)), float(self.s[0])
            q, r = np.linalg.qr(self.f)
            core = r @ self.c @ r.T
            _symmetric(core)
            x, v = np.linalg.eigh((core + core.T) / 2)
            keep = np.abs(x) > NOTHING * np.abs(x).max(initial=0)
            x, q = x[keep], q @ v[:, keep]
            shift = float(self.s[0])
            return x + shift, q, shift if q.shape[1] < self.size else math.nan
        _symmetric(self.matrix)
        x, q = np.linalg.eigh((self.matrix + self.matrix.T) / 2)
        return x, q, math.nan

    def apply(self, function: Callable[[Array], Array]) -> Square:
        """A function of the eigenvalues, zero where they are zero."""
        if self.pieces is not None:
            _symmetric(self.pieces)
            x, q = np.linalg.eigh(self.pieces)
            return replace(
                self, pieces=(q * _where_live(function, x)[:, None]) @ q.transpose(0, 2, 1)
            )
        if self.f is None and self.dense is None:
            return Square(_where_live(function, self.s))
        x, q, rest = self.spectrum
        y = _where_live(function, x)
        if math.isnan(rest):
            return Square(np.zeros(self.size), q, np.diag(y))
        floor = float(_where_live(function, np.array([rest]), np.abs(x).max(initial=0))[0])
        basis = (q, y, floor)
        return Square(np.full(self.size, floor), q, np.diag(y - floor), basis=basis)

    @property
    def diagonal(self) -> Array:
        if self.pieces is not None:
            return np.einsum("ckk->ck", self.pieces).ravel()
        d = self.s.copy()
        if self.f is not None:
            d = d + np.einsum("ik,ik->i", self.f @ self.c, self.f)
        return d if self.dense is None else d + np.diag(self.dense)

    @property
    def eigenvalues(self) -> Array:
        if self.pieces is not None:
            return np.linalg.eigvalsh(self.pieces).ravel()
        if self.f is None and self.dense is None:
            return self.s
        x, q, rest = self.spectrum
        return x if math.isnan(rest) else np.append(x, np.full(self.size - q.shape[1], rest))


class Identity:
    """I, of any side."""


def _blocks(x: Array, y: Array) -> Array:
    z = np.zeros((len(x) + len(y),) * 2)
    z[: len(x), : len(x)], z[len(x) :, len(x) :] = x, y
    return z


def _symmetric(x: Array) -> None:
    if np.abs(x - x.swapaxes(-1, -2)).max(initial=0) > 1e-6 * np.abs(x).max(initial=0):
        raise Unread("a power of a matrix that is not symmetric")


def _where_live(function: Callable[[Array], Array], x: Array, top: float = 0.0) -> Array:
    top = max(top, float(np.abs(x).max(initial=0)))
    live = np.abs(x) > NOTHING * NOTHING * top
    y = np.zeros_like(x)
    y[live] = function(x[live])
    return y


def _quotient(x: Array, y: Array) -> Array:
    x, y = np.broadcast_arrays(x, y)
    out = np.zeros(x.shape)
    live = (y != 0) | (x != 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        np.divide(x, y, out=out, where=live)
    return out


@dataclass(frozen=True)
class Weight:
    """The weights of one layer: drawn entries times a scale, less the steps that were made.

    Entries are drawn again whenever they are asked for: a state is as small as its activations.
    """

    draw: Callable[[], Array | Revealed]
    scale: float
    shape: tuple[int, int]
    steps: tuple[tuple[float, Wide], ...] = ()

    @property
    def entries(self) -> Array:
        if min(self.shape) > DRAWN:
            raise Unread(f"single entries of {self.shape[0]} x {self.shape[1]} weights")
        return self.scale * self.draw() - sum(rate * step.entries for rate, step in self.steps)

    def __array__(self, *_: object, **__: object) -> Array:
        return self.entries

    def times(self, x: Array) -> Array:
        y = self.scale * (self.draw() @ x)
        return y - sum(rate * step.times(x) for rate, step in self.steps)

    def transposed_times(self, x: Array) -> Array:
        y = self.scale * (self.draw().T @ x)
        return y - sum(rate * step.T.times(x) for rate, step in self.steps)


class Unmade(Wide):
    """M x M weights, of which nothing is known but their shape and norm, in law."""

    def __init__(self, w: Weight) -> None:
        super().__init__()
        self.w, self._shape = w, w.shape

    @property
    def is_thin(self) -> bool:
        return False

    @cached_property
    def entries(self) -> Array:
        raise Unread(f"single entries of {self._shape[0]} x {self._shape[1]} weights")

    @property
    def shape(self) -> tuple[int, int]:
        return self._shape

    @property
    def norm(self) -> float:
        start = replace(self.w, steps=())
        moves = [Wide(p=rate * x.p, q=x.q) for rate, x in self.w.steps]
        square = self.w.scale**2 * self._shape[0] * self._shape[1]
        square -= 2 * sum(float(np.sum(x.p * start.times(x.q))) for x in moves)
        if moves:
            both = Wide(p=np.hstack([x.p for x in moves]), q=np.hstack([x.q for x in moves]))
            square += both.norm**2
        return math.sqrt(square)


# --- a rule's text --------------------------------------------------------------------------------

Value = float | Wide | Square | Identity


class Layers(list["Layer"]):
    """The layers of a network."""


@dataclass
class Layer:
    """One layer as a rule sees it: h (fan_in, n), delta (fan_out, n), W; what averages hold."""

    h: Array
    d: Array
    w: Weight
    scalars: Mapping[str, float]
    averages: dict[str, Value] = field(default_factory=dict)
    """What every average of the step before was given, by the text of its argument."""
    given: dict[str, Value] = field(default_factory=dict)
    network: Callable[[], Layers | None] = lambda: None
    """All layers, which whoever reads the rule holds on to: no circles, which memory would pay."""
    step: int = 1
    memo: dict[str, Value] = field(default_factory=dict)
    weights: dict[str, float] | None = None
    """Factors of the second terms of sums, by the text of both terms (settled_terms.py)."""
    named_terms: frozenset[str] = frozenset()
    """Names of constants: a second term that one of them leads has a weight."""

    @property
    def n(self) -> int:
        return self.h.shape[1]

    def forget(self, most: int) -> None:
        """Drop what reading a rule left behind, if a matrix of this layer has more entries."""
        if self.w.shape[0] * self.w.shape[1] > most:
            self.memo = {key: x for key, x in self.memo.items() if isinstance(x, float)}

    def named(self, name: str) -> Value:
        h, d, n = self.h, self.d, self.n
        match name:
            case "G":
                return Wide(p=d, q=h / n)
            case "W" if min(self.w.shape) > DRAWN:
                return Unmade(self.w)
            case "W":
                return Wide(self.w.entries)
            case "A":
                return Square(np.zeros(len(h)), h, np.eye(n) / n)
            case "B":
                return Square(np.zeros(len(d)), d, np.eye(n) / n)
            case "L":
                return Square(np.zeros(len(d)), d, h.T @ h / n**2)
            case "R":
                return Square(np.zeros(len(h)), h, d.T @ d / n**2)
            case "I":
                return Identity()
            case "fan_in":
                return float(len(h))
            case "fan_out":
                return float(len(d))
        return self.scalars[name]


def value(tree: ast.expr, layer: Layer) -> Value:
    """What a rule's text is worth in a layer."""
    key = _key(tree)
    if key not in layer.memo:
        layer.memo[key] = _value(tree, layer)
    return layer.memo[key]


def _key(tree: ast.expr) -> str:
    """The text of a tree, kept on it."""
    if not hasattr(tree, "key"):
        tree.key = ast.unparse(tree)  # type: ignore[attr-defined]
    return str(tree.key)  # type: ignore[attr-defined]


@lru_cache(maxsize=8)
def parsed(rule: str) -> ast.expr:
    """The tree of a rule's text."""
    return ast.parse(rule, mode="eval").body


def _value(tree: ast.expr, layer: Layer) -> Value:
    match tree:
        case ast.Constant(value=number):
            return float(number)
        case ast.Name(id=name):
            return layer.named(name)
        case ast.Attribute(value=inner, attr="T"):
            x = value(inner, layer)
            return x.T if isinstance(x, Wide | Square) else x
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return _times(value(inner, layer), -1.0)
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            return value(inner, layer)
        case ast.BinOp(left=left, op=op, right=right):
            x, y = value(left, layer), value(right, layer)
            if isinstance(op, ast.Add | ast.Sub):
                y = _times(y, _weighted(left, right, layer))
            return _binary(op, x, y)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _call(name, arguments, layer)
    raise Unread(ast.unparse(tree))


class Unmet(Exception):
    """A sum whose second term has no weight yet: its text, the ratios of the second to the first.

    Two ratios, to the strongest and the weakest live direction, where the first is a matrix of one
    side; else they are equal.
    """

    def __init__(self, weights: dict[str, float], site: str, ratios: tuple[float, float]) -> None:
        self.weights, self.site, self.ratios = weights, site, ratios


def _weighted(left: ast.expr, right: ast.expr, layer: Layer) -> float:
    """What stands in front of the right one of two terms, beside the value of its first name."""
    first = right
    while isinstance(first, ast.BinOp) and isinstance(first.op, ast.Mult):
        first = first.left
    if layer.weights is None or not (isinstance(first, ast.Name) and first.id in layer.named_terms):
        return 1.0
    site = f"{_key(left)} | {_key(right)}"
    if site not in layer.weights:
        x, y = value(left, layer), value(right, layer)
        by_entries = isinstance(x, float) or isinstance(y, float)
        top = max(_sizes(y, layer, by_entries))
        strong, weak = (top / size if size else math.nan for size in _sizes(x, layer, by_entries))
        raise Unmet(layer.weights, site, (strong, weak))
    return layer.weights[site]


def _sizes(x: Value, layer: Layer, by_entries: bool) -> tuple[float, float]:
    """The largest and smallest size that is not zero: they differ for directions of one side."""
    match x:
        case float():
            return abs(x), abs(x)
        case Wide():
            if x.shape == layer.w.shape and not by_entries:
                size = _rms(x.times(layer.h)) / _rms(layer.h) / math.sqrt(len(layer.h))
            else:
                size = _rms(x.entries)
            return size, size
        case Square():
            sizes = np.abs(x.eigenvalues)
            live = sizes[sizes > NOTHING * sizes.max(initial=0)]
            return (float(live.max()), float(live.min())) if len(live) else (0.0, 0.0)
    return 1.0, 1.0


def _times(x: Value, k: float) -> Value:
    match x:
        case float():
            return k * x
        case Wide():
            return Wide(p=k * x.p, q=x.q) if x.is_thin else Wide(k * x.entries)
        case Square():
            return x.scaled(k)
    return (
        Square(np.array([k])) if k != 1 else x
    )  # a multiple of I: one number until it meets a side


def _sized(x: Square | Identity, size: int) -> Square:
    if isinstance(x, Identity):
        return Square(np.ones(size))
    return Square(np.full(size, float(x.s[0]))) if x.size == 1 != size and x.f is None else x


def _array(x: float | Wide) -> Array:
    return np.array([[x]]) if isinstance(x, float) else x.entries


def _binary(op: ast.operator, x: Value, y: Value) -> Value:
    squares = [z for z in (x, y) if isinstance(z, Square | Identity)]
    match op:
        case ast.Sub():
            return _binary(ast.Add(), x, _times(y, -1.0))
        case ast.Add() if len(squares) == 2:
            size = max(z.size if isinstance(z, Square) else 1 for z in squares)
            return _sized(x, size).plus(_sized(y, size))
        case ast.Add():
            if isinstance(x, float) and isinstance(y, float):
                return x + y
            thin = isinstance(x, Wide) and isinstance(y, Wide) and x.is_thin and y.is_thin
            if thin and x.shape == y.shape:
                return Wide(p=np.hstack([x.p, y.p]), q=np.hstack([x.q, y.q]))
            return Wide(_array(x) + _array(y))
        case ast.Mult() | ast.Div() if isinstance(y, float):
            return _times(x, y if isinstance(op, ast.Mult) else float(_quotient(1.0, y)))
        case ast.Mult() if isinstance(x, float):
            return _times(y, x)
        case ast.Mult():
            return Wide(_array(x) * _array(y))
        case ast.Div():
            return Wide(_quotient(_array(x), _array(y)))
        case ast.MatMult():
            return _product(x, y)
        case ast.Pow():
            assert isinstance(y, float), "powers are numbers"
            return _power(x, y)
    raise Unread(str(op))


def _product(x: Value, y: Value) -> Value:
    if isinstance(x, Identity) or isinstance(y, Identity):
        return y if isinstance(x, Identity) else x
    if isinstance(x, Square) and isinstance(y, Square):
        size = max(x.size, y.size)
        return _sized(x, size).at(_sized(y, size))
    if isinstance(x, Square):
        x = _sized(x, y.shape[0])
        return Wide(p=x.times(y.p), q=y.q) if y.is_thin else Wide(x.times(y.entries))
    if isinstance(y, Square):
        return _product(y.T, x.T).T
    if x.shape[0] == y.shape[1] and (x.shape[0] == 1 or 1 not in (x.shape[1],)):
        if x.shape[0] == 1:
            return float((x.entries @ y.entries)[0, 0])
        if x.is_thin and y.is_thin:
            return _as_square(x, y)
        return Square(np.zeros(x.shape[0]), dense=x.entries @ y.entries)
    return Wide(x.entries @ y.entries)


def _as_square(x: Wide, y: Wide) -> Square:
    """P Q^T times P' Q'^T of one side."""
    core, k, m = x.q.T @ y.p, x.p.shape[1], y.q.shape[1]
    c = np.zeros((k + m, k + m))
    c[:k, k:] = core
    if x.p is y.q:
        return Square(np.zeros(len(x.p)), x.p, core)
    return Square(np.zeros(len(x.p)), np.hstack([x.p, y.q]), c)


def _power(x: Value, p: float) -> Value:
    match x:
        case float():
            return 0.0 if x == 0 and p < 0 else x**p
        case Wide():
            with np.errstate(divide="ignore"):
                return Wide(np.where(x.entries == 0, 0.0 if p else 1.0, 1.0) * np.where(
                    x.entries == 0, 1.0, x.entries) ** p)  # fmt: skip
        case Square():
            if p == 0:
                return Square(np.ones(x.size))
            return x.apply(lambda s: s**p if p == int(p) else np.maximum(s, 0) ** p)
    return x


def _call(name: str, arguments: list[ast.expr], layer: Layer) -> Value:
    if name in RECURSIONS:
        return _over_steps(name, arguments, layer)
    if name == "over_layers":
        network = layer.network()
        assert network is not None
        return float(sum(value(arguments[0], other) for other in network))
    if name == "sample_square":
        return _sample_square(arguments[0], layer)
    x = value(arguments[0], layer)
    if name == "spectral_map":
        u, s, v = x.svd
        return Wide(p=u * np.array([_at(arguments[1], float(one), layer) for one in s]), q=v.T)
    options = [value(a, layer) for a in arguments[1:]]
    if name in ("max", "min") and not (isinstance(x, float) and isinstance(options[0], float)):
        second = _array(_times(options[0], _weighted(*arguments, layer)))
        return Wide((np.maximum if name == "max" else np.minimum)(_array(x), second))
    if name in ("clip", "atan", "tanh"):
        x = _times(x, _weighted(ast.Constant(1.0), arguments[0], layer))
    if name in ("max", "min"):
        options = [_times(options[0], _weighted(*arguments, layer))]
    if isinstance(x, float) and name in SCALARS:
        return float(SCALARS[name](x, *options))
    match x, name:
        case Wide(), "sign" | "abs" | "sqrt" | "atan" | "clip" | "tanh":
            return Wide(ENTRYWISE[name](x.entries, *options))
        case Wide(), "row_mean" | "col_mean":
            axis = 1 if name == "row_mean" else 0
            if x.is_thin and axis == 1:
                return Wide(x.p @ x.q.mean(0)[:, None])
            if x.is_thin:
                return Wide(x.p.mean(0)[None] @ x.q.T)
            return Wide(x.entries.mean(axis, keepdims=True))
        case Wide(), "row_max" | "col_max":
            return Wide(x.entries.max(1 if name == "row_max" else 0, keepdims=True))
        case Wide(), "entry_max":
            return float(x.entries.max())
        case Wide(), "mean":
            return float(x.entries.mean())
        case Wide(), "orth":
            u, _, v = x.svd
            return Wide(p=u, q=v.T)
        case Wide(), "project":
            u, s, v = x.svd
            r = math.ceil(options[0])
            return Wide(p=u[:, :r] * s[:r], q=v[:r].T)
        case Wide(), "agree":
            return Wide((x.entries * options[0].entries > 0).astype(float))
        case Wide(), "newton_schulz":
            return _newton_schulz(x, int(options[0]))
        case Wide(), "norm":
            return x.norm
        case Wide(), "rms":
            return x.norm / math.sqrt(x.shape[0] * x.shape[1])
        case Wide(), "specnorm":
            return float(x.svd[1].max(initial=0))
        case Wide(), "inner":
            y = options[0]
            if x.is_thin and y.is_thin:
                return float(np.sum((y.p.T @ x.p) * (y.q.T @ x.q)))
            return float(np.sum(x.entries * y.entries))
        case Square(), "trace":
            return float(x.diagonal.sum())
        case Square(), "norm":
            return float(np.linalg.norm(x.eigenvalues))
        case Square(), "rms":
            return float(np.linalg.norm(x.eigenvalues)) / x.size
        case Square(), "specnorm":
            return float(np.abs(x.eigenvalues).max())
        case Square(), "diag":
            return Square(x.diagonal)
        case Square(), "block":
            return _block(x, int(options[0]))
    raise Unread(name)


def _at(tree: ast.expr, sigma: float, layer: Layer) -> float:
    """A number of sigma."""
    memo = {key: x for key, x in layer.memo.items() if "sigma" not in key}
    scalars = _Scalars({**layer.scalars, "sigma": sigma})
    one = replace(layer, scalars=scalars, memo=memo)
    found = value(tree, one)
    assert isinstance(found, float), "a number"
    return found


ENTRYWISE: dict[str, Callable[..., Array]] = {
    "sign": np.sign,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "atan": np.arctan,
    "tanh": np.tanh,
    "clip": lambda x, bound: np.clip(x, -bound, bound),
}
SCALARS: dict[str, Callable[..., float]] = {
    "sign": np.sign, "abs": abs, "sqrt": math.sqrt, "atan": math.atan, "max": max, "min": min,
    "tanh": math.tanh, "clip": lambda x, bound: min(max(x, -bound), bound),
}  # fmt: skip


def _newton_schulz(x: Wide, steps: int) -> Wide:
    u, s, v = x.svd
    s = s / np.linalg.norm(s)
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return Wide(p=u * s, q=v.T)


def _block(x: Square, size: int) -> Square:
    if x.size % size or x.pieces is not None:
        dense, full = np.zeros((x.size, x.size)), x.matrix
        for start in range(0, x.size, size):
            piece = slice(start, start + size)
            dense[piece, piece] = full[piece, piece]
        return Square(np.zeros(x.size), dense=dense)
    if x.f is None or x.dense is not None:
        full = x.matrix.reshape(x.size // size, size, x.size // size, size)
        pieces = np.einsum("ckcj->ckj", full)
    else:
        f = x.f.reshape(x.size // size, size, -1)
        pieces = f @ x.c @ f.transpose(0, 2, 1) + x.s.reshape(-1, size, 1) * np.eye(size)
    return Square(np.zeros(x.size), pieces=pieces)


def _assembled(pieces: Array) -> Array:
    count, k, _ = pieces.shape
    full = np.zeros((count, k, count, k))
    full[np.arange(count), :, np.arange(count)] = pieces
    return full.reshape(count * k, count * k)


def _sample_square(tree: ast.expr, layer: Layer) -> Wide:
    """The mean over samples of squares, each sample's own gradient standing for G."""
    total = 0.0
    for i in range(layer.n):
        one = Layer(layer.h, layer.d, layer.w, layer.scalars, network=layer.network)
        one.memo = {"": 0.0}
        own = Wide(p=layer.d[:, i : i + 1], q=layer.h[:, i : i + 1])
        replaced = {"G": own}
        one.memo.update(replaced)
        total = total + value(tree, one).entries ** 2
    return Wide(total / layer.n)


def _yogi(old: Value, new: Value, beta: float) -> Value:
    v, x = (1 - beta) * _array(old), _array(new)
    return Wide(v - (1 - beta) * np.sign(v - x) * x)


def _sum(x: Value, y: Value) -> Value:
    return _binary(ast.Add(), x, y)


RECURSIONS: dict[str, tuple[Callable[..., Value], Callable[..., Value]]] = {
    "ema": (lambda x, b: _times(x, 1 - b), lambda x, y, b: _times(_sum(_times(x, b), y), 1 - b)),
    "debiased": (lambda x, b: x, lambda x, y, b: _times(_sum(_times(x, b), y), 1 / (1 + b))),
    "running_sum": (lambda x: x, _sum),
    "previous": (lambda x: x, lambda x, y: x),
    "running_max": (lambda x, b: x, lambda x, y, b: Wide(np.maximum(b * _array(x), _array(y)))),
    "yogi": (lambda x, b: _times(x, 1 - b), _yogi),
}
"""What is made of X_1 at the first step, and of X_1 and X_2 at the second."""


def _over_steps(name: str, arguments: list[ast.expr], layer: Layer) -> Value:
    key, x = _key(arguments[0]), value(arguments[0], layer)
    options = [value(a, layer) for a in arguments[1:]]
    layer.given[key] = x
    first, second = RECURSIONS[name]
    return first(x, *options) if layer.step == 1 else second(layer.averages[key], x, *options)


# --- the network ----------------------------------------------------------------------------------

SQRT2 = math.sqrt(2)


def _erf(x: Array) -> Array:
    """Abramowitz and Stegun 7.1.26, with error 1.5e-7: sizes do not see it."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (
        -1.453152027 + t * 1.061405429))))  # fmt: skip
    return np.sign(x) * (1 - poly * np.exp(-x * x))


def _gelu_slope(x: Array) -> Array:
    return (1 + _erf(x / SQRT2)) / 2 + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "relu": (lambda u: np.maximum(u, 0), lambda u: (u > 0).astype(float)),
    "tanh": (np.tanh, lambda u: 1 - np.tanh(u) ** 2),
    "erf": (_erf, lambda u: 2 / math.sqrt(math.pi) * np.exp(-u * u)),
    "gelu": (lambda u: u * (1 + _erf(u / SQRT2)) / 2, _gelu_slope),
    "linear": (lambda u: u, np.ones_like),
}


@dataclass(frozen=True)
class Net:
    """What a network and its data are made of. Exponents are by layer, ``d`` by layer and name.

    ``labels``: the class of each sample. ``values``: constants of the rule's names (1 if absent).
    """

    labels: tuple[int, ...] = tuple(range(6))
    classes: int = 10
    features: int = 16
    depth: int = 3
    activation: str = "relu"
    loss: str = "mse"
    a: tuple[float, ...] = ()
    b: tuple[float, ...] = ()
    c: tuple[float, ...] = ()
    d: tuple[tuple[tuple[str, float], ...], ...] = ()
    values: tuple[tuple[str, float], ...] = ()
    named_terms: frozenset[str] = frozenset()
    weights: tuple[tuple[dict[str, float], ...], ...] = ()
    """Factors of the terms that these names lead, by step, layer and the text of the terms."""
    rates: tuple[float, ...] = ()
    probe: int = 6
    readout: float = 0.25
    """Factor of the last weights, so that outputs are below their targets at the smallest width."""

    @property
    def names(self) -> list[str]:
        middle = self.depth - 2
        hidden = ["hidden"] if middle == 1 else [f"hidden_{i + 1}" for i in range(middle)]
        return ["input", *hidden, "output"]

    def sides(self, width: int) -> list[int]:
        return [self.features, *[width] * (self.depth - 1), self.classes]


BASE = 64


@cache
def _data(labels: tuple[int, ...], classes: int, features: int, probe: int) -> tuple[Array, ...]:
    """Inputs (features, n), targets (classes, n), held-out inputs: a centre a class, and noise."""
    draw = np.random.default_rng(7).standard_normal
    centres, mean = draw((features, classes)), 0.3
    x = mean + 0.6 * centres[:, list(labels)] + 0.8 * draw((features, len(labels)))
    held = mean + draw((features, probe))
    return x, np.eye(classes)[:, list(labels)], held


def _forward(net: Net, w: list[Weight], width: int, x: Array) -> tuple[list[Array], list[Array]]:
    """(h of every layer, its multiplier included; u of every layer)"""
    phi = ACTIVATIONS[net.activation][0]
    inputs, us = [], []
    for position in range(net.depth):
        a = net.a[position] if net.a else 0.0
        inputs.append((width / BASE) ** -a * x)
        us.append(w[position].times(inputs[-1]))
        x = phi(us[-1])
    return inputs, us


def _layers(net: Net, w: list[Weight], width: int, step: int) -> Layers:
    """Every layer as a rule sees it, with what averages were given left to be filled in."""
    x, y, _ = _data(net.labels, net.classes, net.features, net.probe)
    inputs, us = _forward(net, w, width, x)
    f = us[-1]
    if net.loss == "mse":
        d = f - y
    else:
        p = np.exp(f - f.max(0))
        d = p / p.sum(0) - y
    slope = ACTIVATIONS[net.activation][1]
    deltas = [d]
    for position in range(net.depth - 1, 0, -1):
        a = net.a[position] if net.a else 0.0
        back = w[position].transposed_times(deltas[-1])
        deltas.append((width / BASE) ** -a * back * slope(us[position - 1]))
    deltas.reverse()
    found = Layers()
    for position in range(net.depth):
        scalars = _Scalars(net.values)
        for name, d_exponent in net.d[position] if net.d else ():
            scalars[name] = scalars[name] * (width / BASE) ** -d_exponent
        layer = Layer(inputs[position], deltas[position], w[position], scalars, step=step)
        if len(net.weights) >= step:
            layer.weights, layer.named_terms = net.weights[step - 1][position], net.named_terms
        found.append(layer)
    for layer in found:
        layer.network = weakref.ref(found)
    return found


class _Scalars(dict):
    def __missing__(self, name: str) -> float:
        return 1.0


def _drawn(shape: tuple[int, int], position: int, seed: int) -> Array:
    """The Gaussian entries of a layer."""
    return np.random.default_rng([seed, position, *shape]).standard_normal(shape)


KEPT = [
    (side, lru_cache(count)(_drawn))
    for side, count in ((256, 256), (512, 32), (1024, 8), (10**9, 2))
]
"""Draws that are kept for the next rule, by the largest side: 270 MB at most up to 1024."""


def _weights(sides: tuple[int, ...], seed: int) -> list[Array]:
    shapes = [(m, k) for k, m in itertools.pairwise(sides)]
    return [_kept(shape, position, seed) for position, shape in enumerate(shapes)]


def _kept(shape: tuple[int, int], position: int, seed: int) -> Array:
    return next(draw for side, draw in KEPT if max(shape) <= side)(shape, position, seed)


def _start(net: Net, width: int, seed: int) -> list[Weight]:
    """The weights at the start."""
    b = net.b or (0.0, *[0.5] * (net.depth - 2), 1.0)
    scale = [0.0 if math.isinf(x) else (width / BASE) ** -x * BASE**-0.5 for x in b]
    scale[0] *= math.sqrt(BASE / net.features)
    scale[-1] *= net.readout
    shapes = [(m, k) for k, m in itertools.pairwise(net.sides(width))]
    return [
        Weight(_drawing(shape, position, seed), scale[position], shape)
        for position, shape in enumerate(shapes)
    ]


def _drawing(shape: tuple[int, int], position: int, seed: int) -> Callable[[], Array | Revealed]:
    """How the weights of a layer come by their entries, or by what these do to vectors."""
    if min(shape) <= DRAWN:
        return partial(_kept, shape, position, seed)
    revealed = Revealed(shape[0], np.random.default_rng([seed, position, *shape]))
    return lambda: revealed


@dataclass(frozen=True)
class Own:
    """|dW h| by layer, on the batch and on samples held out, at one width and seed."""

    batch: tuple[float, ...]
    held: tuple[float, ...]


def _rms(x: Array) -> float:
    return float(np.sqrt(np.mean(x * x)))


def _rates(net: Net, width: int) -> list[float]:
    return [
        (net.rates[i] if net.rates else 1.0) * (width / BASE) ** -(net.c[i] if net.c else 0.0)
        for i in range(net.depth)
    ]


def state(rule: str, net: Net, width: int, seed: int, step: int) -> Layers:
    """Every layer as the rule sees it at the first or second step."""
    layers = _layers(net, _start(net, width, seed), width, 1)
    if step == 1:
        return layers
    tree = parsed(rule)
    moves = [
        (layer.w, r, value(tree, layer))
        for layer, r in zip(layers, _rates(net, width), strict=True)
    ]
    after = _layers(net, [replace(w, steps=(*w.steps, (r, u))) for w, r, u in moves], width, 2)
    for layer, old in zip(after, layers, strict=True):
        layer.averages = old.given
    return after


def own(rule: str, net: Net, width: int, seed: int, step: int = 1) -> Own:
    """The own updates of a step at a learning rate M^(-c) (1 where c is not given)."""
    tree = parsed(rule)
    rate, layers = _rates(net, width), state(rule, net, width, seed, step)
    w = [layer.w for layer in layers]
    held, _ = _forward(net, w, width, _data(net.labels, net.classes, net.features, net.probe)[2])
    sizes = [_own(tree, layer, x, width) for layer, x in zip(layers, held, strict=True)]
    return Own(
        tuple(r * batch for r, (batch, _) in zip(rate, sizes, strict=True)),
        tuple(r * other for r, (_, other) in zip(rate, sizes, strict=True)),
    )


def _own(tree: ast.expr, layer: Layer, held: Array, width: int) -> tuple[float, float]:
    """|dW h| on the batch and on samples held out; NaN where a far layer is not read."""
    try:
        update = value(tree, layer)
        return _rms(update.times(layer.h)), _rms(update.times(held))
    except Unread:
        if width <= DRAWN:
            raise
        return math.nan, math.nan


# --- exponents ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slope:
    """An exponent of the width over the upper half of the widths, and its standard error."""

    exponent: float
    error: float
    size: float = 0.0
    """The largest size at the largest width."""

    def __str__(self) -> str:
        return f"{self.exponent:+.2f} ± {self.error:.2f}"


def slope(widths: tuple[int, ...], sizes: Array) -> Slope:
    """The exponent of sizes (seeds, widths) over the upper half of many widths."""
    keep = len(widths) // 2 if len(widths) > 3 else 0
    x = np.log(np.array(widths[keep:], float))
    if not (sizes > 0).all():
        return Slope(-math.inf if (sizes == 0).all() else math.nan, 0.0, float(sizes[:, -1].max()))
    y = np.log(sizes[:, keep:])
    each = (y @ (x - x.mean())) / np.sum((x - x.mean()) ** 2)
    error = float(each.std(ddof=1) / math.sqrt(len(each))) if len(each) > 1 else math.nan
    return Slope(float(each.mean()), error, float(sizes[:, -1].max()))


def exponents(
    rule: str, net: Net, step: int = 1, widths: tuple[int, ...] = WIDTHS, seeds: int = 6,
    on_batch: bool = False,
) -> dict[str, Slope]:  # fmt: skip
    """The exponent of each layer's own update, measured."""
    runs = [[own(rule, net, m, seed, step) for m in widths] for seed in range(seeds)]
    found = {}
    for i, name in enumerate(net.names):
        pick = np.array([[(x.batch if on_batch else x.held)[i] for x in row] for row in runs])
        found[name] = slope(widths, pick)
    return found
