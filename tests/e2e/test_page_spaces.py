"""The embedding spaces on the page, in a real browser."""

import re

import pytest
from playwright.async_api import Dialog, Page, expect

from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.spaces import SpaceRecord
from broker_bridge.registry.identities.model import EnrollIdentity, Template

from .conftest import SPACE, Board, picture, sign_in

ADMIN_KEY = "key-of-an-admin"

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_space_without_limits_is_told_and_an_admin_removes_it(page: Page, board: Board) -> None:
    """It has its counts and, once nothing uses it, a button that asks first."""
    old = SpaceRecord(space="face:old-4", dimension=4)
    await board.registry.spaces.put(old, by="admin")
    template = Template(old.space, normalise([1.0, 2.0, 3.0, 4.0], 4))
    await board.registry.identities.enroll(EnrollIdentity("EMP-777", (template,)))
    await board.registry.api_keys.create("boss", "admin", ADMIN_KEY)
    await sign_in(page, ADMIN_KEY)
    rows = page.locator("#spaces li")
    await expect(rows).to_have_count(2)
    gone = rows.filter(has_text=old.space)
    await expect(gone).to_contain_text("1 person · 1 template · 0 cameras")
    await expect(gone).to_contain_text("no limits: nothing is matched")
    kept = rows.filter(has_text=SPACE.id)
    await expect(kept).to_contain_text(re.compile("3 people · 3 templates.*shipped with the model"))
    await expect(kept.get_by_role("button")).to_have_count(0)
    await picture(page, "spaces")
    asked: list[str] = []

    async def accept(dialog: Dialog) -> None:
        asked.append(dialog.message)
        await dialog.accept()

    page.on("dialog", accept)
    await gone.get_by_role("button", name="Remove space").click()
    await expect(rows).to_have_count(1)
    assert asked == ["Remove face:old-4 with 1 template of 1 person? They cannot be brought back."]
    assert await board.registry.mongo.db.templates.find_one({"space": old.space}) is None
