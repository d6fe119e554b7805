"""Write the logs of every program to standard error, as text or JSON lines.

Logs never contain vectors, images or names of identities.
"""

import json
import logging
import sys
from datetime import datetime, timezone

from broker_bridge.contract.wire import format_time

from .settings import LogSettings


class JsonFormatter(logging.Formatter):
    """The formatter of JSON lines: at, level, logger, message, and `error`.

    `error` is the traceback, if there is one.
    """

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
    """Configure the root logger; `__main__` calls this once."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if settings.format == "json" else text)
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    # At debug the drivers log every heartbeat and every command with its documents, vectors included; at info
    # FAISS logs how it was loaded.
    for chatty in ("pymongo", "asyncio", "aiomqtt", "mqtt", "faiss"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))
