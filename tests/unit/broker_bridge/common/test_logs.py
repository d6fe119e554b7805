import asyncio
import gc
import json
import logging

import aiomqtt
import pytest
from pymongo.errors import AutoReconnect

from broker_bridge.common.logs import JsonFormatter, configure_logging
from broker_bridge.common.settings import LogSettings


def test_a_log_line_is_one_json_object_with_its_traceback_inside() -> None:
    """A log line is one JSON object, for collectors that read line by line."""
    error = RuntimeError("sample")
    trouble = (RuntimeError, error, None)
    record = logging.LogRecord(
        "device.mqtt.connection_loop", logging.ERROR, __file__, 1, "went %s", ("wrong",), trouble
    )
    text = JsonFormatter().format(record)
    assert "\n" not in text
    entry = json.loads(text)
    assert (entry["level"], entry["message"]) == ("error", "went wrong")
    assert "RuntimeError: sample" in entry["error"]


@pytest.fixture
def root_logger():
    """Restore the root logger, which `configure_logging` changes."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = handlers, level


async def _drop_error_of(future: "asyncio.Future[None]", error: BaseException) -> None:
    future.set_exception(error)


def _drop(error: BaseException) -> None:
    async def main() -> None:
        await _drop_error_of(asyncio.get_running_loop().create_future(), error)
        gc.collect()

    asyncio.run(main())


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize(
    "error", [ConnectionResetError("reset"), AutoReconnect("closed"), aiomqtt.MqttError("away")]
)
@pytest.mark.parametrize("level", ["info", "warning"])
def test_the_error_of_a_lost_connection_is_one_line(
    error: Exception, level: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asyncio logs a traceback: "Future exception was never retrieved"."""
    configure_logging(LogSettings(level=level))
    _drop(error)
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert "never retrieved" not in printed
    assert printed.count("\n") == (level == "info")


@pytest.mark.usefixtures("root_logger")
def test_a_background_call_of_the_driver_has_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """The driver ends cursors in the background, also while MongoDB is away."""
    configure_logging(LogSettings(level="info"))
    for error in (AutoReconnect("closed"), ValueError("a mistake")):
        logging.getLogger("pymongo.client").error("a background task failed", exc_info=error)
    printed = capsys.readouterr().err
    assert "AutoReconnect: closed" not in printed
    assert "ValueError: a mistake" in printed


@pytest.mark.usefixtures("root_logger")
def test_a_mistake_in_a_task_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(level="info"))
    _drop(ValueError("a mistake"))
    assert "ValueError: a mistake" in capsys.readouterr().err


@pytest.mark.usefixtures("root_logger")
def test_a_cancelled_request_has_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uvicorn cancels the requests that still run when it must stop."""
    # Another test may have started a server that configures its own logs.
    for name in ("uvicorn", "uvicorn.error"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
    configure_logging(LogSettings(level="info"))
    error = asyncio.CancelledError()
    logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=error)
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert "error=CancelledError" in printed


@pytest.mark.usefixtures("root_logger")
def test_errors_of_our_components_about_connections_stay(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(level="info"))
    error = ConnectionResetError("reset")
    logging.getLogger("device.mqtt.connection_loop").error("broker session met an error", exc_info=error)
    assert "ConnectionResetError: reset" in capsys.readouterr().err
