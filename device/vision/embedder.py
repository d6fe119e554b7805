"""Embed 112x112 faces as unit vectors of an embedding space."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.spaces import SpaceRecord

from .detectors.geometry import FACE_SIZE
from .inference.batches import shape_text
from .inference.loader import open_session
from .inference.session import Float32, ModelError, Session, SessionOptions
from .model_record import built_in_model, check_record, find_record, space_of

__all__ = ["Embedder", "FaceEmbedder", "ModelError", "load_embedder"]

# Vectors of faces have lengths of ten and more; a shorter one is rounding noise of a flat image.
_SHORTEST = 1e-2


class Embedder(Protocol):
    @property
    def space(self) -> EmbeddingSpace: ...

    def embed(self, faces: NDArray[np.uint8]) -> Float32:
        """Return float32[n, d] of unit length for `faces` uint8[n, 112, 112, 3] BGR.

        A face without a vector (a flat image, or NaN from the network) has a row of zeros, which matches no
        template.
        """


class FaceEmbedder:
    """ArcFace's preprocessing around any network of its shape.

    Source: Deng et al. 2019, arXiv 1801.07698.

    The network takes float32[n, 3, 112, 112] and returns one float32[n, d]; raises ModelError for another.
    `session` is public for the canary, `record` is what is known of its space.
    """

    def __init__(self, session: Session, space_id: str) -> None:
        self.session = session
        self._space = EmbeddingSpace(space_id, _dimension(session), session.sha256)
        self.record = SpaceRecord(
            space=space_id, dimension=self._space.dimension, model_sha256=session.sha256
        )

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    def embed(self, faces: NDArray[np.uint8]) -> Float32:
        if not len(faces):
            return np.empty((0, self._space.dimension), dtype=np.float32)
        rgb = faces[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
        raw = self.session.run(np.ascontiguousarray((rgb - 127.5) / 127.5))[0]
        if raw.shape != (len(faces), self._space.dimension):
            raise ModelError(
                f"{self.session.path} answers {list(raw.shape)}, "
                f"expected {[len(faces), self._space.dimension]} as before"
            )
        raw = np.nan_to_num(raw) * np.isfinite(raw).all(axis=1, keepdims=True)
        with np.errstate(over="ignore"):
            lengths = np.linalg.norm(raw, axis=1, keepdims=True)
        usable = np.isfinite(lengths) & (lengths >= _SHORTEST)
        unit: Float32 = np.divide(raw, lengths, out=np.zeros_like(raw), where=usable)
        return unit


def _dimension(session: Session) -> int:
    """Return d of a network to float32[n, d], measured by a run."""
    face = (3, FACE_SIZE, FACE_SIZE)
    if session.input.shape[1:] != face:
        raise ModelError(
            f"{session.path} takes {shape_text(session.input.shape)}, expected {shape_text((None, *face))}"
        )
    # The declared shapes of outputs are often wrong: InsightFace's files declare [1, 512] for any batch.
    answers = session.run(np.zeros((2, *face), dtype=np.float32))
    if len(answers) != 1 or answers[0].ndim != 2 or len(answers[0]) != 2 or not answers[0].size:
        found = ", ".join(str(list(answer.shape)) for answer in answers)
        raise ModelError(f"{session.path} answers {found} to two faces, expected one float32[2, d]")
    return int(answers[0].shape[1])


def load_embedder(
    model: str | Path | None = None,
    space: str | None = None,
    options: SessionOptions | None = None,
    *,
    reference_model: Path | None = None,
) -> FaceEmbedder:
    """Load the embedder of `model` with the record of its space.

    None is the model that comes with the product. A path is a network of ArcFace's shape (ONNX, or a TensorRT
    engine), with its record beside it, or beside the ONNX file `reference_model`. `space` names the space of
    a file without a record.

    Raises ModelError when the model is missing or unfit, or is not the one that its record describes.
    """
    if model is None and space not in (None, DEFAULT_FACE_SPACE.space):
        raise ModelError(
            f"the space {space} needs the path of its model; without one there is {DEFAULT_FACE_SPACE.space}"
        )
    path = built_in_model() if model is None else Path(model)
    session = open_session(path, options)
    record = find_record(path, reference_model)
    embedder = FaceEmbedder(session, space_of(path, record, space))
    embedder.record = check_record(path, record, embedder.space)
    return embedder
