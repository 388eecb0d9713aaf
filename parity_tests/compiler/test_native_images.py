"""Convolutions, pooling and changes of size as C, beside ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support.operators_as_c import check, node, real

X = {"x": real(2, 4, 9), "image": real(2, 4, 7, 8, seed=1), "long": real(2, 4, 3000, seed=2)}


def test_convolutions_by_loops() -> None:
    nodes = [
        node("Conv", ["x", "w", "b"], pads=[1, 0], strides=[2]),
        node("Conv", ["x", "wg"], "Grouped", group=2, dilations=[2]),
        node("Conv", ["x", "w"], "Same", auto_pad="SAME_UPPER"),
        node("Conv", ["image", "w2", "b2"], "Two", pads=[1, 1, 0, 1]),
        node("Conv", ["x", "given"], "Given", pads=[2, 2]),
    ]
    constants = {"w": real(6, 4, 3), "wg": real(6, 2, 3), "b": real(6), "w2": real(2, 4, 2, 3), "b2": real(2)}
    given = {"x": X["x"], "image": X["image"], "given": real(20, 4, 3)}
    check(nodes, given, constants, runtime=True, tolerance=5e-6)


def test_convolutions_by_products() -> None:
    nodes = [
        node("Conv", ["x", "w", "b"], "Strided", pads=[1, 0], strides=[2]),
        node("Conv", ["x", "w"], "Spread", dilations=[3], pads=[4, 4]),
        node("Conv", ["x", "wg", "bg"], "Grouped", group=2, auto_pad="SAME_LOWER"),
        node("Conv", ["image", "w2"], "Two", pads=[1, 0, 0, 2], strides=[2, 1], dilations=[1, 2]),
        node("Conv", ["image", "all"], "All"),
        node("Conv", ["long", "w", "b"], "Long", pads=[1, 1]),
    ]
    constants = {"w": real(20, 4, 3), "b": real(20), "wg": real(18, 2, 3), "bg": real(18)}
    constants |= {"w2": real(17, 4, 3, 2), "all": real(8, 4, 7, 8)}
    check(nodes, X, constants, runtime=True, tolerance=2e-5)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 3]},
        {"strides": [3, 2], "pads": [1, 0, 1, 1], "output_padding": [1, 0]},
        {"dilations": [2, 1], "strides": [1, 2]},
        {"strides": [2, 2], "dilations": [3, 2], "pads": [2, 1, 0, 1]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
        {"strides": [2, 2], "output_shape": [15, 17]},
    ],
)
@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions(attributes: dict[str, Any], groups: int) -> None:
    node_ = node("ConvTranspose", ["image", "w", "b"], group=groups, **attributes)
    given = {"image": X["image"]}
    constants = {"w": real(4, 3, 3, 2), "b": real(3 * groups)}
    check([node_], given, constants, runtime=True, tolerance=5e-6)
    check(
        [node("ConvTranspose", ["image", "w"], group=groups, **attributes)],
        given | {"w": constants["w"]},
        runtime=True,
        tolerance=5e-6,
    )


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 3]},
        {"strides": [2, 2], "pads": [1, 1, 1, 0]},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
        {"strides": [3, 3], "ceil_mode": 1},
        {"strides": [2, 3], "auto_pad": "SAME_UPPER"},
        {"dilations": [2, 3]},
    ],
)
def test_pooling(attributes: dict[str, Any]) -> None:
    nodes = [
        node("MaxPool", ["image"], kernel_shape=[3, 2], **attributes),
        node("AveragePool", ["image"], kernel_shape=[3, 2], **attributes),
        node("AveragePool", ["image"], "All", kernel_shape=[3, 2], count_include_pad=1, **attributes),
    ]
    check(nodes, {"image": X["image"]}, runtime=True)


def test_pooling_of_all_and_of_one_axis() -> None:
    nodes = [node("GlobalAveragePool", ["image"]), node("GlobalMaxPool", ["image"])]
    nodes.append(node("MaxPool", ["x"], kernel_shape=[4], strides=[4]))
    check(nodes, {"image": X["image"], "x": X["x"]}, runtime=True)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
@pytest.mark.parametrize("sizes", [[2, 4, 14, 20], [2, 4, 5, 3], [2, 4, 1, 8]])
def test_sizes(mode: str, coordinates: str, sizes: list[int]) -> None:
    more: dict[str, Any] = (
        {"nearest_mode": "floor"} if mode == "nearest" and coordinates == "asymmetric" else {}
    )
    nodes = [
        node("Resize", ["image", "", "", "s"], mode=mode, coordinate_transformation_mode=coordinates, **more)
    ]
    check(nodes, {"image": X["image"]}, {"s": np.array(sizes)}, runtime=True, tolerance=1e-5)


def test_scales() -> None:
    nodes = [
        node("Resize", ["image", "", "s"], "Half", mode="linear"),
        node("Resize", ["image", "", "s"], "Up", nearest_mode="ceil"),
        node("Resize", ["image", "", "s"], "Inside", mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5),
    ]
    check(nodes, {"image": X["image"]}, {"s": np.array([1, 1, 1.7, 2.5], "f4")}, runtime=True, tolerance=1e-5)


def test_channels_and_blocks() -> None:
    nodes = [
        node("DepthToSpace", ["image"], blocksize=2),
        node("DepthToSpace", ["image"], "Rows", blocksize=2, mode="CRD"),
        node("SpaceToDepth", ["blocks"], blocksize=3),
    ]
    check(nodes, {"image": X["image"], "blocks": real(2, 3, 6, 9)}, runtime=True)


def test_patches_to_images() -> None:
    nodes = [
        node("Col2Im", ["x", "size", "block"], pads=[1, 0, 1, 1], strides=[2, 1], dilations=[1, 2]),
    ]
    check(nodes, {"x": real(2, 3 * 6, 15)}, {"size": np.array([5, 6]), "block": np.array([3, 2])})


def test_bits() -> None:
    a, b = (np.random.default_rng(seed).integers(0, 200, (3, 5)).astype(np.uint8) for seed in (0, 1))
    nodes = [node(f"Bitwise{name}", ["a", "b"]) for name in ("And", "Or", "Xor")]
    nodes += [node("BitwiseNot", ["a"]), node("BitShift", ["a", "n"], "Left", direction="LEFT")]
    nodes.append(node("BitShift", ["a", "n"], "Right", direction="RIGHT"))
    check(nodes, {"a": a, "b": b}, {"n": np.array([0, 1, 3, 7, 2], np.uint8)})
