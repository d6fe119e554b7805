"""Send requests to one server, with bounded answers and errors by their remedy."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from .errors import (
    AccessRefusedError,
    RequestRefusedError,
    ServiceFaultError,
    ServiceUnavailableError,
    TooLargeError,
)

_ACCESS = frozenset({401, 403})
_BUSY = frozenset({429, 502, 503, 504})
_MAX_ERROR_BYTES = 64 * 1024
_CONNECT_SECONDS = 5.0
_UNREACHABLE = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True)
class ServiceAnswer:
    """A status below 300 and the body."""

    status: int
    body: bytes


class HttpService:
    """Send requests to the server at `base`, without proxies and redirects.

    `name` stands in error sentences. Use as an asynchronous context manager.
    """

    def __init__(
        self,
        name: str,
        base: str,
        key: str | None,
        *,
        timeout: float,
        tls: ssl.SSLContext | bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.name = f"the {name} at {base.rstrip('/')}"
        self.base = httpx.URL(base.rstrip("/"))
        self._timeout = timeout
        # A compressed body could grow without limit when it is unpacked.
        headers = {"Accept-Encoding": "identity", "User-Agent": "wfm-embed-worker"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
            verify=tls,
            trust_env=False,
            follow_redirects=False,
            transport=transport,
        )

    async def __aenter__(self) -> "HttpService":
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *caught: Any) -> None:
        await self._client.__aexit__(*caught)

    def url(self, path: str) -> httpx.URL:
        """Return the URL of `path` below `base`; the parts of `path` are already quoted."""
        return httpx.URL(f"{self.base}{path}")

    async def get(self, url: httpx.URL, max_bytes: int) -> ServiceAnswer:
        """Return the answer to GET.

        Raises AccessRefusedError, ServiceUnavailableError, ServiceFaultError, RequestRefusedError (also for a
        redirect) or TooLargeError.
        """
        return await self._send("GET", url, max_bytes)

    async def post(self, path: str, document: Mapping[str, Any], max_bytes: int) -> ServiceAnswer:
        """Return the answer to POST of a JSON document; raises the errors of `get`."""
        return await self._send("POST", self.url(path), max_bytes, document)

    async def _send(
        self, method: str, url: httpx.URL, max_bytes: int, document: Mapping[str, Any] | None = None
    ) -> ServiceAnswer:
        exchange = asyncio.ensure_future(self._exchange(method, url, max_bytes, document))
        try:
            # httpx limits each wait for bytes, so a slow sender could keep the request open for ever.
            # Not wait_for: before Python 3.12 it may swallow the cancellation that ends this program.
            await asyncio.wait({exchange}, timeout=self._timeout)
        finally:
            late = exchange.cancel()
        if late:
            raise ServiceFaultError(f"{self.name} took longer than {self._timeout:g} s")
        try:
            answer = exchange.result()
        except _UNREACHABLE as error:
            raise ServiceUnavailableError(
                f"{self.name} cannot be reached ({type(error).__name__})"
            ) from error
        except httpx.HTTPError as error:
            raise ServiceFaultError(f"{self.name} ended the connection ({type(error).__name__})") from error
        return self._check_status(answer)

    async def _exchange(
        self, method: str, url: httpx.URL, max_bytes: int, document: Mapping[str, Any] | None
    ) -> ServiceAnswer:
        async with self._client.stream(method, url, json=document) as response:
            if not response.is_success:
                return ServiceAnswer(response.status_code, await _beginning(response))
            announced = response.headers.get("content-length", "")
            if announced.isdecimal() and int(announced[:20]) > max_bytes:
                raise TooLargeError(f"{announced[:20]} bytes, at most {max_bytes} are read")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > max_bytes:
                    raise TooLargeError(f"more than {max_bytes} bytes")
            return ServiceAnswer(response.status_code, bytes(body))

    def _check_status(self, answer: ServiceAnswer) -> ServiceAnswer:
        status = answer.status
        if 200 <= status < 300:
            return answer
        if status in _ACCESS:
            raise AccessRefusedError(f"{self.name} rejects the worker's key ({status}): check the settings")
        if status in _BUSY:
            raise ServiceUnavailableError(f"{self.name} answers {status}")
        if status >= 500:
            raise ServiceFaultError(f"{self.name} answers {status}")
        raise RequestRefusedError(status, f"{self.name} answers {status}", answer.body)


async def _beginning(response: httpx.Response) -> bytes:
    """Return the first 64 KiB, which have room for the explanation of an error."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= _MAX_ERROR_BYTES:
            break
    return bytes(body[:_MAX_ERROR_BYTES])
