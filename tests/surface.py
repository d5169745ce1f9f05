"""The commands whose whole output is kept in tests/snapshots, one file for each name below.

Output is an interface: people paste it, scripts read it. The rules are chosen for what they bring
into the output: symbols in exponents, dampings of every kind, decays, radii, averages, eigenbases,
means, sums of W, refusals of every rule of inference.
"""

from collections.abc import Iterable

Words = tuple[str, ...]

FORMATS = ("markdown", "latex", "json", "html")
RULES: dict[str, Words] = {
    "sgd": (), "adam": (), "adamw": (), "adafactor": (), "kfac": (), "kfac_pi": (), "ekfac": (),
    "shampoo": (), "soap": (), "muon": (), "sam": (), "h_fac": ("--step", "2"),
    "momentum_penalised": ("--biases",),
    "(B + rho_B*I)**(-e) @ G @ (A + rho_A*trace(A)*I)**(-1/2) + W*fan_in**(-1/2)":
        ("--set", "d_rho_B=delta", "--set", "b_output=beta", "--set", "e=1/3"),
}  # fmt: skip
SHORT = ("sgd", "adamw", "sam")
"""Of these, every layer and every format is printed: the derivations of others are long."""

VARIANTS: list[Words] = [
    ("kfac", "--set", "d_rho_A=0", "--set", "d_rho_B=0"),
    ("kfac", "--biases", "--fisher", "true"),
    ("kfac", "--set", "b_output=oo", "--activation", "tanh"),
    ("shampoo", "--set", "d_rho_L=delta", "--set", "b_output=beta", "--loss", "cross_entropy"),
    ("sgd", "--set", "b_output=oo", "--step", "2"),
    ("sgd", "--init", "mup", "--alignment", "full"),
    ("adam", "--init", "ntk", "--alignment", "none", "--alignment", "output=1/2,3/4,1"),
    ("adamw", "--set", "d_decay=-2"),
    ("adamw", "--step", "2", "--set", "d_decay=1"),
    ("sgd", "--step", "2", "--set", "c_output=2", "--set", "b_output=2"),
    ("momentum", "--step", "2", "--biases"),
    ("muon_ns",), ("lars",), ("lion", "--step", "2"), ("kl_shampoo",), ("shampoo_blocked",),
    ("soap_one_sided",), ("kfac_clipped",), ("adam_atan2", "--activation", "tanh"),
    ("sign(G) + norm(G)*orth(G) - G*rms(W)",),
    ("G / (sqrt(G*G + norm(G)**2) + eps) - sign(G)*abs(G)**(1/2)",),
    ("row_mean(G) @ col_mean(G*G)", "--activation", "tanh"),
    ("clip(G / (rms(G) + eps), 1) + clip(G, fan_in) + atan(G)",),
    ("G @ (A + rho*specnorm(block(A, 4))*I)**(-1) / max(1, norm(G)/sqrt(over_layers(inner(G, G))))",
     "--biases"),
    ("W",), ("(B + L + rho*I)**-1 @ G",), ("G @ (A + rho*I + rho*rho*I)**-1",),
    ("G/(abs(G) + eps) + G/(rms(G)**2 + eps)",), ("G*fan_in**(1/e)*max(-1, fan_in)",),
    ("G + debiased(row_mean(G), 1/2) - row_mean(G)", "--step", "2"),
    ("diag(B)**0 @ (diag(L) + rho*I)**(-1/4) @ G @ (G.T @ G + rho2*I)**(-1/4)",),
]  # fmt: skip

_X, _Y = "(eig(L).T @ G @ eig(R))", "(eig(B).T @ G @ eig(A))"
EDGES: list[Words] = [
    (f"eig(B) @ (-{_Y} / (sqrt(sample_square({_Y})) + eps)) @ eig(A).T",),
    (f"eig(L) @ (-2*{_X}*norm(G) / (sqrt({_X}**2) + eps)) @ eig(R).T",),
    (f"eig(L) @ clip({_X} / norm({_X}), 1) @ eig(R).T",),
    (f"eig(L) @ clip({_X} / rms({_X}), fan_in) @ eig(R).T",),
    (f"eig(L) @ atan({_X}/specnorm({_X})) @ eig(R).T",),
    (f"(eig(R).T.T @ ({_X}.T / (abs({_X}.T) + eps)) @ eig(L).T).T",),
    (f"eig(L) @ ({_X} / ({_X}**0 + eps)) @ eig(R).T",),
    (f"eig(L) @ ({_X} / (sign({_X}**2 + eps) + abs({_X})**(1/2))) @ eig(R).T",),
    (f"eig(L) @ ({_X}*({_X}**2 + eps) / ({_X}**2 + eps)**(3/2)) @ eig(R).T",),
    ("eig(2*L + ema(L, 1/2)) @ sign(eig(2*L + ema(L, 1/2)).T @ G)",),
    ("sign(G @ eig(2*A + R)) @ eig(2*A + R).T",),
    ("sign(G @ eig(A/2)) @ eig(A/2).T", "--layer", "output"),
    ("sign(G @ eig(G.T @ G)) @ eig(G.T @ G).T",),
    ("eig(L) @ sign(eig(L).T @ (orth(G) - 2*G @ R))",),
    ("eig(L) @ sign(eig(L).T @ (G/2 + ema(G, 1/2)*norm(G)))",),
    ("eig(L) @ sign(eig(L).T @ (L/2 @ (ema(L, 1/2) @ G)))",),
    ("eig(L) @ sign(eig(L).T @ (L @ (L**(1/2) @ (-G))))",),
    ("eig(L) @ sign(eig(L).T @ ((G @ G.T + 2*L) @ G @ R.T))",),
    ("eig(L) @ sign(eig(L).T @ ((G @ A @ G.T) @ G))", "--layer", "input"),
    (f"eig(L) @ {_X} @ eig(R).T + eig(L) @ (eig(L).T @ G)",),
    ("(fan_in*eig(L)) @ sign((-eig(L)).T @ G)",),
    ("eig(L) @ ((fan_in*eig(L)).T @ G)",),
    ("(G + decay*W).T.T", "--set", "d_decay=1"), ("(W.T*fan_in**(-1) + 2*G.T).T",),
    ("(2*I) @ G @ (I/3 + I)",), ("G*sqrt(norm(G))*sign(rms(G))*abs(norm(G))",),
    ("clip(G - G, 1) + G*clip(norm(G)/rms(G), 1)*atan(norm(G)*fan_in)",),
    ("(G - G)**2*G",), ("G @ diag(-A/2)",), ("G @ block(((A - A/2)/3).T, 8)",),
    ("G @ diag(2*R + block(A*3, 4))",),
    ("inner(G, (B/2 + L.T) @ G)*G",), ("inner(G, ema(G, 1/2) @ diag(A)/norm(G))*G",),
    ("inner(G, G @ block(2*R, 4)**2)*G",),
    ("newton_schulz(G - G, 5) + newton_schulz(G, 3)",), ("G/specnorm(sign(G))",),
    ("G/specnorm(sign(G) + orth(G)*norm(G))",), ("G*norm(row_mean(G))*rms(col_mean(G))",),
    ("G*norm(G + W)*specnorm(W)*rms(G + W)",), ("G*trace(L)*norm(diag(A))*rms(A + I)",),
    ("col_mean(G) + G",), ("row_mean(G) + G/3 - G/6",), ("G + col_mean(G) + row_mean(G) - -G",),
    ("(G*sample_square(A @ G.T).T)/rms(G)**2", "--layer", "output"),
    ("over_layers(norm(G) + 1)*G/over_layers(rms(G)**2 + norm(W))", "--layer", "input"),
    ("sign(G)*abs(G)**(e1*e2/2 + e1) + G**(3 - 2)",),
    ("G*norm(G)**(e1*e2 - e1)*fan_out**e2",),
    ("ema(G + decay*W, 1/2)", "--step", "2"), ("ema(W, 1/2)/fan_in + G", "--step", "2"),
    ("W/fan_in + G", "--step", "2"), ("ema(G*norm(W), 1/2)", "--step", "2"),
    ("ema(W/fan_in + orth(G), 1/2)", "--step", "2"),
    ("ema(row_mean(G) + G, 1/2)", "--step", "2"), ("G*ema(rms(W), 1/2)", "--step", "2"),
    ("debiased(norm(G) - rms(G), 1/2)*G", "--step", "2"),
    ("debiased(G, 1/2) - G + ema(G, 1/3)", "--step", "2"),
    ("sign(ema(G*G, 1/2)*G)", "--step", "2", "--layer", "output"),
    ("G/sqrt(ema(row_mean(G*G), 1/2) @ col_mean(G*G))", "--step", "2"),
    ("(ema(L, 1/2) + rho*I)**(-1/4) @ ema(G, 1/2)", "--step", "2", "--layer", "input"),
    ("G @ (ema(diag(A), 1/2) + rho*I)**(-1/2)", "--step", "2"),
    ("G*norm(eig(L).T @ G @ eig(A))",),
    ("G + G/2 - 3/2*row_mean(G)", "--biases", "--layer", "hidden_bias"),
    ("sgd", "--init", "mup", "--step", "2"), ("momentum", "--init", "ntk", "--step", "2"),
    ("G*(row_mean(G*G).T @ row_mean(abs(G)))",), ("G*(row_mean(G).T @ row_mean(G))",),
    ("G*trace(diag(A)**(-1/8))",), ("G/abs(clip(G/rms(G), 1))",),
    ("G @ (2*I @ A) @ (A @ I)",),
    ("(G.T + orth(G).T).T",), ("((G.T + orth(G.T)) @ B).T",),
    ("(ema(L, 1/2) + rho*I)**(-1/4) @ G", "--step", "2", "--format", "json"),
    ("kfac", "--biases", "--layer", "hidden_bias"), ("adam", "--biases", "--layer", "output_bias"),
    ("adamw", "--set", "c_hidden=2"), ("sgd", "--set", "b_output=oo", "--layer", "input"),
    ("sgd", "--depth", "4", "--layer", "hidden_2"), ("sam", "--depth", "4", "--layer", "hidden_1"),
    ("momentum", "--depth", "4", "--step", "2", "--layer", "hidden_2"),
    ("G*fan_in**e + G",), ("G*fan_in**e + W/fan_in",),
    ("G + W*fan_in**(-1 - e)", "--layer", "output"),
    ("G*over_layers(norm(ascended(radius*G/norm(G))))",),
    ("ema(G, 1/2)*fan_in**(-e) + ema(G*G*G, 1/3)*fan_in**2", "--step", "2"),
    ("G*norm(G)**(-e) + row_mean(G)*fan_in**e", "--layer", "output"),
    ("G*sqrt(abs(norm(G) - rms(G)))*(norm(G) - rms(G))**2",),
    ("(G.T / sqrt(row_mean(G*G).T)).T",), ("(abs(col_mean(G)).T * G.T).T",),
    ("G + (2*I) @ W/fan_in",), ("W", "--step", "2", "--set", "c=1"),
    ("W + G*G*G", "--step", "2", "--set", "c=1"), ("col_mean(G) + row_mean(G)",), ("+G",),
    ("inner(G, ema(L, 1/2) @ G)*G",), ("G/specnorm(orth(sign(G)))",),
    (f"eig(L) @ ((eig(L).T @ (-2*G) @ eig(R)) / sqrt({_X}**2)) @ eig(R).T",),
    (f"eig(L) @ ({_X} * (({_X}**2 + eps) / ({_X}**2 + 2*eps))) @ eig(R).T",),
    ("G*newton_schulz(G, 5)*G", "--layer", "input"), ("newton_schulz(G @ A, 5)",),
    (f"eig(L) @ ({_X}**3 / (({_X} + eps*{_X})**2 + eps)) @ eig(R).T",),
    ("momentum_penalised", "--step", "2", "--biases", "--layer", "output_bias"),
    ("adafactor_relative", "--step", "2", "--activation", "tanh"),
]  # fmt: skip
"""Rules at the edge of what is covered: for each, one derivation."""

PAIRS: list[Words] = [
    ("sgd", "adam"),
    ("sgd; a_hidden=1; b_hidden=-1/2; c_hidden=-2", "sgd"),
    ("sgd; c_hidden=1; b_output=1/2", "momentum"),
    ("kfac", "kfac; d_rho_A=0; e_A=1"),
    ("kfac; e_A=1; e_B=1", "foof; e_A=1"),
    ("adam; init=ntk; alignment=full", "adam; init=standard; alignment=full"),
    ("adam; init=ntk; alignment=full", "adam; init=ntk; alignment_output=none"),
    ("adamw; a_input=1/2; b_input=-1/2", "adamw; init=mup"),
    ("sign(G)/fan_in", "sign; c=0"),
    ("adam; alignment=output=none; init=ntk", "adam; init=ntk; alignment_output=none"),
]


def _each(verb: str, rules: Iterable[Words], *options: str) -> list[Words]:
    return [(verb, *words, *options) for words in rules]


def _explained(names: Iterable[str]) -> list[Words]:
    layers = ("input", "hidden", "output")
    return [("explain", x, *RULES[x], "--layer", layer) for x in names for layer in layers]


_NAMED = [(name, *options) for name, options in RULES.items()]
_FEW = [
    (name, *options) for name, options in RULES.items() if name in (*SHORT, "kfac") or " " in name
]

ANSWERS: dict[str, list[Words]] = {
    "derive": _each("derive", [*_NAMED, *VARIANTS]),
    "predict": [
        *_each("predict", [*(x for x in _NAMED if x[0] != "h_fac"), *VARIANTS]),
        ("predict", "sgd", "--set", "c=0"),
        ("predict", "sgd", "--set", "c_hidden=1/2", "--set", "c_input=-1/2"),
        ("predict", "kfac", "--set", "b_output=1/2", "--set", "c_output=gamma"),
        ("predict", "sgd", "--set", "b_hidden=1", "--set", "c=0"),
        ("predict", "sam", "--set", "d_radius=1"),
        ("predict", "G*fan_in**e", "--set", "c=0", "--depth", "4"),
        ("predict", "G*fan_in**e + W/fan_in", "--set", "c=-1/2"),
        ("predict", "G*fan_in**(-e)", "--set", "c_hidden=-1", "--set", "c_output=1"),
        ("predict", "ema(G, 1/2)*fan_in**(-e)", "--step", "2"),
        ("predict", "sign", "--depth", "4", "--set", "c_input=-1/2"),
        ("predict", "sgd", "--step", "2", "--biases", "--set", "b_output=beta"),
        ("predict", "sgdw", "--set", "d_decay=1", "--set", "b_output=beta"),
    ],
    "explain": [
        *_explained(SHORT),
        *_each("explain", [x for x in _NAMED if x[0] not in (*SHORT, "h_fac")]),
        ("explain", "h_fac", "--step", "2", "--layer", "output"),  # hidden alone has 90 kB
    ],
    "explain_variants": _each("explain", VARIANTS),
    "explain_edges": _each("explain", EDGES),
    "compare": _each("compare", PAIRS),
    **{
        style: [
            *_each("derive", _FEW, "--format", style),
            *_each("predict", _FEW, "--format", style),
            *_each("compare", PAIRS[:4], "--format", style),
            *_each("explain", [(name,) for name in SHORT], "--format", style),
        ]
        for style in FORMATS
    },
    "table": [("table", "--alignment", "none", "--format", "json")],
    "list": [("list", "--format", "markdown")],
}

MALFORMED = [
    "", "kfca", "sgdd", "G @ G", "G @ A @ B", "A @ G", "G + A", "G @ (A + 1)", "(A + rho) @ G.T",
    "G * A", "G / A", "1 / A", "G @ 2", "L - R", "G + row_mean(G).T", "A", "trace(A)", "G.T",
    "trace(G)", "2 * orth(A)", "G * sqrt(A)", "G * norm(I)", "G * norm(rho)", "block(A, 0)",
    "G @ block(A, 1/2)", "newton_schulz(G, 0)", "ema(G, 1)", "ema(G, rho)", "ema(G, fan_in)",
    "ema(G)", "sign(G, G)", "inner(G)*G", "G*inner(G, G.T)", "G*max(1, G)", "clip(G, G)",
    "G**rho", "G @ A**(-1/beta)", "G**(2**e)", "G @ A**fan_in", "G @ A**(1/0)",
    "G @ A**(0/0)", "Q @ G", "G + sing(G)", "ORTH(G)", "G @ (A + rho*I", "G ) A", "G[0]", "G // 2",
    "G[\n0]", "G @\nG",
    "G @ A.trace", "G if A else B", "f(x=1)", "sign(*G)", "Δ*G", "é*G", "rhö*G @ B", "G*sign",
    "G*1e999", "G*1e31", "G*" + "9" * 31, "G*1j", "+".join("G" * 2001),
    "abs(" * 101 + "G" + ")" * 101, "G*" + "9" * 45, "G" + " + G" * 60 + " @ G",
    "G + " + "norm(G + G + G)*" * 4 + "A",
    "eig(L) @ G", "eig(R).T @ G", "eig(B) @ (eig(L).T @ G)", "eig(L).T @ G + G",
    "(eig(L).T @ G) * (eig(B).T @ G)", "(eig(L).T @ G) @ A", "eig(L)**2 @ G", "eig(L) @ eig(L)",
    "eig(L) + eig(L)", "eig(L) * eig(L)", "1 / eig(L)", "eig(G)", "eig(I)", "norm(eig(L))",
    "ema(eig(L), 1/2)", "orth(eig(L).T @ G)", "row_mean(eig(L).T @ G)", "eig(L).T @ G",
    "G @ eig(A**(-1)) @ eig(A**(-1)).T", "G @ eig(A - R) @ eig(A - R).T",
    "G @ eig(0*A + R) @ eig(0*A + R).T", "G * sample_square(G*G)", "sample_square(A) @ G",
    "ascended(A)", "ascended(radius*ascended(radius*G))", "over_layers(G)*G", "__import__('os')",
]  # fmt: skip
UNCOVERED = [
    "inner(orth(sign(G)), G)*G", "inner(G, orth(sign(G)))*G", "orth(orth(sign(G))*G)",
    "inner(G, (B - L) @ G)*G", "eig(L) @ (eig(L).T @ sign(G))", "row_mean(orth(sign(G))) + G",
    "eig(L) @ (eig(L).T @ (block(L, 4) @ G))",
    "debiased(ascended(radius*G/norm(G)), 1/2) - G", "G/norm(orth(sign(G)))",
    "G @ diag(A) @ eig(A) @ eig(A).T", "inner(G, (-L) @ G)*G", "orth(orth(sign(G)))",
    "G*sqrt(max(-rms(G), -rms(G)/2))", "((G @ A) @ G.T)**(1/2) @ G",
    "eig(L) @ (eig(L).T @ (-(B @ G)))", "eig(L) @ (eig(L).T @ orth(B @ G))",
    "eig(L) @ (eig(L).T @ ema(B @ G, 1/2))", "eig(L) @ (eig(L).T @ (G + B @ G))",
    "eig(L) @ (eig(L).T @ (2*(B @ G)))", "eig(L) @ (eig(L).T @ (G.T @ B).T)",
    "eig(L) @ (eig(L).T @ ((2*((B @ G) @ G.T)) @ G))", "eig(L) @ (eig(L).T @ ((L + B) @ G))",
    "eig(L) @ (eig(L).T @ (ema(B, 1/2) @ G))", "eig(L) @ (eig(L).T @ (B**2 @ G))",
    "eig(ema(B @ G @ (B @ G).T, 1/2)) @ (eig(ema(B @ G @ (B @ G).T, 1/2)).T @ G)",
    "eig(2*(B @ G @ (B @ G).T)) @ (eig(2*(B @ G @ (B @ G).T)).T @ G)",
    "G*specnorm(diag(A)**(-1/8))", "G*norm(diag(A)**(-1/3))", "G/orth(sign(G))",
    "abs(G)", "G*orth(sign(G))", "orth(sign(G))/abs(G)", "col_mean(G) + 0*G", "W + row_mean(G)",
    "eig(L) @ (eig(B).T @ G)", "eig(B) @ (eig(A).T @ G)", "G - G/0", "G*sqrt(norm(G) - rms(G))",
    "G @ block(A - 2*R, 4)", "G @ diag(R - A)", "inner(G, (L @ B) @ G)*G", "inner(G, W)*G",
    "inner(G, -G)*G", "G + sample_square(G)*G/G", "G @ block(-A + 2*R, 4)", "row_mean(G) + W",
    "eig(L) @ sign(eig(L).T @ ((L - B) @ G))", "over_layers(norm(G) - rms(G))*G",
    "G/over_layers(rms(G) - 1)", "eig(A + L) @ G", "G*trace(L @ B)", "G*rms(L @ B)",
    "eig(block(L, 4)) @ (eig(block(L, 4)).T @ G)", "G**(e + 1)",
    "inner(2*G, (G @ G.T) @ (G/rms(G)))*G",
    f"eig(L) @ (({_X}*{_X} + eps) * {_X} / (rms(G) - ({_X}*{_X} + eps))) @ eig(R).T",
    f"eig(L) @ (({_X} + eps) / ({_X}*{_X})) @ eig(R).T", f"eig(L) @ ({_X} + G) @ eig(R).T",
    f"eig(L) @ ({_X} / (({_X}**2 - eps)**2)) @ eig(R).T", f"eig(L) @ ({_X}/0) @ eig(R).T",
    f"eig(L) @ ({_X} / ({_X}**2 + eps - 2*eps)**2) @ eig(R).T",
    f"eig(L) @ ({_X} * (1 - 2*eps)**(1/2)) @ eig(R).T", f"eig(L) @ {_X}**(-1) @ eig(R).T",
    f"eig(L) @ (eps*{_X}**0 / {_X}**2) @ eig(R).T",
    f"eig(B) @ ({_Y}/{_Y}**2 + {_Y}) @ eig(A).T",
    "G + abs(G)", "G*row_mean(G)", "1/G", "G/row_mean(G*G)", "sign(G)/abs(G)**(1/2)",
    "(L @ B)**(-1) @ G", "G @ (W.T @ W + rho*I)**(-1)", "W @ A", "G*W", "orth(W)", "orth(G + W)",
    "sign(W)", "sign(G + W)", "G/W", "G + decay*W + decay2*W", "decay*G", "clip(W, 1)",
    "row_mean(W) @ col_mean(G)", "sign(orth(sign(G)))", "sign(G) @ sign(G).T @ G", "G**(1/2)",
    "sqrt(G)", "G/(G - G)", "G*norm(G - G)**(-1)", "G*(G - G)**(-1)", "G*trace(A @ R)",
    "G @ diag(A @ R)", "G*(row_mean(G).T @ row_mean(abs(G)))", "(G @ A)/abs(G)", "G*sqrt(-G*G)",
    "G - row_mean(G) + fan_in*row_mean(G - row_mean(G))", "G*trace(A - trace(A)/fan_in*I)",
    "G*row_mean(G**-2)**(-1/2)", "G/norm(G**-1)", "diag(L)**-1 @ G", "G/(abs(G) - eps)",
    "G @ (A - rho*I)**(-1/2)", "G @ (A - R)", "orth(G*G)",
    "G @ block(block(A, 4), 6)", "G*specnorm(diag(A)**-1)", "G*trace(diag(A)**-1)",
    "newton_schulz(sign(G), 5)", "G*(norm(G) - rms(G))**(1/2)",
    "G*max(-1, rms(G))", "clip(G, norm(G) - rms(G))", "G / (over_layers(norm(G)) + rho)",
    "G / (G*G - rms(G)**2)", "G*row_mean(G + G*G)", "sign(G + G*G)", "(G + orth(G))/abs(G)",

    f"eig(L) @ abs({_X}) @ eig(R).T", f"eig(L) @ ({_X} + eps) @ eig(R).T",
    f"eig(L) @ ema({_X}, 1/2) @ eig(R).T", "eig(L) @ (eig(L).T @ (G @ A) @ eig(R)) @ eig(R).T",
    "eig(L) @ (eig(L).T @ W)", "eig(B @ G @ (B @ G).T) @ (eig(B @ G @ (B @ G).T).T @ G)",
    f"eig(L) @ ({_X} / sample_square({_X})) @ eig(R).T",
    f"eig(B) @ (sample_square({_Y}) / {_Y}) @ eig(A).T",
    f"eig(B) @ ({_Y} / clip({_Y}**2 + eps, 1)) @ eig(A).T",
    f"eig(B) @ ({_Y} * norm({_Y}**2 + eps)) @ eig(A).T",
    f"eig(B) @ ({_Y} / ({_Y}**2 - eps)**(1/2)) @ eig(A).T",
    "G * sample_square(G) / abs(G)", "(G @ A) / sqrt(sample_square(G))", "G*sample_square(sign(G))",
    "ascended(radius*G/norm(G)) - G", "ascended(radius*W)",
    "G + norm(G)*sign(ascended(radius*G/norm(G))) - norm(G)*sign(G)",
    "ascended(radius*G/norm(G)) + col_mean(ascended(radius*G/norm(G)))",
    "ascended(radius*G/sqrt(over_layers(norm(radius*G)**2)))",
    "ascended(radius*sign(G)*abs(G)*abs(G)*sign(G))",
]  # fmt: skip

SAM = "ascended(radius*G/norm(G))"
SETTINGS: list[Words] = [
    ("G + fan_in*fan_out*(debiased(col_mean(G), 1/2) - col_mean(G))",
     "--step", "2", "--activation", "tanh"),
    ("ekfac", "--fisher", "true"), ("(B + L + rho*I)**-1 @ G", "--fisher", "true"),
    ("sgd", "--set", "d_rho_A=1"), ("sgd", "--set", "b_ouput=1"), ("kfac", "--set", "d_rho_A"),
    ("kfac", "--set", "d_rho_A="), ("kfac", "--set", "=1"), ("kfac", "--set", "rho_A=-1"),
    ("kfac", "--set", "rho_A=x"), ("sgd", "--set", "b=1/0"), ("sgd", "--set", "b=oo-oo"),
    ("sgd", "--set", "b=nan"), ("sgd", "--set", "b=G"), ("sgd", "--set", "c=oo"),
    ("sgd", "--set", "b=-oo"), ("kfac", "--set", "e_A=oo"), ("kfac", "--set", "e_A=sign(1)"),
    ("kfac", "--set", "d=1"), ("kfac", "--set", "d_hidden=1"), ("kfac", "--set", "d_rho_A=oo"),
    ("sgd", "--set", "B=1"), ("sgd", "--set", "c=c_hidden"), ("adam", "--set", "beta1=1"),
    ("sgd", "--set", "b_hidden=0"), ("sgd", "--set", "b_hidden=1"), ("sgd", "--set", "b_output=0"),
    ("sgd", "--set", "b_input=-1/2"), ("sgd", "--set", "b_hidden=beta"),
    ("sgd", "--set", "a_hidden=1", "--set", "b_hidden=0"), ("sgd", "--init", "std"),
    ("sgd", "--alignment", "2,1,1"), ("sgd", "--alignment", "1,1"), ("sgd", "--alignment", "fulll"),
    ("sgd", "--alignment", "input=full"), ("sgd", "--alignment", "hiden=full"),
    ("sgd", "--step", "0"), ("sgd", "--step", "3"), ("soap", "--step", "2"), ("sam", "--step", "2"),
    ("sgd", "--step", "2", "--alignment", "full"), ("sgd", "--step", "2", "--set", "c_hidden=-1"),
    ("sgd", "--step", "2", "--set", "c_output=0", "--set", "b_output=1/2"),
    ("sgdw", "--step", "2", "--set", "d_decay=-3"),
    ("G + row_mean(G) + col_mean(G)", "--step", "2"), ("ema(B, 0.9)**(-1) @ G", "--step", "2"),
    ("(diag(L) + fan_in**(-9)*I)**(-1/4) @ ema(G, 0.9)", "--step", "2"),
    ("G / abs(ema(G, 0.9))", "--step", "2"), ("ema(G, 0.9) / abs(G)", "--step", "2"),
    ("ema(G + orth(G) @ (A - R), 0.9)", "--step", "2"), ("col_mean(G) + G", "--step", "2"),
    ("W", "--step", "2"), ("debiased(G, 1/2) - G", "--step", "2"),
    ("debiased(norm(W), 1/2)*G - norm(W)*G", "--step", "2"),
    ("ema(W + G, 1/2) - W", "--step", "2"), ("ema(W, 1/2) - W", "--step", "2"),
    ("G + norm(G)*col_mean(G)/norm(col_mean(G))", "--step", "2", "--activation", "tanh"),

    ("(G + sign(row_mean(G))*abs(G))*abs(G)", "--activation", "tanh"),
    ("sign(G)*abs(G)**(-e)",), ("clip(G, fan_in**e)", "--set", "b_output=beta"),
    ("kfac", "--fisher", "true", "--set", "b_output=1/4"),
    (SAM, "--set", "d_radius_hidden=-1/2"), (SAM, "--set", "b_output=oo"),
    (SAM, "--set", "b_output=2"),
    (f"(B + rho*I)**(-1/2) @ ({SAM}/abs({SAM})**(1/2))",),
    ("(B + rho*I)**-1 @ ((diag(B) + rho*I)**-1 @ G)", "--set", "d_rho=3"),
]  # fmt: skip

REFUSALS: dict[str, list[Words]] = {
    "refused_rules": _each("derive", [(text,) for text in MALFORMED]),
    "refused_sizes": _each("derive", [(text,) for text in UNCOVERED]),
    "refused_settings": [
        *_each("derive", SETTINGS),
        ("predict", "sgd", "--set", "b_hidden=0", "--activation", "tanh"),
        ("predict", "kfac", "--fisher", "true", "--set", "b_output=1/4", "--set", "c=0"),
        ("table", "--step", "3"), ("predict", "adam", "--alignment", "measured"),
        ("explain", "sgd", "--layer", "hiden"),
        ("compare", "sgd; c_hiden=1", "sgd"), ("compare", "sgd; c=1; c=2", "sgd"),
        ("compare", "G + W; a=1", "G + W"), ("compare", "clip(G, 1); a=1", "sgd"),
        ("compare", "G + 8*sign(G); a=1", "sgd"),
    ],
}  # fmt: skip
"""What is refused, with exit code 2."""
