"""Enrollment by the form of the dashboard page in a real browser."""

import pytest
from playwright.async_api import FilePayload, Page, Route, expect

from broker_bridge.registry.identities.model import EnrollIdentity

from .conftest import Board, picture, sign_in

pytestmark = pytest.mark.asyncio(loop_scope="session")


def photo(name: str = "me.jpg", content: bytes = b" a photo") -> FilePayload:
    return {"name": name, "mimeType": "image/jpeg", "buffer": b"\xff\xd8" + content}


FACELESS = photo("wall.jfif", b" faceless")


async def fill(page: Page, user_id: str, *photos: FilePayload, name: str = "") -> None:
    await page.get_by_label("Id", exact=True).fill(user_id)
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Photos").set_input_files(photos)


async def template_count(board: Board, user_id: str) -> int:
    return len((await board.registry.identities.templates_of([user_id])).get(user_id, ()))


async def test_a_failed_enrollment_changes_no_identity(page: Page, board: Board) -> None:
    """Neither an employee past the loaded page, nor a deleted one, nor a version."""
    identities = board.registry.identities
    await identities.enroll_many([EnrollIdentity(f"A-{n:03}") for n in range(50)])
    await identities.delete("EMP-777")
    before = await board.registry.versions.read()
    await sign_in(page)
    await expect(page.locator("#identities li")).to_have_count(50)
    await expect(page.locator("#identities")).not_to_contain_text("EMP-12345")
    notice = page.locator("#notice.error")
    for user_id in ("EMP-12345", "EMP-777", "EMP-NEW"):
        await fill(page, user_id, photo(), FACELESS)
        await page.get_by_role("button", name="Enroll").click()
        await expect(notice).to_contain_text("wall.jfif: no face was found")
        await page.get_by_label("Id", exact=True).fill("")
        await notice.evaluate("notice => notice.replaceChildren()")
    await fill(page, "EMP-777", photo())
    await page.get_by_role("button", name="Enroll").click()
    await expect(notice).to_contain_text("EMP-777 is deleted and can be restored: restore it first")
    await picture(page, "enroll-refused")
    assert await board.registry.versions.read() == before
    assert await template_count(board, "EMP-12345") == 1
    await identities.restore("EMP-777")
    assert await template_count(board, "EMP-777") == 1


async def test_a_lost_answer_and_a_taken_id_lose_no_input(page: Page, board: Board) -> None:
    """The form is sent again; for a taken id the page offers to add the photos."""
    await sign_in(page)

    async def lose_answer(route: Route) -> None:
        await route.fetch()
        await route.abort()

    await page.route("**/enrollments", lose_answer, times=1)
    await fill(page, "EMP-42", photo(), photo("side.png", b" another photo"), name="Boris")
    await page.get_by_role("button", name="Enroll").click()
    await expect(page.locator("#notice.error")).to_contain_text("may or may not have been made")
    await page.get_by_role("button", name="Enroll").click()
    await expect(page.locator("#notice")).to_have_text("EMP-42 is enrolled.")
    identity = await board.registry.identities.get("EMP-42")
    assert (identity.version, await template_count(board, "EMP-42")) == (4, 2)
    await fill(page, "EMP-12345", photo(), photo("side.png", b" another photo"), name="Somebody else")
    await page.get_by_role("button", name="Enroll").click()
    await expect(page.locator("#notice.error")).to_contain_text("EMP-12345 is enrolled already")
    assert await template_count(board, "EMP-12345") == 1
    add = page.get_by_role("button", name="Add to EMP-12345")
    await page.get_by_label("Id", exact=True).fill("EMP-1234")
    await expect(add).to_be_hidden()
    await page.get_by_label("Id", exact=True).fill("EMP-12345")
    await page.get_by_role("button", name="Enroll").click()
    await add.click()
    await expect(page.locator("#notice")).to_contain_text("EMP-12345 has 2 of 2 photos more.")
    await expect(add).to_be_hidden()
    assert await template_count(board, "EMP-12345") == 3
    assert (await board.registry.identities.get("EMP-12345")).display_name == "Ana Petrova"
