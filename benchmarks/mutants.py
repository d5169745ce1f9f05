"""Mutants of scaling/: every file with one small change, by the operators of mutmut.

The changes are mutmut's: every operator, number, text, argument, default and branch inside of a
function. They are put in differently. mutmut compiles all mutants of a file side by side behind
wrappers, which decorated functions cannot have; here a mutant is the whole file with one change, so
that properties and commands are mutated too. Code outside of functions (tables, fields of classes)
is not mutated, and neither are annotations, decorators and calls of len and isinstance.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Sequence
from pathlib import Path

import libcst as cst
from libcst.metadata import MetadataWrapper
from mutation_plan import Mutant, file_of, modules
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode


class _Visitor(MutationVisitor):
    """mutmut's, into decorated functions too."""

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef) and node.decorators:
            node = node.with_changes(decorators=())
        return bool(super()._skip_node_and_children(node))


def changes(path: Path) -> tuple[cst.Module, list[tuple[cst.CSTNode, cst.CSTNode]]]:
    """A file as a tree, and every (node, what replaces it) inside of its functions."""
    code = path.read_text()
    wrapper = MetadataWrapper(cst.parse_module(code))
    visitor = _Visitor(mutation_operators, IgnoredCode(set(), set(), set()))
    module = wrapper.visit(visitor)
    inside = [
        x
        for x in visitor.mutations
        if isinstance(x.contained_by_top_level_function, cst.FunctionDef)
    ]
    return module, [(x.original_node, x.mutated_node) for x in inside]


def everything() -> dict[str, int]:
    """How many mutants each module has."""
    return {name: n for name in modules() if (n := len(changes(file_of(name))[1]))}


def build(module: str, numbers: Sequence[int]) -> list[Mutant]:
    """Mutants of one module by number."""
    tree, found = changes(file_of(module))
    mutants = []
    for number in numbers:
        source = tree.deep_replace(*found[number]).code
        lines = list(difflib.unified_diff(tree.code.split("\n"), source.split("\n"), n=0))[2:]
        line = int(lines[0].split()[1].lstrip("-").partition(",")[0])
        function, around = _place(tree.code, line)
        mutants.append(Mutant(module, number, function, around, line, "\n".join(lines[1:]), source))
    return mutants


def _place(code: str, line: int) -> tuple[str, tuple[int, ...]]:
    """The function at a line, and the lines of the statement there."""
    nodes = (x for x in ast.walk(ast.parse(code)) if isinstance(x, ast.stmt | ast.match_case))
    spans = [(*_span(x), x) for x in nodes]
    around = sorted((x for x in spans if x[0] <= line <= x[1]), key=lambda x: (x[0], -x[1]))
    names = [x.name for *_, x in around if isinstance(x, ast.FunctionDef | ast.ClassDef)]
    first, last, inner = around[-1]
    body = getattr(inner, "body", None)
    if body and not isinstance(inner, ast.FunctionDef):
        last = max(line, _span(body[0])[0] - 1)
    return ".".join(names), tuple(range(first, last + 1))


def _span(node: ast.AST) -> tuple[int, int]:
    if isinstance(node, ast.match_case):
        return node.pattern.lineno, node.body[-1].end_lineno or 0
    assert isinstance(node, ast.stmt)
    return node.lineno, node.end_lineno or 0
