"""Build a TensorRT engine from an ONNX file, on the GPU that will run it."""

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any

from .batches import shape_text
from .engine_file import EngineRecord, check_engine_name, write_engine
from .model_file import ModelFile
from .session import ModelError
from .tensorrt_session import import_cuda, import_tensorrt, tensorrt_logger

_MEGABYTE = 1 << 20


def build_engine(
    onnx: Path, engine: Path, *, fp16: bool, max_batch: int, workspace_mb: int, built_at: datetime
) -> EngineRecord:
    """Build `engine` from `onnx` for this GPU and write it with its record.

    The build takes minutes. `max_batch` is the maximum number of faces at once, for a network with a free
    batch dimension. Raises ModelError with one sentence.
    """
    check_engine_name(engine)
    file = ModelFile.read(onnx)
    trt = import_tensorrt()
    gpu = import_cuda().gpu()
    logger = tensorrt_logger(trt)
    logger.last_error = ""
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        reason = errors[0] if errors else logger.last_error
        raise ModelError(f"TensorRT cannot read {onnx}: {reason or 'it gave no reason'}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mb * _MEGABYTE)
    if fp16:
        _allow_fp16(trt, config)
    max_batch = _set_batch(builder, network, config, onnx, max_batch)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ModelError(f"TensorRT cannot build {onnx}: {logger.last_error or 'it gave no reason'}")
    file.check_unchanged()
    content = memoryview(plan)
    record = EngineRecord(
        onnx_sha256=file.sha256,
        onnx_name=onnx.name,
        tensorrt=trt.__version__,
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        fp16=fp16,
        max_batch=max_batch,
        built_at=built_at,
        engine_sha256=hashlib.sha256(content).hexdigest(),
    )
    write_engine(engine, content, record)
    return record


def _set_batch(builder: Any, network: Any, config: Any, onnx: Path, max_batch: int) -> int:
    """Return the maximum number of rows; add a profile if the batch dimension is free."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    if len(inputs) != 1 or any(size < 0 for size in tuple(inputs[0].shape)[1:]):
        shapes = [tuple(None if size < 0 else int(size) for size in each.shape) for each in inputs]
        found = ", ".join(shape_text(shape) for shape in shapes)
        raise ModelError(f"{onnx} takes {found}, expected one input with no free dimension but the batch")
    first, *rest = (int(size) for size in inputs[0].shape)
    if first >= 0:
        return first
    profile = builder.create_optimization_profile()
    profile.set_shape(inputs[0].name, (1, *rest), (max_batch, *rest), (max_batch, *rest))
    config.add_optimization_profile(profile)
    return max_batch


def _allow_fp16(trt: Any, config: Any) -> None:
    flag = getattr(trt.BuilderFlag, "FP16", None)
    if flag is None:
        raise ModelError(
            f"TensorRT {trt.__version__} has no half precision by flag: convert the ONNX file with NVIDIA's "
            "ModelOpt AutoCast and build it without --fp16"
        )
    config.set_flag(flag)
