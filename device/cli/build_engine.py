"""Run `wfm-device build-engine`: build a TensorRT engine for this GPU."""

from pathlib import Path
from typing import Annotated

import typer

from broker_bridge.common.clock import utc_now
from device.cli.common import exit_on_error
from device.vision.canary import check_canary, open_reference
from device.vision.inference.engine_file import record_path
from device.vision.inference.loader import open_session
from device.vision.inference.tensorrt_builder import build_engine as build


def build_engine(
    onnx: Annotated[Path, typer.Argument(help="The model, for example w600k_r50.onnx.")],
    engine: Annotated[Path, typer.Argument(help="Where the engine goes, for example w600k_r50.engine.")],
    fp16: Annotated[bool, typer.Option("--fp16", help="Half precision: faster, half the memory.")] = False,
    max_batch: Annotated[int, typer.Option(min=1, max=256, help="Faces at once.")] = 8,
    workspace_mb: Annotated[int, typer.Option(min=16, help="GPU memory the builder may try out.")] = 1024,
) -> None:
    """Build a TensorRT engine from an ONNX model, on the GPU that will run it.

    This takes minutes. The engine is then compared with the model on the CPU: status 1 if they differ, 2 if
    the engine cannot be built.
    """
    typer.echo(f"building {engine} from {onnx}, which takes minutes")
    with exit_on_error():
        record = build(
            onnx, engine, fp16=fp16, max_batch=max_batch, workspace_mb=workspace_mb, built_at=utc_now()
        )
        session = open_session(engine)
        result = check_canary(session, open_reference(session, onnx))
    typer.echo(
        f"{engine}: TensorRT {record.tensorrt}, {record.gpu} ({record.compute_capability}), "
        f"{'half' if record.fp16 else 'single'} precision, up to {record.max_batch} at once; "
        f"record in {record_path(engine)}"
    )
    typer.echo(f"canary: {result.detail}; {result.milliseconds:.1f} ms")
    if not result.passed:
        typer.echo(f"{engine} gives other answers than {onnx}: do not use it", err=True)
        raise typer.Exit(1)
