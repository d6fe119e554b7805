"""From 112x112 faces to unit vectors in an embedding space."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.ids import SpaceId

from . import gabor
from .detector import Float32

# Networks answer faces with lengths of ten and more; what is this short is rounding noise of a flat picture.
_SHORTEST = 1e-2


class ModelError(Exception):
    """A model file that is missing or is not what it should be; one sentence that says which and how."""


class Session(Protocol):
    """What runs the network; `onnx_session.OnnxSession` is one."""

    sha256: str
    dimension: int

    def run(self, batch: Float32) -> Float32: ...


class Embedder(Protocol):
    @property
    def space(self) -> EmbeddingSpace: ...

    def embed(self, faces: NDArray[np.uint8]) -> Float32:
        """float32[n, d], unit length, for `faces` uint8[n, 112, 112, 3] BGR. A face that has no vector (a
        flat picture, or a network that answered NaN) is a row of zeros: it is similar to nobody."""


class FaceEmbedder:
    """ArcFace's own preprocessing round any network of its shape (Deng et al. 2019, arXiv 1801.07698)."""

    def __init__(self, session: Session, space_id: str) -> None:
        self._session = session
        self._space = EmbeddingSpace(space_id, session.dimension, session.sha256)

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    def embed(self, faces: NDArray[np.uint8]) -> Float32:
        if not len(faces):
            return np.empty((0, self._space.dimension), dtype=np.float32)
        rgb = faces[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
        raw = self._session.run(np.ascontiguousarray((rgb - 127.5) / 127.5))
        raw = np.nan_to_num(raw) * np.isfinite(raw).all(axis=1, keepdims=True)
        lengths = np.linalg.norm(raw, axis=1, keepdims=True)
        usable = np.isfinite(lengths) & (lengths >= _SHORTEST)
        unit: Float32 = np.divide(raw, lengths, out=np.zeros_like(raw), where=usable)
        return unit


def load_embedder(model: str | None = None, space: str | None = None, *, threads: int = 1) -> Embedder:
    """The embedder that a device or the API is configured with.

    `model` None is the embedded `face:gabor-512`, which is for trying the product out and not for
    identifying people in earnest. A path is an ONNX network of ArcFace's shape, and `space` then names the
    space of its vectors, for example `face:arcface-w600k-r50`. Raises ModelError.
    """
    if model is None:
        if space not in (None, gabor.SPACE_ID):
            raise ModelError(
                f"the space {space} needs the path of its model; without one there is {gabor.SPACE_ID}"
            )
        return FaceEmbedder(_session(str(gabor.model_path()), threads), gabor.SPACE_ID)
    if space is None:
        raise ModelError(f"the model {model} needs the name of its space, for example face:arcface-w600k-r50")
    try:
        TypeAdapter(SpaceId).validate_python(space)
    except ValidationError as error:
        raise ModelError(f"{space!r} is not a space: expected face:<model>, in lower case") from error
    return FaceEmbedder(_session(model, threads), space)


def _session(path: str, threads: int) -> Session:
    # Imported when it is used: a device with another kind of session does without ONNX Runtime.
    from .onnx_session import OnnxSession  # noqa: PLC0415

    return OnnxSession(path, threads=threads)
