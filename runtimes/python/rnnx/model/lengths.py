"""Whether a graph keeps the states of rows of length 0, as the contract says: engines do not on their own.

ONNX's recurrent operators give a row whose element of `sequence_lens` is 0 zeros for its final states, in
ONNX Runtime and in compiled C. A graph that carries these on as they come loses such a row's states, and
those of each row that ends in an earlier chunk than others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from rnnx.errors import ModelError
from rnnx.model.contract import Contract

RECURRENT = frozenset({"RNN", "GRU", "LSTM"})
# Operators that only move elements about: what was zero stays zero.
_MOVING = frozenset(
    {
        *("Cast", "CastLike", "Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice"),
        *("Split", "Squeeze", "Transpose", "Unsqueeze"),
    }
)
_LENGTHS = 4  # place of sequence_lens among a recurrent operator's inputs


@dataclasses.dataclass(frozen=True)
class GraphNode:
    """A node as far as it says where values come from: its operator, the names it takes and gives."""

    operator: str
    inputs: Sequence[str]
    outputs: Sequence[str]


def require_kept_states(nodes: Iterable[GraphNode], contract: Contract, label: str) -> None:
    """Refuse a graph that surely loses the states of rows of length 0.

    Args:
        nodes: of the graph, without those of subgraphs.
        contract: of the model.
        label: what to call the model.

    Raises:
        ModelError: `contract-graph`.
    """
    counted = {spec.name for spec in contract.inputs if spec.role == "length"}
    if not counted:
        return
    makers = {name: node for node in nodes for name in node.outputs if name}
    for state in contract.states:
        found = _moved_from(state.output, makers)
        if found is None or not counted & sources(lengths_of(found), makers):
            continue
        raise ModelError(
            "contract-graph",
            expected=f"a graph of {label} in which a row of length 0 keeps state {state.name!r}",
            found=f"the final state of {found.operator} node {found.outputs[0]!r}, which is 0 for such a row",
            fix="choose between the old state and the new by the length with Where, as 'rnnx export' does",
        )


def lengths_of(node: GraphNode) -> str:
    """Return the name of a recurrent node's `sequence_lens`, "" if it has none."""
    return node.inputs[_LENGTHS] if len(node.inputs) > _LENGTHS else ""


def sources(name: str, makers: Mapping[str, GraphNode]) -> set[str]:
    """Return the names that a value is computed from and that no node makes: graph inputs and constants."""
    found, seen, queue = set[str](), set[str](), [name]
    while queue:
        name = queue.pop()
        if not name or name in seen:
            continue
        seen.add(name)
        if name in makers:
            queue += makers[name].inputs
        else:
            found.add(name)
    return found


def _moved_from(name: str, makers: Mapping[str, GraphNode]) -> GraphNode | None:
    """Return the recurrent node with lengths whose final state reaches `name` through moves alone."""
    seen, queue = set[str](), [name]
    while queue:
        name = queue.pop()
        node = makers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.operator in RECURRENT and name in node.outputs[1:] and lengths_of(node):
            return node
        if node.operator in _MOVING:
            queue += node.inputs[:1] if node.operator != "Concat" else node.inputs
    return None
