import json
import logging

from broker_bridge.common.logs import JsonFormatter


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
