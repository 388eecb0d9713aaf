"""States that nothing of a captured program depends on."""

from __future__ import annotations

import torch

from rnnx_export.diagnostics import quiet
from rnnx_export.states.export_plan import Plan


def unused(plan: Plan, exported: torch.export.ExportedProgram) -> set[str]:
    """Return the states that were found, not declared, and that no output depends on, now or later."""
    if any(_writes(node) for node in exported.graph.nodes):
        with quiet():
            exported = exported.run_decompositions({})  # what is written in place is read from then on
    user = set(exported.graph_signature.user_inputs)
    passed = [node for node in exported.graph.nodes if node.op == "placeholder" and node.name in user]
    passed = passed[len(plan.subject.inputs) :]
    results = list(exported.graph.output_node().args[0])
    ends = dict(
        zip((state.name for state in plan.states), results[-len(plan.states) or len(results) :], strict=True)
    )
    live: set[str] = set()
    reached: set[torch.fx.Node] = set()
    pending = [node for node in results[: len(results) - len(plan.states)] if isinstance(node, torch.fx.Node)]
    while pending:
        node = pending.pop()
        if node in reached:
            continue
        reached.add(node)
        pending += node.all_input_nodes
        for state, placeholder in zip(plan.states, passed, strict=True):
            if placeholder is node and state.name not in live:
                live.add(state.name)
                pending.append(ends[state.name])
    groups = [set(lift.names) for lift in plan.lifts.values()]
    declared = {state.name for state in plan.states if state.is_declared}
    dead = {state.name for state in plan.states} - live - declared
    return {name for name in dead if not any(name in group and group & live for group in groups)}


def _writes(node: torch.fx.Node) -> bool:
    """Whether a node of a captured program writes to one of its arguments."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)
