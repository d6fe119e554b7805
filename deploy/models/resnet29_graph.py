"""Assemble an ONNX graph of float16 weights out of a few kinds of nodes."""

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

Float32 = NDArray[np.float32]

_OPSET, _IR = 13, 8


class GraphBuilder:
    """Nodes in order; each method adds some and returns the name of their result.

    Only operators that TensorRT's parser takes are used.
    """

    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []
        self._weights: list[TensorProto] = []

    def convolution(self, source: str, kernels: Float32, biases: Float32, *, stride: int, pad: int) -> str:
        return self._node(
            "Conv",
            source,
            self._half(kernels),
            self._constant(biases),
            kernel_shape=list(kernels.shape[2:]),
            strides=[stride, stride],
            pads=[pad] * 4,
        )

    def matrix(self, source: str, weights: Float32) -> str:
        return self._node("MatMul", source, self._half(weights))

    def warp(self, source: str, columns: Float32, rows: Float32) -> str:
        """Resample pictures along both axes; the weights are float32[out, in]."""
        across = self._node("MatMul", source, self._constant(np.ascontiguousarray(columns.T)))
        return self._node("MatMul", self._constant(rows), across)

    def multiply(self, source: str, factor: np.float32) -> str:
        return self._node("Mul", source, self._constant(np.array([factor], dtype=np.float32)))

    def multiply_by(self, source: str, other: str) -> str:
        return self._node("Mul", source, other)

    def add(self, source: str, values: Float32) -> str:
        return self._node("Add", source, self._constant(values))

    def sum_of(self, source: str, other: str) -> str:
        return self._node("Add", source, other)

    def relu(self, source: str) -> str:
        return self._node("Relu", source)

    def max_pool(self, source: str) -> str:
        return self._node("MaxPool", source, kernel_shape=[3, 3], strides=[2, 2])

    def average_pool(self, source: str) -> str:
        return self._node("AveragePool", source, kernel_shape=[2, 2], strides=[2, 2])

    def global_pool(self, source: str) -> str:
        """Return the mean of each channel, [n, channels]."""
        return self._node("Flatten", self._node("GlobalAveragePool", source))

    def pad(self, source: str, *, channels: int, pixels: int) -> str:
        """Add zeros after the last channel and the last pixels."""
        if not channels and not pixels:
            return source
        pads = np.array([0, 0, 0, 0, 0, channels, pixels, pixels], dtype=np.int64)
        return self._node("Pad", source, self._constant(pads), mode="constant")

    def unit_length(self, source: str) -> str:
        length = self._node("ReduceL2", source, axes=[1], keepdims=1)
        return self._node("Div", source, length)

    def contrast(self, source: str, least: float) -> str:
        """Return 1 for a picture whose deviation is above `least`, else 0, [n, 1]."""
        pixels = self._node("Flatten", source)
        mean = self._node("ReduceMean", pixels, axes=[1], keepdims=1)
        centred = self._node("Sub", pixels, mean)
        variance = self._node("ReduceMean", self._node("Mul", centred, centred), axes=[1], keepdims=1)
        limit = self._constant(np.array([least * least], dtype=np.float32))
        return self._node("Cast", self._node("Greater", variance, limit), to=TensorProto.FLOAT)

    def save(self, result: str, dimension: int) -> bytes:
        """Return the file of the graph that answers `result`, float32[n, `dimension`]."""
        self._nodes.append(helper.make_node("Identity", [result], ["output"]))
        graph = helper.make_graph(
            self._nodes,
            "resnet29-512",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 112, 112])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", dimension])],
            self._weights,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR,
            producer_name="wfm-fleet",
        )
        data: bytes = model.SerializeToString(deterministic=True)
        return data

    def _node(self, kind: str, *inputs: str, **attributes: object) -> str:
        result = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [result], **attributes))
        return result

    def _constant(self, values: NDArray[np.generic]) -> str:
        name = f"weights_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def _half(self, values: Float32) -> str:
        """Return the weights as float32; the file holds float16."""
        return self._node("Cast", self._constant(values.astype(np.float16)), to=TensorProto.FLOAT)
