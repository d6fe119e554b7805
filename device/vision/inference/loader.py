"""Open a model file with the runtime that its suffix names."""

from pathlib import Path

from .session import ENGINE_SUFFIXES, Session, SessionOptions


def open_session(path: str | Path, options: SessionOptions | None = None) -> Session:
    """Open the model file at `path` with the runtime of its suffix.

    TensorRT opens `.engine` and `.plan`, ONNX Runtime all others. The runtime is imported on use. Raises
    ModelError when the file is missing or unfit.
    """
    options = options or SessionOptions()
    if Path(path).suffix.lower() in ENGINE_SUFFIXES:
        from .tensorrt_session import TensorRtSession  # noqa: PLC0415

        return TensorRtSession(path)
    from .onnx_session import OnnxSession  # noqa: PLC0415

    return OnnxSession(path, options)
