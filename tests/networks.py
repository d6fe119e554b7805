"""Tiny ONNX networks whose outputs can be computed by hand."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from broker_bridge.contract.spaces import SpaceLimits, SpaceRecord

LIMITS = SpaceLimits(
    distance=0.35,
    margin=0.0,
    same_person=0.75,
    look_alike=0.7,
    tracked_similarity=0.75,
    tracked_margin=0.05,
    tracked_by_position=0.7,
)
"""Limits for networks that recognise coloured pictures."""

Size = int | str
Output = tuple[str, Sequence[Size]]

FACE = (3, 112, 112)


def save_network(
    path: Path,
    nodes: Sequence[NodeProto],
    *,
    input_shape: Sequence[Size] = ("n", *FACE),
    outputs: Sequence[Output] = (("output", ("n", 3)),),
    weights: dict[str, NDArray[np.generic]] | None = None,
    input_type: int = TensorProto.FLOAT,
    output_type: int = TensorProto.FLOAT,
) -> Path:
    """Save a network of `nodes` from the tensor `input` to `outputs` (name, shape)."""
    graph = helper.make_graph(
        list(nodes),
        path.stem,
        [helper.make_tensor_value_info("input", input_type, list(input_shape))],
        [helper.make_tensor_value_info(name, output_type, list(shape)) for name, shape in outputs],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def save_channel_means(path: Path, *, batch: Size = "n", sides: Sequence[Size] = (112, 112)) -> Path:
    """float32[n, 3]: the mean of each channel of float32[n, 3, h, w]."""
    return save_network(
        path,
        [helper.make_node("ReduceMean", ["input"], ["output"], axes=[2, 3], keepdims=0)],
        input_shape=(batch, 3, *sides),
        outputs=[("output", (batch, 3))],
    )


def save_means_and_peaks(path: Path, *, batch: Size = "n") -> Path:
    """Save a network with the outputs `means` and `peaks`, float32[n, 3] each.

    They are mean and largest value of each channel.
    """
    return save_network(
        path,
        [
            helper.make_node("ReduceMean", ["input"], ["means"], axes=[2, 3], keepdims=0),
            helper.make_node("ReduceMax", ["input"], ["peaks"], axes=[2, 3], keepdims=0),
        ],
        input_shape=(batch, *FACE),
        outputs=[("means", (batch, 3)), ("peaks", (batch, 3))],
    )


def save_arcface_like(
    path: Path, *, dimension: int = 512, seed: int = 7, batch: Size = "n", hidden: int = 8
) -> Path:
    """Save a network with ArcFace's shapes and random weights.

    It maps faces float32[n, 3, 112, 112] to float32[n, d] by two strided convolutions and a linear layer.
    Different faces get different vectors; `seed` makes another model of the same shape.
    """
    random = np.random.RandomState(seed)

    def weight(*shape: int) -> NDArray[np.float32]:
        fan_in = int(np.prod(shape[1:]))
        return (random.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)

    features = hidden * 7 * 7
    return save_network(
        path,
        [
            helper.make_node("Conv", ["input", "first"], ["a"], strides=[4, 4]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "second"], ["c"], strides=[4, 4]),
            helper.make_node("Relu", ["c"], ["d"]),
            helper.make_node("Flatten", ["d"], ["e"]),
            helper.make_node("Gemm", ["e", "linear"], ["output"], transB=1),
        ],
        input_shape=(batch, *FACE),
        outputs=[("output", (batch, dimension))],
        weights={
            "first": weight(hidden, 3, 4, 4),
            "second": weight(hidden, hidden, 4, 4),
            "linear": weight(dimension, features),
        },
    )


def save_nan(path: Path, *, dimension: int = 4) -> Path:
    """Save a network with output float32[n, d] of NaN for every input."""
    return save_network(
        path,
        [
            helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2, 3], keepdims=1),
            helper.make_node("Flatten", ["mean"], ["flat"]),
            helper.make_node("MatMul", ["flat", "nan"], ["output"]),
        ],
        outputs=[("output", ("n", dimension))],
        weights={"nan": np.full((1, dimension), np.nan, np.float32)},
    )


def save_identity(path: Path, *, shape: Sequence[Size] = ("n", *FACE), kind: int = TensorProto.FLOAT) -> Path:
    """Save a network that returns its input, of type `kind` of onnx.TensorProto."""
    return save_network(
        path,
        [helper.make_node("Identity", ["input"], ["output"])],
        input_shape=shape,
        outputs=[("output", shape)],
        input_type=kind,
        output_type=kind,
    )


def own_model(path: Path, space: str = "face:mine") -> dict[str, str]:
    """Return the settings of a device with the model `path`, which has no record.

    They are by name, without the prefix of environment variables.
    """
    limits = {space: LIMITS.model_dump(include={"distance", "margin"})}
    return {"MODEL": str(path), "SPACE": space, "THRESHOLDS": json.dumps(limits)}


def save_record(model: Path, space: str = "face:mine", *, dimension: int = 512, **fields: Any) -> Path:
    """Save the record of `model` beside it, with LIMITS; return the path of the model."""
    record = {
        "space": space,
        "dimension": dimension,
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "detector": "cascade",
        "alignment": "box",
        "limits": LIMITS,
    }
    content = SpaceRecord.model_validate({**record, **fields}).to_json()
    model.with_suffix(".json").write_bytes(content)
    return model
