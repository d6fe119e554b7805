"""Logs on standard error: an object a line for machines, or text for people."""

import json
import logging
import sys
import time

from broker_bridge.contract.settings import LogSettings


class JsonLines(logging.Formatter):
    """One JSON object per record: `at` (RFC 3339 UTC), `level`, `logger`, `message`, and `error` if any."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "at": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(settings: LogSettings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    if settings.format == "json":
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    # The driver logs every command at debug level, with its documents: those hold vectors.
    logging.getLogger("pymongo").setLevel(max(logging.INFO, logging.getLogger().level))
