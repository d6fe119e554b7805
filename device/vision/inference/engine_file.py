"""A TensorRT engine and the record beside it: which model it was built from, with what and for which GPU.

An engine tells none of this itself, and TensorRT says of one that does not fit only that it does not load.
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
    """What an engine is built for: the name and the compute capability, for example `Orin` and `8.7`."""

    name: str
    compute_capability: str


class EngineRecord(BaseModel):
    """What `model.engine.json` holds; `onnx_sha256` names the model, `engine_sha256` the engine file."""

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
    """`model.engine.json` for `model.engine`."""
    return engine.with_name(engine.name + ".json")


def check_engine_name(engine: Path) -> None:
    """Raises ModelError unless `engine` is named so that it is later opened as an engine."""
    if engine.suffix.lower() not in ENGINE_SUFFIXES:
        raise ModelError(f"{engine} cannot be the name of an engine: it ends in .engine or .plan")


def read_record(engine: Path) -> EngineRecord:
    """The record beside `engine`. Raises ModelError when there is none that can be read."""
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
    """The engine's bytes, checked against its record. Raises ModelError when either is missing or damaged."""
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
    """Put engine and record in place, each at once and whole: what is interrupted in between is noticed by
    `read_engine`. Raises ModelError when the folder cannot be written to."""
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


def why_it_does_not_load(engine: Path, record: EngineRecord, tensorrt: str, gpu: Gpu, said: str) -> str:
    """The sentence for an engine that TensorRT refuses; `said` is its own last error, if it gave one."""
    if record.tensorrt != tensorrt:
        reason = f"it was built by TensorRT {record.tensorrt} and this is {tensorrt}"
    elif record.compute_capability != gpu.compute_capability:
        reason = (
            f"it was built for {record.gpu} (compute capability {record.compute_capability}) "
            f"and this is {gpu.name} ({gpu.compute_capability})"
        )
    else:
        reason = said or "it gave no reason"
    return f"TensorRT does not load {engine}: {reason}; {BUILD_IT}"
