"""Read and write a TensorRT engine and its record.

The record names model, TensorRT version and GPU. An engine does not contain these facts, and TensorRT's
error for an unfit engine does not name the reason.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from broker_bridge.contract.channels import describe
from broker_bridge.contract.wire import WireTime

from .session import ENGINE_SUFFIXES, ModelError

BUILD_IT = "build it here with `wfm-device build-engine model.onnx model.engine`"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Gpu:
    """A GPU's name and compute capability, for example `Orin` and `8.7`."""

    name: str
    compute_capability: str


class EngineRecord(BaseModel):
    """Content of `model.engine.json`.

    `onnx_sha256` identifies the model, `engine_sha256` the engine file.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    onnx_sha256: Sha256
    onnx_name: Annotated[str, Field(pattern=r"^[^/\\]+$")]
    tensorrt: str
    gpu: str
    compute_capability: str
    fp16: bool
    max_batch: Annotated[int, Field(ge=1)]
    built_at: WireTime
    engine_sha256: Sha256


def record_path(engine: Path) -> Path:
    """Return the record's path: `model.engine.json` for `model.engine`."""
    return engine.with_name(engine.name + ".json")


def check_engine_name(engine: Path) -> None:
    """Raise ModelError unless the suffix of `engine` is that of an engine."""
    if engine.suffix.lower() not in ENGINE_SUFFIXES:
        raise ModelError(f"{engine} is not the name of an engine: it has to end in .engine or .plan")


def read_record(engine: Path) -> EngineRecord:
    """Return the record of `engine`.

    Raises ModelError when it is missing or unreadable.
    """
    path = record_path(engine)
    try:
        return EngineRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing, which says what {engine} was built from: {BUILD_IT}") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ModelError(f"{path} is not the record of an engine ({describe(error)}): {BUILD_IT}") from error


def read_engine(engine: Path) -> tuple[bytes, EngineRecord]:
    """Return the engine's bytes, checked against the record, and the record.

    Raises ModelError when either is missing or damaged.
    """
    try:
        plan = engine.read_bytes()
    except OSError as error:
        raise ModelError(f"the engine {engine} cannot be read: {error.strerror}") from error
    record = read_record(engine)
    if hashlib.sha256(plan).hexdigest() != record.engine_sha256:
        raise ModelError(
            f"the engine {engine} ({len(plan)} bytes) is truncated or not the one of its record: {BUILD_IT}"
        )
    return plan, record


def write_engine(engine: Path, plan: memoryview, record: EngineRecord) -> None:
    """Write engine and record, each atomically.

    `read_engine` detects an interruption between the two. Raises ModelError when the folder is not writable.
    """
    check_engine_name(engine)
    try:
        _replace(engine, plan)
        _replace(record_path(engine), record.model_dump_json(indent=2).encode() + b"\n")
    except OSError as error:
        raise ModelError(f"the engine {engine} cannot be written: {error.strerror}") from error


def _replace(path: Path, content: bytes | memoryview) -> None:
    draft = path.with_name(path.name + ".part")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def explain_load_failure(engine: Path, record: EngineRecord, tensorrt: str, gpu: Gpu, last_error: str) -> str:
    """Return the error sentence for an engine that TensorRT does not load.

    `last_error` is TensorRT's own message, empty if there is none.
    """
    if record.tensorrt != tensorrt:
        reason = f"it was built by TensorRT {record.tensorrt} and this is {tensorrt}"
    elif record.compute_capability != gpu.compute_capability:
        reason = (
            f"it was built for {record.gpu} (compute capability {record.compute_capability}) "
            f"and this is {gpu.name} ({gpu.compute_capability})"
        )
    else:
        reason = last_error or "it gave no reason"
    return f"TensorRT does not load {engine}: {reason}; {BUILD_IT}"
