"""Open a model file as a session of the runtime that its name asks for."""

from pathlib import Path

from device.vision.inference.session import ENGINE_SUFFIXES, Session, SessionOptions


def open_session(path: str | Path, options: SessionOptions | None = None) -> Session:
    """The session for a model file: TensorRT for `.engine` and `.plan`, else ONNX Runtime.

    What runs it is imported here, when it is used. Raises ModelError with one sentence.
    """
    options = options or SessionOptions()
    if Path(path).suffix.lower() in ENGINE_SUFFIXES:
        from .tensorrt_session import TensorRtSession  # noqa: PLC0415

        return TensorRtSession(path)
    from .onnx_session import OnnxSession  # noqa: PLC0415

    return OnnxSession(path, options)
