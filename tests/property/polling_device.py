"""Simulate a device that polls: the API's real routes without HTTP."""

import base64
from typing import Any
from urllib.parse import parse_qs, urlsplit

from broker_bridge.common.clock import utc_now
from broker_bridge.registry import Registry
from dashboard_api.edge.caller import EdgeDevice
from dashboard_api.edge.sync_routes import confirm, sync
from dashboard_api.edge.views import ConfirmBody, EdgeRemoval
from dashboard_api.http.problems import Problem

_LIMIT = 2


class PollingDevice:
    """A device that follows `docs/edge-http.md`; seed 002 continues without the epoch."""

    def __init__(self, device_id: str, site: str, *, with_epoch: bool) -> None:
        self.device_id = device_id
        self.site = site
        self.faces: dict[str, frozenset[tuple[str, bytes]]] = {}
        self._with_epoch = with_epoch
        self._epoch: str | None = None
        self._version = 0

    async def poll(self, registry: Registry) -> None:
        """Take all pages of the changes since the last poll."""
        query: dict[str, Any] = {"since": str(self._version), "limit": _LIMIT}
        if self._with_epoch and self._epoch:
            query["epoch"] = self._epoch
        named: set[str] | None = None
        while True:
            answer = await sync(
                caller=await self._caller(registry),
                polling=registry.edge_polling,
                known_spaces=registry.spaces,
                now=utc_now,
                spaces=(),
                **query,
            )
            if answer.reset:
                named = set()
            for change in answer.changes:
                if isinstance(change, EdgeRemoval):
                    self.faces.pop(change.face_id, None)
                    continue
                if named is not None:
                    named.add(change.face_id)
                rows = frozenset((t.space, base64.b64decode(t.embedding)) for t in change.templates)
                self.faces[change.face_id] = rows
            if answer.next is None:
                break
            query = _query(answer.next)
        if named is not None:
            self.faces = {user_id: rows for user_id, rows in self.faces.items() if user_id in named}
        self.faces = {user_id: rows for user_id, rows in self.faces.items() if rows}
        self._epoch, self._version = answer.epoch, answer.version

    async def confirm(self, registry: Registry) -> None:
        """Confirm the last poll; the API may refuse it."""
        if self._epoch is None:
            return
        body = ConfirmBody(epoch=self._epoch, version=self._version)
        try:
            await confirm(
                body, await self._caller(registry), registry.devices, registry.edge_polling, utc_now
            )
        except Problem as problem:
            if problem.status != 409:
                raise

    async def _caller(self, registry: Registry) -> EdgeDevice:
        device = (await registry.devices.registered([self.device_id]))[self.device_id]
        return EdgeDevice(device)


def _query(path: str) -> dict[str, Any]:
    found: dict[str, Any] = {key: values[0] for key, values in parse_qs(urlsplit(path).query).items()}
    for number in ("limit", "begun_at", "reset_head_version"):
        if number in found:
            found[number] = int(found[number])
    return found
