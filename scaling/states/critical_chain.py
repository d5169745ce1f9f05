"""Blocks in a row without a residual sum: h_l = phi(W_l h_(l-1)), M^L of them.

Sizes are known where every block passes on exactly the size that it is given, forwards and back:
a *critical* start. Any factor q of a block would be q^(M^L) in the end, which no power of M is. A
function with phi(c x) = c phi(x) has a critical start, such as std = sqrt(2/fan_in) under relu, and
keeps it at every size of h; under tanh or gelu the size drifts from block to block, and a bias that
does not start at zero adds to it in each.

    J          the Jacobian of k blocks: as large as the identity on average, with singular values
               that spread: |J J^T v| = sqrt(1 + const k) |v|
    dh_l       a change that follows delta_l = J^T delta_L arrives as J J^T delta_L: as large as it
               was along delta_L, and k^(1/2) times as large in all

so what all blocks change adds up as M^L along delta_L, which is what moves f, and as

    (sum_(k, k') <J J^T v, J' J'^T v>)^(1/2) = (sum_(k, k') min(k, k'))^(1/2) = M^(3 L/2)

in all: features bind the rate, at L^(-3/2) for L blocks (arXiv 2305.07810; as one rate for all
tensors, (sum over paths of depth^3)^(-1/2) of arXiv 2402.17440). The width has to be beyond the
depth: at a fixed width the logarithm of |h| spreads by L/width.

Not covered, and refused: other operations in the block, weights that blocks share.
"""

from __future__ import annotations

from collections.abc import Callable

from sympy import Expr, Rational, S

from scaling.models.graph import Graph, GraphNode, Repeat, Start
from scaling.models.node_functions import FUNCTIONS
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import HALF
from scaling.states.graph_structure import GraphStructure, arguments_of, increments

ALONG, IN_ALL, ACROSS = S.One, Rational(3, 2), S.One
"""Powers of the number of blocks, for what they change in the end: along delta, all of it where it
follows delta, and multiples of what is there."""
FROM_BELOW = HALF
"""The same power for all of a change that comes from below the blocks, along delta."""
MOVES_ENTRIES = ("reshape", "permute")


def is_chain(repeat: Repeat) -> bool:
    """Whether the number of blocks grows and the first value is replaced, not added to."""
    return repeat.count != 0 and increments(repeat.body, 0) is None


def refuse_unless_critical(
    state: GraphStructure, node: GraphNode, repeat: Repeat, is_zero: Callable[[str], bool]
) -> None:
    """Refuse blocks in a row whose sizes are no power of their number.

    Args:
        state: the graph.
        node: the repeat.
        repeat: its block and count.
        is_zero: whether a weight starts at zero.

    Raises:
        NotCovered: naming the operation that is in the way.
    """
    wrong = _in_the_way(state, repeat.body, is_zero)
    if wrong is None:
        return
    found, do_this = wrong
    place = f" at {node.where}" if node.where else ""
    scaled = ", ".join(name for name, f in FUNCTIONS.items() if f.homogeneous)
    raise NotCovered(
        f"a number of blocks that grows, none of which adds to what it is called with, in "
        f"{node.name}{place}: {found}",
        f"residual blocks, x + F(x); or layers with weights of their own, drawn at random, biases "
        f"that start at zero, and one of {scaled}",
        f"{do_this}add the input of the block to its output, or let another axis grow",
    )


def _in_the_way(
    state: GraphStructure, body: Graph, is_zero: Callable[[str], bool]
) -> tuple[str, str] | None:
    """The part of a block that is no homogeneous layer, and what would make it one."""
    own = {p.name: p for p in body.parameters}
    arguments = arguments_of(body)
    if len(body.outputs) != 1 or len(arguments) != 1:
        return f"the blocks share {', '.join(arguments[1:])}", ""
    name, layers = body.outputs[0], 0
    while name != arguments[0]:
        node = state.nodes[name]
        inputs = [x for x in node.inputs if x in state.data]
        weights = [x for x in node.inputs if x not in inputs]
        tensors = [x for w in weights for x in state.tensors(w)]
        good, instead = False, ""
        match node.op:
            case "contract" | "convolve" if len(inputs) == 1 and tensors:
                known = [own[x] for x in tensors if x in own]
                good = len(known) == len(tensors) and all(p.start is Start.DRAWN for p in known)
                layers += 1
            case "apply":
                good, instead = FUNCTIONS[node.get("function")].homogeneous, "use relu there, "
            case "add" if len(inputs) == 1:
                good = all(map(is_zero, weights))
                instead = "".join(f"start it at zero (--set b_{x}=oo), " for x in tensors)
            case "identity":
                good = not node.get("detached", False)
            case op:
                good = op in MOVES_ENTRIES
        if not good:
            return str(node), instead
        (name,) = inputs
    return None if layers else ("no weight stands in it", "")


def powers_of(count: Expr) -> tuple[Expr, Expr, Expr]:
    """ALONG, IN_ALL, ACROSS of M^count blocks."""
    return count * ALONG, count * IN_ALL, count * ACROSS
