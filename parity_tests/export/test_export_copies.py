"""A module is copied as it is, whatever its class makes of `copy.deepcopy`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rnnx
from rnnx.errors import RefusedError

X = {"x": "float32[batch, time, 4]"}


class Anew(nn.Module):
    """It copies itself by its arguments, as spiking neurons do: what was changed later is lost."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.cell, self.gain = nn.GRU(4, 5, batch_first=True), gain

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * self.cell(x)[0]

    def __deepcopy__(self, memo: dict[int, Any]) -> Anew:
        made = type(self)()
        for name, value in self.named_parameters():
            made.get_parameter(name).data = value.data.clone()
        return made


class Fails(Anew):
    """As one that looks for a parameter of a part among its own attributes."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Anew:
        for name, _ in self.named_parameters():
            getattr(self, name)
        return super().__deepcopy__(memo)


class Around(nn.Module):
    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside, self.again = inside, inside  # the same, twice

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(x) + self.again(x)


@pytest.mark.parametrize("kind", [Anew, Fails])
@pytest.mark.parametrize("inside", [False, True])
def test_the_file_is_the_module_and_not_what_its_class_makes_of_it(
    kind: type[Anew], inside: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    own = kind()
    own.gain = 3.0
    module = Around(own) if inside else own
    x = torch.randn(1, 9, 4)
    rnnx.export(module, tmp_path / "m.onnx", inputs=X)
    with torch.no_grad():
        expected = module(x).numpy()  # the module itself, never a copy
    got = rnnx.load(tmp_path / "m.onnx").stream().run(x.numpy())
    np.testing.assert_allclose(next(iter(got.values())), expected, rtol=1e-5, atol=1e-5)


def test_hooks_are_copied_with_the_module(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Anew()
    module.register_forward_hook(lambda part, args, result: 2 * result)
    x = torch.randn(1, 9, 4)
    rnnx.export(module, tmp_path / "m.onnx", inputs=X)
    got = rnnx.load(tmp_path / "m.onnx").stream().run(x.numpy())
    with torch.no_grad():
        expected = module(x).numpy()
    np.testing.assert_allclose(next(iter(got.values())), expected, rtol=1e-5, atol=1e-5)


class Locked(Anew):
    def __deepcopy__(self, memo: dict[int, Any]) -> Anew:
        raise TypeError("this one is not copied")


def test_what_cannot_be_copied_at_all_is_refused_with_what_its_class_said(tmp_path: Path) -> None:
    module = Locked()
    rnnx.export(module, tmp_path / "m.onnx", inputs=X)  # all that it holds can be
    module.lock = threading.Lock()
    with pytest.raises(RefusedError, match="this one is not copied"):
        rnnx.export(module, tmp_path / "m.onnx", inputs=X)
