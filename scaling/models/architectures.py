"""Ready-made networks, a few lines each, on the nodes that a tracer makes.

Each takes the quantity that grows, ``axis``; what is listed grows with it, everything else is
fixed. Constants of the code are arguments, as exponents of M.

>>> [p.name for p in perceptron(3).parameters]
['input', 'hidden', 'output']
>>> [p.name for p in transformer("width").parameters]
['embedding', 'positions', 'norm.gain', 'norm.bias', 'readout']
"""

from __future__ import annotations

from sympy import Expr, S

from scaling.models.building import Builder
from scaling.models.graph import Graph, Start, fixed
from scaling.sizes.scale import HALF

ZERO, ONE = S.Zero, S.One


def perceptron(
    depth: int = 3,
    biases: bool = False,
    activation: str = "relu",
    loss: str = "mean_squared_error",
    b: dict[str, Expr] | None = None,
) -> Graph:
    """A fully connected network of ``depth`` weight matrices; its width grows."""
    m, given = Builder("width"), b or {}
    names = ["input", *(_hidden(depth)), "output"]
    x = m.data("x", fixed(2))
    for k, name in enumerate(names):
        last = k == len(names) - 1
        fan_out = ZERO if last else ONE
        x = m.linear(name, x, m.axes(x)[-1], fan_out, biases, b=given.get(name))
        x = x if last else m.apply(activation, x)
    return m.graph(x, loss)


def plain(activation: str = "relu", biases: bool = False, loss: str = "cross_entropy") -> Graph:
    """Dense layers in a row without residual sums; their number grows, biases start at zero."""
    m, body = Builder("depth"), Builder("depth", "blocks.")
    x = m.apply(activation, m.linear("input", m.data("x", fixed(2)), ZERO, ZERO))
    h = body.linear("0", body.argument("x", 0, m.axes(x)), ZERO, ZERO)
    h = body.add(h, body.parameter("0_bias", fixed(1), Start.ZERO)) if biases else h
    x = m.repeat(body, (body.apply(activation, h),), ONE, x)
    return m.graph(m.linear("output", x, ZERO, ZERO), loss)


def _hidden(depth: int) -> list[str]:
    middle = depth - 2
    return ["hidden"] if middle == 1 else [f"hidden_{k + 1}" for k in range(middle)]


def convolutional(depth: int = 3, kernel: Expr = ZERO, axis: str = "width") -> Graph:
    """Convolutions, a mean over space, a readout."""
    m = Builder(axis)
    width = ONE if axis == "width" else ZERO
    x = m.data("x", fixed(4))
    for k in range(depth - 1):
        w = m.parameter(f"conv_{k + 1}", (width, m.axes(x)[1], kernel, kernel))
        axes = (m.axes(x)[0], width, *m.axes(x)[2:])
        x = m.apply("relu", m.add_node("convolve", (x, w), axes))
    x = m.add_node("reduce", (x,), m.axes(x)[:2], kind="mean", over=(2, 3), keep=False)
    return m.graph(m.linear("output", x, width, ZERO))


def residual(
    axis: str = "depth",
    layers: int = 2,
    multiplier: Expr = ZERO,
    norms: bool = True,
    biases: bool = False,
    activation: str = "relu",
    loss: str = "cross_entropy",
) -> Graph:
    """Residual blocks of ``layers`` dense layers, x + M^multiplier F(norm(x))."""
    m = Builder(axis)
    width, count = (ONE, ZERO) if axis == "width" else (ZERO, ONE)
    x = m.linear("input", m.data("x", fixed(2)), ZERO, width)
    body = Builder(axis, "blocks.")
    stream = body.argument("x", 0, m.axes(x))
    h = body.norm(stream) if norms else stream
    for k in range(layers):
        h = body.linear(f"{k}", h, width, width, biases)
        h = body.apply(activation, h) if k < layers - 1 or layers == 1 else h
    out = body.add(stream, body.scaled(h, multiplier, "block: residual multiplier"))
    x = m.repeat(body, (out,), count, x)
    x = m.norm(x) if norms else x
    return m.graph(m.linear("output", x, width, ZERO), loss)


def transformer(
    axis: str = "width",
    attention: Expr | None = None,
    multiplier: Expr = ZERO,
    tied: bool = False,
    gated: bool = False,
    grouped: bool = False,
    packed: bool = False,
) -> Graph:
    """A decoder with one attention and one dense part a block, norms before both.

    ``axis``: width (the head size grows with it), heads, sequence, depth or vocabulary.
    ``attention``: exponent of the factor of the logits, head_size^-1/2 unless given.
    ``multiplier``: exponent of the factor of both residual branches. ``tied``: the embedding is the
    readout. ``gated``: the dense part has a gate. ``grouped``: all heads share one key and value.
    ``packed``: queries, keys and values are parts of one matrix.
    """
    m = Builder(axis)
    width = ONE if axis in ("width", "heads") else ZERO
    size = ONE if axis == "width" else ZERO
    heads = ONE if axis == "heads" else ZERO
    length = ONE if axis == "sequence" else ZERO
    words = ONE if axis == "vocabulary" else ZERO
    count = ONE if axis == "depth" else ZERO
    scale = -size * HALF if attention is None else attention
    tokens = m.data("tokens", (ZERO, length), integer=True)
    table = m.parameter("embedding", (words, width))
    x = m.add_node("gather", (table, tokens), (ZERO, length, width), axis=0)
    x = m.add(x, m.parameter("positions", (length, width)))
    body = Builder(axis, "blocks.")
    stream = body.argument("x", 0, m.axes(x))
    h = body.norm(stream, "norm_1.gain", "norm_1.bias")
    shape, split = (ZERO, length, heads, size), (((0,), (0,)), ((1,), (1,)), ((2,), (2, 3)))
    names = ("query", "key", "value")
    if packed:
        whole = body.linear("packed", h, width, width)
        parts = [body.part(whole, 2, k, k + 1) for k in range(3)]
    else:
        outs = (width, *((size, size) if grouped else (width, width)))
        parts = [body.linear(x, h, width, n) for x, n in zip(names, outs, strict=True)]
    shared = "btd" if grouped else "bthd"
    query, key, value = (
        x if grouped and x != parts[0] else body.reshape(x, shape, split) for x in parts
    )
    logits = body.contract(f"bshd,{shared}->bhst", query, key)
    logits = body.scaled(logits, scale, "attention: scale")
    mixed = body.contract(f"bhst,{shared}->bshd", body.softmax(logits), value)
    mixed = body.reshape(mixed, m.axes(x), (((0,), (0,)), ((1,), (1,)), ((2, 3), (2,))))
    branch = body.scaled(
        body.linear("projection", mixed, width, width), multiplier, "attention: multiplier"
    )
    stream = body.add(stream, branch)
    h = body.norm(stream, "norm_2.gain", "norm_2.bias")
    up = body.linear("up", h, width, width)
    if gated:
        up = body.multiply(body.apply("silu", body.linear("gate", h, width, width)), up)
    else:
        up = body.apply("gelu", up)
    branch = body.scaled(body.linear("down", up, width, width), multiplier, "dense: multiplier")
    out = body.add(stream, branch)
    x = m.repeat(body, (out,), count, x)
    x = m.norm(x, "norm.gain", "norm.bias")
    if tied:
        return m.graph(m.contract("bsd,vd->bsv", x, table))
    return m.graph(m.linear("readout", x, width, words))


def mixture(axis: str = "width") -> Graph:
    """A residual block of experts: a router, its largest probabilities, two layers an expert."""
    m = Builder(axis)
    width = ONE if axis == "width" else ZERO
    experts = ONE if axis == "experts" else ZERO
    x = m.linear("input", m.data("x", fixed(2)), ZERO, width)
    h = m.norm(x)
    router = m.softmax(m.linear("router", h, width, experts))
    up = m.parameter("up", (experts, width, width))
    down = m.parameter("down", (experts, width, width))
    y = m.apply("relu", m.contract("bd,edm->bem", h, up))
    y = m.contract("bem,emd->bed", y, down)
    y = m.contract("be,bed->bd", router, y)
    x = m.norm(m.add(x, y))
    return m.graph(m.linear("output", x, width, ZERO))


def lora(axis: str = "width", multiplier: Expr = ZERO) -> Graph:
    """A frozen network with one adapter W + M^multiplier B A; B starts at zero, A at 1/fan_in."""
    m = Builder(axis)
    width = ONE if axis == "width" else ZERO
    rank = ONE if axis == "rank" else ZERO
    x = m.apply("relu", m.linear("input", m.data("x", fixed(2)), ZERO, width, trained=False))
    low = m.linear("A", x, width, rank, b=width * HALF)
    adapted = m.linear("B", low, rank, width, start=Start.ZERO)
    adapted = m.scaled(adapted, multiplier, "adapter: multiplier")
    x = m.add(m.linear("hidden", x, width, width, trained=False), adapted)
    return m.graph(m.linear("output", m.apply("relu", x), width, ZERO, trained=False))


def recurrent(steps: int = 3) -> Graph:
    """A cell h = tanh(W h + U x_t), unrolled, and a readout; its width grows."""
    m = Builder("width")
    w = m.parameter("recurrence", (ONE, ONE))
    u = m.parameter("input", (ONE, ZERO))
    h = ""
    for k in range(steps):
        x = m.data(f"x_{k}", fixed(2))
        new = m.contract("bi,oi->bo", x, u)
        h = m.apply("tanh", m.add(m.contract("bi,oi->bo", h, w), new) if h else new)
    return m.graph(m.linear("output", h, ONE, ZERO))
