"""Build detectors as tiny ONNX networks: a painted cell is a face at its place."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from .networks import Output, Size, save_network

Float32 = NDArray[np.float32]

SCRFD_BOX = (2.0, 3.0, 4.0, 5.0)
"""Strides from the anchor to the left, upper, right and lower side."""
POINTS = (-1.0, -1.0, 1.0, -1.0, 0.0, 0.0, -1.0, 1.0, 1.0, 1.0)
"""Strides from the anchor to the five landmarks: x, y, x, y, ..."""
YUNET_BOX = (0.5, 0.5, float(np.log(6.0)), float(np.log(8.0)))
"""The middle, in strides from the cell's corner, and the logarithms of width and height in strides."""


@dataclass
class _Parts:
    nodes: list[NodeProto] = field(default_factory=list)
    weights: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    outputs: list[Output] = field(default_factory=list)

    def head(self, name: str, weight: Float32, bias: Float32, stride: int, shape: Sequence[Size]) -> None:
        """Add an output `name` of `shape`, channels last, by a convolution with `stride`."""
        self.weights[f"{name}.w"], self.weights[f"{name}.b"] = weight, bias
        self.weights[f"{name}.s"] = np.array(
            [-1 if isinstance(size, str) else size for size in shape], dtype=np.int64
        )
        inputs = ["input", f"{name}.w", f"{name}.b"]
        kernel = list(weight.shape[2:])
        self.nodes += [
            helper.make_node("Conv", inputs, [f"{name}.c"], kernel_shape=kernel, strides=[stride, stride]),
            helper.make_node("Transpose", [f"{name}.c"], [f"{name}.t"], perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", [f"{name}.t", f"{name}.s"], [name]),
        ]
        self.outputs.append((name, shape))


def save_scrfd(
    path: Path,
    *,
    strides: Sequence[int] = (8, 16, 32),
    anchors: int = 2,
    landmarks: bool = True,
    batched: bool = False,
    size: Size = 640,
    order: Sequence[str] = ("score", "box", "points"),
    box: Sequence[float] = SCRFD_BOX,
    points: Sequence[float] = POINTS,
    score_bias: float = 0.0,
) -> Path:
    """Save a network with the inputs and outputs of InsightFace's SCRFD.

    The input is float32[1, 3, h, w]. A cell of the first stride that is all red is a face of score 0.996,
    a cell of the second that is all green, and of the third (and on) that is all blue: the box and the
    landmarks of its anchor lie `box` and `points` strides away. Second anchors score half.
    """
    parts = _Parts()
    for kind in order:
        for place, stride in enumerate(strides):
            name = f"{kind}_{stride}"
            lead = (1,) if batched else ()
            if kind == "score":
                weight = np.zeros((anchors, 3, stride, stride), np.float32)
                for anchor in range(anchors):
                    weight[anchor, min(place, 2)] = 1 / (1 + anchor) / stride**2
                bias = np.full(anchors, score_bias, np.float32)
                parts.head(name, weight, bias, stride, (*lead, "k", 1))
            elif kind == "box" or landmarks:
                numbers = box if kind == "box" else points
                weight = np.zeros((anchors * len(numbers), 3, 1, 1), np.float32)
                bias = np.tile(np.array(numbers, np.float32), anchors)
                parts.head(name, weight, bias, stride, (*lead, "k", len(numbers)))
    return save_network(
        path, parts.nodes, input_shape=(1, 3, size, size), outputs=parts.outputs, weights=parts.weights
    )


def save_yunet(
    path: Path,
    *,
    box: Sequence[float] = YUNET_BOX,
    points: Sequence[float] = POINTS,
    objectness: float = 1.0,
    channels: int = 10,
    without: str = "",
    fixed: bool = False,
) -> Path:
    """Save a network with the inputs and outputs of YuNet for `cv2.FaceDetectorYN`.

    A cell of stride 8, 16 or 32 whose red, green or blue is full is a face of score 1. `channels` other
    than 10, a missing output (`without`), and cells `fixed` to those of 64x96 pixels make a network that
    is no YuNet.
    """
    parts = _Parts()
    for kind, numbers in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", channels)):
        for place, stride in enumerate((8, 16, 32)):
            name = f"{kind}_{stride}"
            if name == without:
                continue
            cells: Size = 64 * 96 // stride**2 if fixed else "k"
            if kind == "cls":
                weight = np.zeros((1, 3, stride, stride), np.float32)
                weight[0, 2 - place] = 1 / 255 / stride**2
                bias = np.zeros(1, np.float32)
            else:
                known = {"obj": (objectness,), "bbox": box, "kps": points}[kind]
                weight = np.zeros((numbers, 3, 1, 1), np.float32)
                bias = np.resize(np.array(known, np.float32), numbers)
            parts.head(name, weight, bias, stride, (1, cells, numbers))
    return save_network(
        path,
        parts.nodes,
        input_shape=(1, 3, "h", "w"),
        outputs=parts.outputs,
        weights=parts.weights,
    )
