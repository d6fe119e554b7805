"""Find out that this program's MongoDB client is broken."""

import asyncio
import logging

from .client import Mongo
from .errors import RegistryError

_log = logging.getLogger(__name__)

_PAUSE_SECONDS = 5.0
_TICK_SECONDS = 1.0
# All deadlines of the driver for one command, added up, are shorter.
_OVERDUE_TICKS = 15
_CONTRADICTIONS = 3


class ConnectionProbe:
    """Pings MongoDB regularly and judges the client, not the server.

    A server that is away answers with an error by the driver's deadlines. `works` turns False if a ping has
    neither an answer nor an error by then, or fails repeatedly while a new client gets an answer.
    """

    def __init__(self, mongo: Mongo, pause: float = _PAUSE_SECONDS, tick: float = _TICK_SECONDS) -> None:
        self._mongo = mongo
        self._pause = pause
        self._tick = tick
        self._contradictions = 0
        self.works = True

    async def probe_regularly(self) -> None:
        """Probe until cancelled."""
        while True:
            await self.probe()
            await asyncio.sleep(self._pause)

    async def probe(self) -> None:
        """Probe once."""
        reason = await self._judge()
        if reason and self.works:
            _log.error("mongodb client is broken; the program must start again reason=%r", reason)
        self.works = reason is None

    async def _judge(self) -> str | None:
        """Return the reason why the client cannot work, or None."""
        ping = asyncio.ensure_future(self._mongo.ping())
        try:
            # By ticks: after a stop of the whole process one long wait would be over at once.
            for _ in range(_OVERDUE_TICKS):
                if (await asyncio.wait({ping}, timeout=self._tick))[0]:
                    break
        finally:
            ping.cancel()
        if not ping.done():
            return "a ping has neither an answer nor an error"
        if ping.cancelled() or not isinstance(ping.exception(), RegistryError):
            self._contradictions = 0
            return None
        self._contradictions = self._contradictions + 1 if await self._new_client_works() else 0
        if self._contradictions >= _CONTRADICTIONS:
            return "pings fail while a new client gets an answer"
        return None

    async def _new_client_works(self) -> bool:
        fresh = self._mongo.again()
        try:
            await fresh.ping()
        except RegistryError:
            return False
        finally:
            await fresh.close()
        return True
