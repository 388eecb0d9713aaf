"""Making a network one that can be stepped: with the states that were found, or with more."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rnnx_export.calls.kinds import POSITIONS, SHIFTS
from rnnx_export.diagnostics import Reason, reason_of
from rnnx_export.loops.unroll import lift_loop, lift_loops
from rnnx_export.states.causality import UNCARRIED, ends_agree, why_not_stepped
from rnnx_export.states.discover import discover
from rnnx_export.states.export_plan import Plan


def made_to_step(plan: Plan, returns: Any) -> Plan:
    """Return a plan that can be stepped: this one, or one that also carries what only a fallback rule finds.

    If there is none, it is this one made whole, with the reason.
    """
    reason = why_not_stepped(plan)
    if reason is None and plan.loops and not ends_agree(plan):
        reason = UNCARRIED
    if reason is None:
        return _with_all_carried(plan)
    more: list[Plan] = []
    if reason_of(reason) is Reason.UNCARRIED:
        groups = [plan.fallbacks & set(kinds) for kinds in (POSITIONS, SHIFTS, (*POSITIONS, *SHIFTS))]
        found = [_with_fallbacks(plan, returns, kinds) for kinds in dict.fromkeys(groups) if kinds]
        more = [other for other in found if other is not None]
        for other in more:
            if why_not_stepped(other) is None:
                return _with_all_carried(other)
        reasons: list[str | None] = [plan.hint]
        unrolled = [other.without_loop_lifts() for other in (plan, *more)]
        lifted = lift_loops(unrolled, lambda found: _is_stepped(found, reasons))
        if lifted is not None:
            return lifted
        better = (other for other in reasons if other and reason_of(other) is not Reason.UNCARRIED)
        reason = next(better, reason)
    return plan.made_whole(reason)


def _with_fallbacks(plan: Plan, returns: Any, kinds: Collection[str]) -> Plan | None:
    """Return the plan with those kinds of calls lifted too, None if the module does not run so."""
    try:
        return discover(plan.subject, returns, fallbacks=kinds)
    except Exception:  # what they were taken for may be wrong, and then forward fails in any way
        return None


def _with_all_carried(plan: Plan) -> Plan:
    """Return the plan that also has what a loop carries beside its cells, such as a hold state."""
    if not plan.loops:
        return plan
    found = lift_loop(plan.without_loop_lifts())
    return found if len(found.states) > len(plan.states) else plan


def _is_stepped(plan: Plan, reasons: list[str | None]) -> bool:
    """Whether a plan can be stepped; what it does otherwise goes to the reasons."""
    reasons.append(why_not_stepped(plan))
    return reasons[-1] is None
