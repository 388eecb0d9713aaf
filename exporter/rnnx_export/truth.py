"""The network in float64: the truth that errors are measured against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rnnx.errors import RnnxError
from rnnx_export.reference import ModuleReference


def open_truth(
    reference: ModuleReference, inputs: Mapping[str, Any], sizes: Mapping[str, int]
) -> ModuleReference | None:
    """Return a reference in float64, or None where the network has it already or does not run in it.

    Args:
        reference: the network in its own precision.
        inputs: as `StepReference.steps` takes them; one step of them is tried.
        sizes: of batch and the free dimensions.
    """
    specs = [state.spec for state in reference.plan.states]
    specs += [output.spec for output in reference.plan.outputs]
    floats = [spec.dtype for spec in specs if spec.dtype.is_floating_point]
    if torch.float64 in floats or not floats:
        return None
    try:
        truth = type(reference)(reference.plan, torch.float64)
        next(iter(truth.steps(inputs, reference.start(sizes))))
    except (RuntimeError, TypeError, NotImplementedError, RnnxError):
        return None
    return truth
