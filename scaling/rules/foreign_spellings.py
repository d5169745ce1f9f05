"""Rules as code of torch or NumPy writes them, in the words of the language: what a refusal offers.

    torch.sign(G), G.sign(), np.sign(G)      sign(G)
    torch.matmul(A, G), A.mm(G)              A @ G
    G.t(), G.mT, G.transpose(0, 1)           G.T
    inv(A), msign(G), G.square(), G^2        A**(-1), orth(G), G*G, G**2
    grad, p.grad, exp_avg, m, v              G, G, ema(G, beta1), ema(G, beta1), ema(G*G, beta2)
    dW = G, W = W - lr*G                     G

Only the text is rewritten, name by name; whether it is a rule then decides who parses it. Names
that a rule may give to its numbers, as m, are rewritten too: ask only where a rule was refused.

>>> translated("torch.sign(G.sqrt()) + torch.matmul(L, G)")
'sign(sqrt(G)) + L @ G'
>>> translated("p = p - lr*m/(v.sqrt() + eps)")
'ema(G, beta1) / (sqrt(ema(G * G, beta2)) + eps)'
"""

from __future__ import annotations

import ast
import re

from scaling.rules.operators import FUNCTIONS

MATRICES = frozenset("GABLRWI")
PRODUCTS = frozenset({"matmul", "mm", "dot", "bmm"})
TRANSPOSES = frozenset({"t", "transpose", "mT", "H", "mH"})
NAMES = {
    **dict.fromkeys(("g", "grad", "gradient"), "G"),
    **dict.fromkeys(("w", "p", "param", "weight", "weights"), "W"),
    **dict.fromkeys(("m", "exp_avg", "momentum_buffer", "buf"), "ema(G, beta1)"),
    **dict.fromkeys(("v", "exp_avg_sq"), "ema(G*G, beta2)"),
}
"""Of what an optimizer keeps, in the code of torch and in papers."""
RATES = frozenset({"lr", "learning_rate", "step_size", "eta"})
CALLS = {
    **dict.fromkeys(("inv", "inverse", "pinv"), "X**(-1)"),
    **dict.fromkeys(("msign", "polar"), "orth(X)"),
    "square": "X*X", "reciprocal": "1/X", "rsqrt": "1/sqrt(X)", "absolute": "abs(X)",
}  # fmt: skip
OPERATORS = {"mul": ast.Mult, "div": ast.Div, "add": ast.Add, "sub": ast.Sub, "pow": ast.Pow}
SIGNS = {
    "^": "**", "⊙": "*", "∘": "*", "·": "*", "×": "*", "−": "-", "⊤": ".T", "ᵀ": ".T", "√": "sqrt",
    "\\": "",
}  # fmt: skip


class _Translation(ast.NodeTransformer):
    """Calls and attributes of other libraries as functions of the language."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """`module.f(X)` and `X.f()`."""
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id not in FUNCTIONS:
            node.func = ast.Attribute(ast.Name("torch", ast.Load()), node.func.id, ast.Load())
        if not isinstance(node.func, ast.Attribute):
            return node
        name, of = node.func.attr.rstrip("_"), node.func.value
        operands = node.args if _is_module(of) else [of, *node.args]
        if name in CALLS and len(operands) == 1:
            return _Put(operands[0]).visit(_read(CALLS[name]))  # type: ignore[no-any-return]
        if name in OPERATORS and len(operands) == 2:
            return ast.BinOp(operands[0], OPERATORS[name](), operands[1])
        if name in PRODUCTS and len(operands) == 2:
            return ast.BinOp(operands[0], ast.MatMult(), operands[1])
        if name in TRANSPOSES and operands:
            return ast.Attribute(operands[0], "T", ast.Load())
        if name in FUNCTIONS:
            return ast.Call(ast.Name(name, ast.Load()), operands, [])
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        """`X.mT`, `p.grad`, `self.exp_avg`."""
        if node.attr in NAMES:
            return _read(NAMES[node.attr])
        self.generic_visit(node)
        if node.attr in TRANSPOSES and not _is_module(node.value):
            return ast.Attribute(node.value, "T", ast.Load())
        return node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """`grad`, `exp_avg`."""
        return _read(NAMES[node.id]) if node.id in NAMES else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        """`lr*X`."""
        self.generic_visit(node)
        rate = node.left.operand if isinstance(node.left, ast.UnaryOp) else node.left
        if isinstance(node.op, ast.Mult) and isinstance(rate, ast.Name) and rate.id in RATES:
            return node.right
        return node


class _Put(ast.NodeTransformer):
    """An operand in the place of X."""

    def __init__(self, operand: ast.expr) -> None:
        self.operand = operand

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """`X`."""
        return self.operand if node.id == "X" else node


def _read(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _is_module(tree: ast.expr) -> bool:
    """Whether dotted names begin with one that is no matrix: torch, torch.linalg, np."""
    while isinstance(tree, ast.Attribute):
        tree = tree.value
    return isinstance(tree, ast.Name) and tree.id not in MATRICES


def translated(text: str) -> str:
    """The text in the words of the language, as far as they are known; the same without any.

    Raises:
        SyntaxError: if it is no expression then either.
    """
    text = re.sub(r"^\s*[\w.]+\s*[-+]?=(?!=)", "", text).strip()
    for sign, other in SIGNS.items():
        text = text.replace(sign, other)
    tree = _Translation().visit(_read(text))
    while _is_step(tree):
        tree = tree.right
    return ast.unparse(tree)


def _is_step(tree: ast.expr) -> bool:
    """Whether it is `W - X`, all of a step, the update of which is X."""
    return (
        isinstance(tree, ast.BinOp)
        and isinstance(tree.op, ast.Sub)
        and isinstance(tree.left, ast.Name)
        and tree.left.id == "W"
    )
