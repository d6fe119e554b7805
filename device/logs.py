"""Logs on standard error: one JSON object a line, or text for people. Never vectors, images or names."""

import json
import logging
import sys
from datetime import datetime, timezone

from broker_bridge.contract.settings import LogSettings
from broker_bridge.contract.wire import format_time


class JsonFormatter(logging.Formatter):
    """`{"at", "level", "logger", "message"}` and `error` with the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "at": format_time(datetime.fromtimestamp(record.created, timezone.utc)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def set_up_logging(settings: LogSettings) -> None:
    """Send all logging to standard error as `settings` say."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    # One line per job and interval says nothing that the heartbeat does not.
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
