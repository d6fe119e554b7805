"""One server that the worker talks to: bounded answers, no redirects, and errors by what to do about them."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from .errors import AccessRefusedError, AwayError, FaultyError, RequestRefusedError, TooLargeError

_ACCESS = frozenset({401, 403})
_BUSY = frozenset({429, 502, 503, 504})
_MOST_ERROR_BYTES = 64 * 1024
_CONNECT_SECONDS = 5.0
_AWAY = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True)
class ServiceAnswer:
    """HTTP status below 300 and the body."""

    status: int
    body: bytes


class HttpService:
    """Requests to the server at `base` and to no other: proxies and redirects are not followed.

    `name` is what messages call it. Use as an asynchronous context manager.
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
        # What is compressed could grow without end while it is unpacked.
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
        """The address of `path`, whose parts are already quoted, below `base`."""
        return httpx.URL(f"{self.base}{path}")

    async def get(self, url: httpx.URL, most_bytes: int) -> ServiceAnswer:
        """The answer to GET. Raises AccessRefusedError, AwayError, FaultyError, RefusedError (also for a
        redirect) or TooLargeError."""
        return await self._ask("GET", url, most_bytes)

    async def post(self, path: str, document: Mapping[str, Any], most_bytes: int) -> ServiceAnswer:
        """The same for POST of a JSON document."""
        return await self._ask("POST", self.url(path), most_bytes, document)

    async def _ask(
        self, method: str, url: httpx.URL, most_bytes: int, document: Mapping[str, Any] | None = None
    ) -> ServiceAnswer:
        exchange = asyncio.ensure_future(self._exchange(method, url, most_bytes, document))
        try:
            # httpx limits each wait for bytes, and a server that sends one every second would hold us for
            # ever. Not wait_for: before Python 3.12 it may swallow the cancellation that ends this program.
            await asyncio.wait({exchange}, timeout=self._timeout)
        finally:
            late = exchange.cancel()
        if late:
            raise FaultyError(f"{self.name} took longer than {self._timeout:g} s")
        try:
            answer = exchange.result()
        except _AWAY as error:
            raise AwayError(f"{self.name} cannot be reached ({type(error).__name__})") from error
        except httpx.HTTPError as error:
            raise FaultyError(f"{self.name} broke off ({type(error).__name__})") from error
        return self._judge(answer)

    async def _exchange(
        self, method: str, url: httpx.URL, most_bytes: int, document: Mapping[str, Any] | None
    ) -> ServiceAnswer:
        async with self._client.stream(method, url, json=document) as response:
            if not response.is_success:
                return ServiceAnswer(response.status_code, await _beginning(response))
            announced = response.headers.get("content-length", "")
            if announced.isdecimal() and int(announced[:20]) > most_bytes:
                raise TooLargeError(f"{announced[:20]} bytes, at most {most_bytes} are read")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > most_bytes:
                    raise TooLargeError(f"more than {most_bytes} bytes")
            return ServiceAnswer(response.status_code, bytes(body))

    def _judge(self, answer: ServiceAnswer) -> ServiceAnswer:
        status = answer.status
        if 200 <= status < 300:
            return answer
        if status in _ACCESS:
            raise AccessRefusedError(f"{self.name} refuses access ({status}): check its key in the settings")
        if status in _BUSY:
            raise AwayError(f"{self.name} answers {status}")
        if status >= 500:
            raise FaultyError(f"{self.name} answers {status}")
        raise RequestRefusedError(status, f"{self.name} answers {status}", answer.body)


async def _beginning(response: httpx.Response) -> bytes:
    """What explains an error has room in the first 64 KiB."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= _MOST_ERROR_BYTES:
            break
    return bytes(body[:_MOST_ERROR_BYTES])
