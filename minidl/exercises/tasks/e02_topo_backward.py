"""A network is a graph of small steps. Each step knows its own slopes: for
y = a * b they are dy/da = b and dy/db = a. The chain rule joins them:

    dL/da  =  sum over all steps y that use a of   dL/dy * dy/da

The sum matters: a value that is used twice gets two contributions, as in
this diamond, where both paths from x to L count:

          a = x + x
        /           \\
      x               L = a * b
        \\           /
          b = x * x

A worked example at x = 3: a = 6, b = 9, L = 54. dL/da = 9, dL/db = 6, so
dL/dx = 9 * (1 + 1) + 6 * (3 + 3) = 54, and indeed L = 2 x^3, 6 x^2 = 54.

A node may hand its gradient on only when it is complete, that is after all
nodes that use it: walk the graph in reverse topological order. The graph of
a deep network is thousands of nodes long, more than Python lets a function
call itself.
"""

import numpy as np

from ..format import CHAPTERS, Exercise, Mistake
from ..oracle import tensors


class Node:
    """A number in a graph: its value, what it came from, and its gradient.

    slopes[i] is the derivative of this node with respect to parents[i].
    """

    def __init__(self, value, parents=(), slopes=()):
        self.value = value
        self.parents = parents
        self.slopes = slopes
        self.grad = 0.0

    def __add__(self, other):
        return Node(self.value + other.value, (self, other), (1.0, 1.0))

    def __mul__(self, other):
        slopes = (other.value, self.value)
        return Node(self.value * other.value, (self, other), slopes)


def topo_backward(root):
    """Set the grad of every node below root to d root / d node.

    root: a Node; its own gradient is 1. All gradients are 0 at the start.

    Returns nothing.

    >>> x = Node(3.0)
    >>> topo_backward((x + x) * (x * x))
    >>> x.grad
    54.0
    """
    order, seen, stack = [], set(), [(root, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((parent, False) for parent in node.parents)
    root.grad = 1.0
    for node in reversed(order):
        for parent, slope in zip(node.parents, node.slopes, strict=True):
            parent.grad += node.grad * slope


def _recursive(root):
    order, seen = [], set()

    def visit(node):
        if id(node) not in seen:
            seen.add(id(node))
            for parent in node.parents:
                visit(parent)
            order.append(node)

    visit(root)
    root.grad = 1.0
    for node in reversed(order):
        for parent, slope in zip(node.parents, node.slopes, strict=True):
            parent.grad += node.grad * slope


def _first_visit(root):
    root.grad = 1.0
    queue, seen = [root], set()
    for node in queue:
        if id(node) not in seen:
            seen.add(id(node))
            for parent, slope in zip(node.parents, node.slopes, strict=True):
                parent.grad += node.grad * slope
                queue.append(parent)


def _every_visit(root):
    root.grad = 1.0
    stack = [root]
    while stack:
        node = stack.pop()
        for parent, slope in zip(node.parents, node.slopes, strict=True):
            parent.grad += node.grad * slope
            stack.append(parent)


# A graph is its leaves and the steps (operation, index, index) that each append a node.
GRAPHS = {
    "product": (2, [("*", 0, 1)]),
    "chain": (1, [("*", 0, 0), ("*", 1, 1), ("+", 2, 2)]),
    "diamond": (1, [("+", 0, 0), ("*", 0, 0), ("*", 1, 2)]),
    "early": (2, [("*", 0, 1), ("+", 2, 1), ("*", 3, 0), ("*", 4, 2), ("+", 5, 3), ("*", 2, 6)]),
    "deep": (2, [("+", 0, 1)] + [("+", index, 1) for index in range(2, 3000)]),
}


def _make(rng, graph):
    leaves = GRAPHS[graph][0]
    return {"graph": graph, "leaves": tuple(rng.uniform(0.5, 1.5, leaves).tolist())}


def _grow(nodes, graph):
    for operation, left, right in GRAPHS[graph][1]:
        a, b = nodes[left], nodes[right]
        nodes.append(a + b if operation == "+" else a * b)
    return nodes


def _call(function, args):
    nodes = _grow([Node(value) for value in args["leaves"]], args["graph"])
    function(nodes[-1])
    return np.array([node.grad for node in nodes])


def _expected(graph, leaves):
    nodes = _grow(tensors(*leaves), graph)
    for node in nodes:
        node.retain_grad()
    nodes[-1].backward()
    return np.array([float(node.grad.data) for node in nodes])


def _pair(function, graph, leaves):
    def forward(leaves):
        return _grow([Node(value) for value in leaves], graph)[-1].value

    def topo_backward(upstream, leaves):
        nodes = _grow([Node(value) for value in leaves], graph)
        function(nodes[-1])
        return upstream * np.array([node.grad for node in nodes[: len(leaves)]])

    return (forward, topo_backward), np.array(leaves)


EXERCISE = Exercise(
    number=2,
    title="the backward walk through a graph",
    chapter=CHAPTERS[0],
    solution=topo_backward,
    given=(Node,),
    make=_make,
    cases={
        "one product": {"graph": "product"},
        "a chain of steps": {"graph": "chain"},
        "the diamond of the task": {"graph": "diamond"},
        "values used early and late": {"graph": "early"},
        "a chain of 3000 nodes": {"graph": "deep"},
    },
    call=_call,
    expected=_expected,
    pair=_pair,
    outputs=("the nodes' grad",),
    hints=(
        "First find an order in which every node stands behind all nodes that use it; then go "
        "through it once, each node adding to its parents' gradients.",
        "Depth first: append a node to a list only after its parents have been appended; the "
        "reversed list is the order. A stack of (node, parents_done) does this without "
        "recursion.",
        "root.grad = 1.0; then for each node of the reversed list and each pair of "
        "zip(node.parents, node.slopes): parent.grad += node.grad * slope.",
    ),
    mistakes=(
        Mistake(
            "assigned",
            "gradients are assigned (=) where they must be added (+=)",
            "A node that is used twice receives one contribution from each use. Assigning "
            "keeps only the last one.",
            edits=(("parent.grad += ", "parent.grad = "),),
        ),
        Mistake(
            "order",
            "a node hands its gradient on before all nodes that use it have contributed",
            "Visiting nodes as they are met is not enough: where two paths of different length "
            "join, the shorter one arrives first. Use reverse topological order.",
            function=_first_visit,
        ),
        Mistake(
            "not-reversed",
            "the walk goes from the leaves to the root",
            "Gradients flow from the root to the leaves: go through the topological order "
            "backwards.",
            edits=(("reversed(order)", "order"),),
        ),
        Mistake(
            "visited-again",
            "nodes that are reached on several paths hand on contributions more than once",
            "Each visit adds the whole gradient that a node has so far, so parts of it are "
            "counted twice. Visit each node once, after all that use it.",
            function=_every_visit,
        ),
        Mistake(
            "root",
            "all gradients are zero: the root's own gradient is not set to 1",
            "d root / d root = 1 is where the chain rule starts.",
            edits=(("root.grad = 1.0", "root.grad = 0.0"),),
        ),
        Mistake(
            "slope-of-the-value",
            "the slopes are left out of the chain rule",
            "A contribution is the node's gradient times the slope towards that parent.",
            edits=(("node.grad * slope", "node.grad"),),
        ),
        Mistake(
            "recursion",
            "the walk calls itself once for each node, and Python stops it at about 1000",
            "ResNet-1001 is deeper than that. Keep your own stack: a list of nodes still to do.",
            function=_recursive,
        ),
    ),
    payoff="this is the engine of every deep-learning framework; minidl's is autograd.py.",
)
