"""The move between two spaces on the dashboard page in a real browser."""

import json
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from broker_bridge.contract.embeddings import EmbeddingSpace, normalise
from broker_bridge.registry.identities.model import EnrollIdentity, ExternalKey, Template
from tests.space_limits import ensure_with_limits

from .conftest import SPACE, Board, picture, sign_in

pytestmark = pytest.mark.asyncio(loop_scope="session")

OLD = "face:old-8"


async def test_the_page_shows_how_far_a_move_is(page: Page, board: Board, tmp_path: Path) -> None:
    """A viewer sees steps and sites, and saves the list of missing people."""
    registry = board.registry
    await ensure_with_limits(registry, EmbeddingSpace(OLD, 8))
    key = ExternalKey("alfred_catalog", "42")
    for user_id in ("EMP-12345", "EMP-500"):
        template = Template(OLD, normalise([1.0] * 8, 8))
        external = key if user_id == "EMP-500" else None
        await registry.identities.enroll(EnrollIdentity(user_id, (template,), external=external))
    await registry.api_keys.create("viewer", "viewer", "key-of-a-viewer")
    await sign_in(page, "key-of-a-viewer")
    await page.get_by_label("Move from").select_option(OLD)
    await expect(page.locator("#migration select[name=new]")).to_have_value(SPACE.id)
    await page.get_by_role("button", name="Check the move").click()
    steps = page.get_by_role("list", name="Steps").get_by_role("listitem")
    await expect(steps.locator(".badge")).to_have_text(["done", "done", "next", "done", "open"])
    await expect(steps.nth(2)).to_contain_text(f"1 person of 2 in {OLD} is not in {SPACE.id} yet")
    lobby = page.get_by_role("list", name="Sites").get_by_role("listitem").filter(has_text="lobby")
    await expect(lobby).to_contain_text("3 of 4 people")
    await expect(lobby.locator(".badge")).to_have_text("not yet")
    await picture(page, "migration")
    async with page.expect_download() as saving:
        await page.get_by_role("button", name="Save the list of 1 missing person").click()
    file = tmp_path / "missing.jsonl"
    await (await saving.value).save_as(file)
    source = {"source_system": "alfred_catalog", "external_id": "42"}
    assert json.loads(file.read_text()) == {"user_id": "EMP-500", "kind": "employee", "sources": [source]}
    vector = normalise([float(n + 1) for n in range(SPACE.dimension)], SPACE.dimension)
    await registry.identities.enroll(EnrollIdentity("EMP-500", (Template(SPACE.id, vector),)))
    await page.get_by_role("button", name="Check the move").click()
    await expect(steps.locator(".badge")).to_have_text(["done", "done", "done", "done", "next"])
    await expect(lobby.locator(".badge")).to_have_text("may change")
