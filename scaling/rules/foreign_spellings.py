"""Rules as code of torch or NumPy writes them, in the words of the language: what a refusal offers.

    torch.sign(G), G.sign(), np.sign(G)      sign(G)
    torch.matmul(A, G), A.mm(G)              A @ G
    G.t(), G.mT, G.transpose(0, 1)           G.T

Only the text is rewritten, name by name; whether it is a rule then decides who parses it.

>>> translated("torch.sign(G.sqrt()) + torch.matmul(L, G)")
'sign(sqrt(G)) + L @ G'
"""

from __future__ import annotations

import ast

from scaling.rules.operators import FUNCTIONS

MATRICES = frozenset("GABLRWI")
PRODUCTS = frozenset({"matmul", "mm", "dot", "bmm"})
TRANSPOSES = frozenset({"t", "transpose", "mT", "H", "mH"})


class _Translation(ast.NodeTransformer):
    """Calls and attributes of other libraries as functions of the language."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """`module.f(X)` and `X.f()`."""
        self.generic_visit(node)
        if not isinstance(node.func, ast.Attribute):
            return node
        name, of = node.func.attr, node.func.value
        operands = node.args if _is_module(of) else [of, *node.args]
        if name in PRODUCTS and len(operands) == 2:
            return ast.BinOp(operands[0], ast.MatMult(), operands[1])
        if name in TRANSPOSES and operands:
            return ast.Attribute(operands[0], "T", ast.Load())
        if name in FUNCTIONS:
            return ast.Call(ast.Name(name, ast.Load()), operands, [])
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        """`X.mT`."""
        self.generic_visit(node)
        if node.attr in TRANSPOSES and not _is_module(node.value):
            return ast.Attribute(node.value, "T", ast.Load())
        return node


def _is_module(tree: ast.expr) -> bool:
    """Whether dotted names begin with one that is no matrix: torch, torch.linalg, np."""
    while isinstance(tree, ast.Attribute):
        tree = tree.value
    return isinstance(tree, ast.Name) and tree.id not in MATRICES


def translated(text: str) -> str:
    """The text in the words of the language, as far as they are known; the same without any."""
    return ast.unparse(_Translation().visit(ast.parse(text, mode="eval")))
