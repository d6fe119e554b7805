"""Actions on the page while its lists are drawn again, in a real browser."""

import asyncio

import pytest
from playwright.async_api import Locator, Page, Route, expect

from .conftest import Board, sign_in

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def press(page: Page, button: Locator) -> None:
    """Move to the middle of `button` and press the mouse button there."""
    await expect(button).to_be_visible()
    box = await button.bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    await page.mouse.down()


async def show_deleted(page: Page, board: Board) -> Locator:
    await board.registry.identities.delete("EMP-12345")
    await board.registry.identity_merges.merge("VIS-9", "EMP-777", by="operator")
    await sign_in(page)
    await page.get_by_role("button", name="Deleted", exact=True).click()
    rows = page.locator("#identities li")
    await expect(rows).to_have_count(2)
    return rows


async def test_a_click_counts_although_the_list_changes_under_it(page: Page, board: Board) -> None:
    """The first action ends, and removes a row, between press and release."""
    rows = await show_deleted(page, board)
    undone = asyncio.Event()

    async def hold(route: Route) -> None:
        await undone.wait()
        await route.continue_()

    await page.route("**/unmerge", hold)
    await page.get_by_role("button", name="Undo merge VIS-9").click()
    async with page.expect_response("**/identities?limit=20&deleted=only") as refreshed:
        await press(page, page.get_by_role("button", name="Restore EMP-12345"))
        undone.set()
    await (await refreshed.value).finished()
    await expect(page.locator("#notice")).to_contain_text("VIS-9 is back")
    await page.mouse.up()
    await expect(page.locator("#notice")).to_contain_text("EMP-12345 is back")
    await expect(rows).to_have_text(["No deleted identities."])


async def test_a_key_press_counts_although_the_list_changes_under_it(page: Page, board: Board) -> None:
    """A confirmation changes the row while Space is down on its button."""
    rows = await show_deleted(page, board)
    await page.get_by_role("button", name="Restore EMP-12345").focus()
    await page.keyboard.down("Space")
    await board.applied("cam-001", 5)
    await expect(rows.first).to_contain_text("1 of 2 cameras have confirmed")
    await page.keyboard.up("Space")
    await expect(page.locator("#notice")).to_contain_text("EMP-12345 is back")


async def test_results_of_actions_at_the_same_time_are_all_shown(page: Page, board: Board) -> None:
    """The first action ends after the second; the next action begins a new notice."""
    await show_deleted(page, board)
    restored = asyncio.Event()

    async def hold(route: Route) -> None:
        await restored.wait()
        await route.continue_()

    await page.route("**/unmerge", hold)
    await page.get_by_role("button", name="Undo merge VIS-9").click()
    await page.get_by_role("button", name="Restore EMP-12345").click()
    notice = page.locator("#notice")
    await expect(notice).to_have_text("EMP-12345 is back.")
    restored.set()
    await expect(notice.locator("span")).to_have_text(["EMP-12345 is back.", "VIS-9 is back."])
    await expect(page.locator("#identities li")).to_have_text(["No deleted identities."])
    await page.get_by_role("button", name="Current", exact=True).click()
    await page.get_by_role("button", name="Delete VIS-9").click()
    await page.get_by_role("button", name="Yes, delete VIS-9").click()
    await expect(notice).to_have_text("VIS-9 is deleted.")
