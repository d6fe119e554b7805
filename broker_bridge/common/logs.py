"""Logs of every program, on standard error: for people or as JSON lines. Never vectors, images or names."""

import json
import logging
import sys
from datetime import datetime, timezone

from broker_bridge.contract.wire import format_time

from .settings import LogSettings


class JsonFormatter(logging.Formatter):
    """One object a line: at, level, logger, message, and `error` with the traceback where there is one."""

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


def configure_logging(settings: LogSettings) -> None:
    """Set up the root logger; called once, by `__main__`."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if settings.format == "json" else text)
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    # At debug the drivers tell of every heartbeat, and of every command with its documents, vectors included;
    # FAISS tells at info how it was loaded.
    for chatty in ("pymongo", "asyncio", "aiomqtt", "mqtt", "apscheduler", "faiss"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))
