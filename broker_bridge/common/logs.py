"""Write the logs of every program to standard error, as text or JSON lines.

Logs never contain vectors, images or names of identities; secrets in a message or traceback are masked.
"""

import asyncio
import json
import logging
import sys
from datetime import datetime, timezone

from broker_bridge.contract.wire import format_time

from .masking import MaskedStream, mask
from .settings import LogSettings


class TextFormatter(logging.Formatter):
    """The formatter of text to read, masked."""

    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


class JsonFormatter(logging.Formatter):
    """The formatter of JSON lines: at, level, logger, message, and `error`.

    `error` is the traceback, if there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "at": format_time(datetime.fromtimestamp(record.created, timezone.utc)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": mask(record.getMessage()),
        }
        if record.exc_info:
            entry["error"] = mask(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


class LostConnectionFilter(logging.Filter):
    """Turn the tracebacks of lost connections into one line at info.

    asyncio and uvicorn log a traceback when the waiter of a call has gone, since its connection broke or its
    program ends; MongoDB's driver logs one for its own calls. That is no error: the component that connects
    again logs what matters.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        dropped = record.name.startswith(("asyncio", "pymongo")) and _is_of_connection(error)
        if not dropped and not isinstance(error, asyncio.CancelledError):
            return True
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        record.msg, record.args = "connection lost; a call has ended error=%s", (type(error).__name__,)
        record.exc_info = record.exc_text = None
        return logging.getLogger().isEnabledFor(logging.INFO)


def _is_of_connection(error: BaseException | None) -> bool:
    """Return whether `error` is of the network, or of a client of MongoDB or MQTT."""
    return isinstance(error, OSError) or type(error).__module__.startswith(("pymongo.", "aiomqtt."))


def configure_logging(settings: LogSettings) -> None:
    """Configure the root logger; `__main__` calls this once."""
    # The formatters mask; masked once more, a line of JSON could lose its end.
    stderr = sys.stderr.unmasked if isinstance(sys.stderr, MaskedStream) else sys.stderr
    handler = logging.StreamHandler(stderr)
    text = TextFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.addFilter(LostConnectionFilter())
    handler.setFormatter(JsonFormatter() if settings.format == "json" else text)
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    # At debug the drivers log every heartbeat and every command with its documents, vectors included; at info
    # FAISS logs how it was loaded.
    for chatty in ("pymongo", "asyncio", "aiomqtt", "mqtt", "faiss"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))
