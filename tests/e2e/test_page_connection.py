"""The page while the API or its live stream is silent, in a real browser."""

import signal
import sys

import httpx
import pytest
from playwright.async_api import Page, expect

from deploy.local.stack import Mongod, free_port
from tests.conftest import StartProgram
from tests.waiting import until

from .conftest import Board, picture, sign_in

pytestmark = pytest.mark.asyncio(loop_scope="session")

SHORT_LIMITS = "window.wfmLimits = {silentMs: 4000, readMs: 3000, idleMs: 2000, failingMs: 1000}"


async def answers(url: str) -> bool:
    async with httpx.AsyncClient() as client:
        try:
            return (await client.get(f"{url}/healthz")).is_success
        except httpx.TransportError:
            return False


async def test_a_frozen_api_is_reported_until_it_answers_again(
    page: Page, board: Board, mongod: Mongod, mongo_database: str, start_program: StartProgram
) -> None:
    """The banner counts the seconds; the page is live again without a reload."""
    port = free_port()
    env = {"WFM_MONGO__URI": mongod.uri, "WFM_MONGO__DATABASE": mongo_database, "WFM_API__PORT": str(port)}
    env |= {"WFM_API__PHOTOS": "false", "WFM_API__STREAM_KEEPALIVE_SECONDS": "0.5"}
    program = start_program([sys.executable, "-m", "dashboard_api"], env)
    board.url = f"http://127.0.0.1:{port}"
    await until(lambda: answers(board.url))
    await page.add_init_script(SHORT_LIMITS)
    await page.goto(board.url)
    await sign_in(page)
    status, banner = page.locator("#connection"), page.get_by_role("alert").filter(has_text="Not live")
    await expect(status).to_have_text("live")
    await expect(page.locator("#identities")).to_contain_text("EMP-12345")
    program.process.send_signal(signal.SIGSTOP)
    await expect(banner).to_contain_text("the API has not answered for 4 s", timeout=10_000)
    await expect(status).to_have_text("connecting again")
    await page.get_by_role("button", name="Delete EMP-12345").click()
    await page.get_by_role("button", name="Yes, delete EMP-12345").click()
    await picture(page, "frozen")
    program.process.send_signal(signal.SIGCONT)
    await expect(banner).to_be_hidden(timeout=15_000)
    await expect(status).to_have_text("live", timeout=15_000)
    await expect(page.locator("#notice")).to_contain_text("EMP-12345 is deleted")
    await board.recognised(1, None)
    await expect(page.locator("#events li")).to_have_count(1)


async def test_a_silent_stream_is_opened_again(page: Page, board: Board) -> None:
    """Lists are answered meanwhile, so only the stream shows the break."""
    await page.add_init_script(SHORT_LIMITS)
    # A response that begins and never goes on, as behind a proxy that lost its server.
    await page.add_init_script(
        """
        const real = window.fetch;
        let opened = 0;
        window.fetch = (path, options) => {
          if (!path.includes("/stream") || (opened += 1) > 2) return real(path, options);
          return Promise.resolve(new Response(new ReadableStream({
            start: (controller) => controller.enqueue(new TextEncoder().encode(": connected\\n\\n")),
          })));
        };
        """
    )
    await page.reload()
    await sign_in(page)
    await expect(page.locator("#connection")).to_have_text("live")
    await expect(page.locator("#connection")).to_have_text("connecting again")
    await expect(page.locator("#not-live")).to_contain_text("a part of this page gets no answers")
    await expect(page.locator("#connection")).to_have_text("live")
    await expect(page.locator("#not-live")).to_be_hidden()
