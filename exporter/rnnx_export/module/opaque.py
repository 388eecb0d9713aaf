"""Parts of a module that nothing can look into: TorchScript, and what PyTorch has quantised."""

from __future__ import annotations

import torch
from torch import nn

from rnnx.errors import RefusedError
from rnnx_export.module.parts import parts

_QUANTISED = ("torch.ao.nn.quantized.", "torch.ao.nn.intrinsic.quantized.")


def refuse_opaque(module: nn.Module) -> None:
    """Refuse a module that is, or has a part that is, not Python over floats.

    Raises:
        RefusedError: `not-exported`, with the part.
    """
    name = getattr(module, "original_name", type(module).__name__)  # TorchScript says what it was made of
    for path, part in parts(module).items():
        where = repr(path) if path else "the module"
        if isinstance(part, torch.jit.ScriptModule):
            raise RefusedError(
                "not-exported",
                expected=f"{name} to be Python, which can be looked into",
                found=f"{where} is TorchScript",
                fix="export it as it is before `torch.jit.script` or `torch.jit.trace`",
            )
        if type(part).__module__.startswith(_QUANTISED):
            raise RefusedError(
                "not-exported",
                expected=f"{name} to compute in floating point",
                found=f"{where} is PyTorch's quantised {type(part).__name__}, "
                "whose weights only PyTorch can read",
                fix="export the network as it was before it was quantised; "
                "`rnnx compile --weights int8` stores the weights of the file in bytes",
            )
