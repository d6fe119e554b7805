"""`face:gabor-512`, the embedded default: a training-free descriptor.

It has the shape of ArcFace.

It is for trials without a download, and **not for real identification**: it distinguishes a hundred faces
under small changes, and is not robust to age, pose or light.

The descriptor: luminance; magnitudes of complex Gabor filters at 4 wavelengths and 8 orientations
(Daugman 1985); averages over a 6x6 grid; per filter, mean removed and scaled to unit variance over the
grid, which takes out brightness and contrast; cells weighted towards the middle of the face; a random
projection to 512 (Johnson and Lindenstrauss). Everything follows from the constants below and a frozen
random stream.
"""

from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .detectors.detector import Float32

SPACE_ID = "face:gabor-512"
DISTANCE_THRESHOLD = 0.25
"""Greatest cosine distance of a match in this space (other spaces: 0.35, seed 003)."""
MIN_MARGIN = 0.05
"""Least lead in similarity of the best identity over the second best in this space."""

WAVELENGTHS = (5.0, 8.0, 12.0, 18.0)
ORIENTATIONS = 8
_KERNEL = 25
_STRIDE = 2
_GRID = 6
_DIMENSION = 512
_SEED = 512
# Contrast below this is noise; a flat image thus has no vector.
_LEAST_DEVIATION = 1e-3
_CENTRE_SIGMA_CELLS = 2.4
_SIGMA_PER_WAVELENGTH = 0.56
_ASPECT = 0.5


def model_path() -> Path:
    """Return the path of the installed model file, which `build_model` makes."""
    return Path(str(resources.files(__package__) / "models" / "gabor-512.onnx"))


def gabor_kernels() -> Float32:
    """Return float32[64, 1, 25, 25], zero-mean filters.

    The first 32 are even, the others are their odd partners.
    """
    reach = _KERNEL // 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    even, odd = [], []
    for wavelength in WAVELENGTHS:
        for step in range(ORIENTATIONS):
            angle = np.pi * step / ORIENTATIONS
            along = x * np.cos(angle) + y * np.sin(angle)
            across = y * np.cos(angle) - x * np.sin(angle)
            sigma = _SIGMA_PER_WAVELENGTH * wavelength
            envelope = np.exp(-(along**2 + (_ASPECT * across) ** 2) / (2 * sigma**2))
            envelope /= envelope.sum()
            cosine = envelope * np.cos(2 * np.pi * along / wavelength)
            even.append(cosine - envelope * cosine.sum())
            odd.append(envelope * np.sin(2 * np.pi * along / wavelength))
    return np.array(even + odd, dtype=np.float32)[:, None]


def projection() -> NDArray[np.float16]:
    """Return float16[1152, 512], random directions.

    Rows are weighted towards the centre.
    """
    filters = len(WAVELENGTHS) * ORIENTATIONS
    # RandomState's stream is frozen by numpy's policy, the newer generators' is not.
    random = np.random.RandomState(_SEED).standard_normal((filters * _GRID**2, _DIMENSION))
    offset = np.arange(_GRID) - (_GRID - 1) / 2
    weight = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * _CENTRE_SIGMA_CELLS**2))
    scaled = random * np.tile(weight.ravel(), filters)[:, None] / np.sqrt(_DIMENSION)
    directions: NDArray[np.float16] = scaled.astype(np.float16)
    return directions


def build_model() -> bytes:
    """Return the ONNX file of the descriptor.

    Its input is float32[n, 3, 112, 112] (as ArcFace), its output float32[n, 512]. Needs the `onnx`
    package, which running the model does not.
    """
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    margin = _KERNEL // 2
    cell = 112 // _STRIDE // _GRID
    pads = np.array([0, 0, margin, margin, 0, 0, margin, margin], dtype=np.int64)
    weights: dict[str, NDArray[np.generic]] = {
        "luminance": np.array([0.299, 0.587, 0.114], dtype=np.float32).reshape(1, 3, 1, 1),
        "pads": pads,
        "kernels": gabor_kernels(),
        "least": np.array([_LEAST_DEVIATION], dtype=np.float32),
        "projection16": projection(),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["input", "luminance"], ["grey"]),
        node("Pad", ["grey", "pads"], ["padded"], mode="reflect"),
        node("Conv", ["padded", "kernels"], ["responses"], strides=[_STRIDE, _STRIDE]),
        node("Split", ["responses"], ["even", "odd"], axis=1),
        node("Mul", ["even", "even"], ["even_squared"]),
        node("Mul", ["odd", "odd"], ["odd_squared"]),
        node("Add", ["even_squared", "odd_squared"], ["energy"]),
        node("Sqrt", ["energy"], ["magnitude"]),
        node("AveragePool", ["magnitude"], ["cells"], kernel_shape=[cell, cell], strides=[cell, cell]),
        node("ReduceMean", ["cells"], ["mean"], axes=[2, 3]),
        node("Sub", ["cells", "mean"], ["centred"]),
        node("Mul", ["centred", "centred"], ["squared"]),
        node("ReduceMean", ["squared"], ["variance"], axes=[2, 3]),
        node("Sqrt", ["variance"], ["spread"]),
        node("Add", ["spread", "least"], ["deviation"]),
        node("Div", ["centred", "deviation"], ["standard"]),
        node("Flatten", ["standard"], ["features"]),
        node("Cast", ["projection16"], ["projection"], to=TensorProto.FLOAT),
        node("MatMul", ["features", "projection"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "gabor-512",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", _DIMENSION])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="wfm-fleet"
    )
    data: bytes = model.SerializeToString()
    return data
