"""Detected persons on the dashboard page in a real browser."""

from datetime import datetime, timedelta

import numpy as np
import pytest
from playwright.async_api import Locator, Page, expect

from broker_bridge.registry import Registry
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.model import Box, DetectedPerson, ObservedFace, VisitSegment
from broker_bridge.registry.mongo.client import Document
from broker_bridge.registry.workers import Workers

from .conftest import BRIDGE, EVIL, SPACE, Board, now, picture, sign_in

pytestmark = pytest.mark.asyncio(loop_scope="session")

TIMEOUT = timedelta(seconds=30)
HOUR = timedelta(hours=1)
LONG_NAME = 20 * "Kapitän"


def sighting(n: int, camera: str, at: datetime, height: float) -> ObservedFace:
    face = np.random.default_rng(n).standard_normal(SPACE.dimension).astype(np.float32)
    face /= np.linalg.norm(face)
    box = Box(100, 150, 100, height)
    return ObservedFace(camera, "lobby", f"t-{n}", box, SPACE.id, face, 0.8, captured_at=at, seen_at=at)


async def add_detected_person(
    registry: Registry,
    *cameras: str,
    away: timedelta = timedelta(0),
    user_id: str | None = None,
    height: float = 250,
) -> int:
    """Add a person that `cameras` saw in turn, last `away` ago; return its global id."""
    (global_id,) = await registry.tracker_store.take_ids(1)
    last_seen = now() - away
    sightings = [
        sighting(global_id, camera, last_seen - timedelta(seconds=len(cameras) - n), height + 10 * n)
        for n, camera in enumerate(cameras, start=1)
    ]
    person = DetectedPerson.create(global_id, sightings[0], user_id)
    for observed in sightings:
        person.count_sighting(observed, TIMEOUT)
    face = FaceCentroid.from_vector(SPACE.id, sightings[0].vector, 0.8)
    await registry.tracker_store.create([(person, face)])
    await registry.tracker_store.write_segments(
        [
            VisitSegment(global_id, observed.device_id, "lobby", observed.seen_at, observed.seen_at)
            for observed in sightings
        ]
    )
    return global_id


async def stored_document(board: Board, global_id: int) -> Document:
    return await board.registry.mongo.db.persons.find_one({"_id": global_id}) or {}


def row(page: Page, name: str) -> Locator:
    return page.locator("#detected > li", has=page.get_by_role("button", name=name, exact=True))


async def open_details(page: Page, name: str) -> Locator:
    await page.get_by_role("button", name=name, exact=True).click()
    details = row(page, name).locator(".details")
    await expect(details).to_be_visible()
    return details


async def test_active_persons_are_shown_and_new_ones_appear(page: Page, board: Board) -> None:
    """Rows have name, cameras and site; `All` lists persons that have left."""
    await sign_in(page)
    await expect(page.locator("#detected")).to_have_text("No person is seen right now.")
    ana = await add_detected_person(board.registry, "cam-001", "cam-002", user_id="EMP-12345")
    inactive = await add_detected_person(board.registry, "cam-002", away=HOUR)
    tracked = page.locator("#detected > li")
    await expect(tracked).to_have_count(1)
    for text in ("Ana Petrova", f"Person {ana}", "cam-001, cam-002", "lobby", "1 appearance", "enrolled"):
        await expect(tracked).to_contain_text(text)
    await expect(page.locator("#detected-summary")).to_have_text("1 person seen now")
    new_person = await add_detected_person(board.registry, "cam-001")
    await expect(page.locator("#detected .name")).to_have_text([f"Person {new_person}", "Ana Petrova"])
    await picture(page, "seen-now")
    await page.get_by_role("button", name="All", exact=True).click()
    await expect(tracked).to_have_count(3)
    await expect(tracked.last).to_contain_text(f"Person {inactive}")
    await expect(tracked.last).to_contain_text("away")
    await picture(page, "all")


async def test_a_missing_bridge_is_reported(page: Page, board: Board) -> None:
    """The summary warns that the list is not updated."""
    await Workers(board.registry.mongo).leave(BRIDGE)
    await sign_in(page)
    summary = page.locator("#detected-summary")
    await expect(summary).to_have_text("no bridge is running: the list is not updated")
    await Workers(board.registry.mongo).report(BRIDGE, {}, now() + HOUR)
    await expect(summary).to_have_text("0 people seen now")


async def test_all_persons_are_loaded_page_by_page(page: Page, board: Board) -> None:
    """Twenty at a time; at most fifty active persons are listed, others counted."""
    for _ in range(52):
        await add_detected_person(board.registry, "cam-001")
    await sign_in(page)
    await expect(page.locator("#detected > li")).to_have_count(50)
    await expect(page.get_by_text("and 2 more", exact=True)).to_be_visible()
    await page.get_by_role("button", name="All", exact=True).click()
    await expect(page.locator("#detected > li")).to_have_count(20)
    for count in (40, 52):
        await page.get_by_role("button", name="Show more seen").click()
        await expect(page.locator("#detected > li")).to_have_count(count)
    await expect(page.get_by_role("button", name="Show more seen")).to_be_hidden()


async def test_details_show_the_facts_and_the_trail_of_today(page: Page, board: Board) -> None:
    """They open and close in place."""
    await add_detected_person(board.registry, "cam-001", "cam-002", user_id="EMP-12345", height=240)
    await sign_in(page)
    details = await open_details(page, "Ana Petrova")
    facts = details.locator("dl")
    for text in ("First seen", "Last seen", "cam-001, cam-002", "255 px", "EMP-12345, recognised by face"):
        await expect(facts).to_contain_text(text)
    trail = details.locator(".trail li")
    await expect(trail).to_have_count(2)
    await expect(trail.first).to_contain_text("cam-002")
    await expect(trail.last).to_contain_text("cam-001")
    await picture(page, "details")
    await page.get_by_role("button", name="Ana Petrova", exact=True).click()
    await expect(details).to_have_count(0)


async def test_a_person_is_renamed_while_the_page_refreshes(page: Page, board: Board) -> None:
    """Typed text and focus survive refreshes; a name like markup stays text."""
    global_id = await add_detected_person(board.registry, "cam-001")
    await sign_in(page)
    await open_details(page, f"Person {global_id}")
    await page.get_by_role("button", name=f"Rename person {global_id}").click()
    field = page.get_by_label("Name (empty for none)")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("button", name=f"Rename person {global_id}")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(field).to_be_focused()
    await page.keyboard.type(EVIL[:5])
    await add_detected_person(board.registry, "cam-002")
    await expect(page.locator("#detected > li")).to_have_count(2)
    await expect(field).to_be_focused()
    await page.keyboard.type(EVIL[5:])
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name=EVIL, exact=True)).to_be_visible()
    await expect(page.get_by_role("button", name=f"Rename person {global_id}")).to_be_focused()
    await expect(page.locator("#detected img")).to_have_count(0)
    assert await page.title() == "WFM Fleet"
    await picture(page, "renamed")
    assert (await stored_document(board, global_id))["assigned_name"] == EVIL


async def test_a_person_is_linked_to_an_identity_and_unlinked(page: Page, board: Board) -> None:
    """The row gets the enrolled name; an unknown user id is rejected."""
    global_id = await add_detected_person(board.registry, "cam-001")
    await sign_in(page)
    await open_details(page, f"Person {global_id}")
    await page.get_by_role("button", name=f"Link person {global_id}").click()
    field = page.get_by_label("Enrolled as")
    await field.fill("EMP-404")
    await page.get_by_role("button", name="Link", exact=True).click()
    await expect(page.locator("#detected-notice.error")).to_contain_text("EMP-404")
    await picture(page, "link-refused")
    await field.fill("EMP-12345")
    await page.get_by_role("button", name="Link", exact=True).click()
    details = row(page, "Ana Petrova").locator(".details")
    await expect(details).to_contain_text("EMP-12345, linked by operator")
    await page.get_by_role("button", name=f"Unlink person {global_id}").click()
    await expect(row(page, f"Person {global_id}").locator(".details")).to_contain_text("not enrolled")


async def test_two_persons_are_merged_and_unmerged(page: Page, board: Board) -> None:
    """The details continue as those of the target."""
    first = await add_detected_person(board.registry, "cam-001")
    second = await add_detected_person(board.registry, "cam-002")
    await sign_in(page)
    await open_details(page, f"Person {second}")
    await page.get_by_role("button", name=f"Merge person {second}").click()
    await page.get_by_label("Is the same as person").fill(str(first))
    await page.get_by_role("button", name="Merge", exact=True).click()
    await expect(page.locator("#detected .name")).to_have_text([f"Person {first}"])
    details = row(page, f"Person {first}").locator(".details")
    await expect(details.locator("dl")).to_contain_text(f"Also seen asPerson {second}")
    await expect(details.locator("dl")).to_contain_text("cam-001, cam-002")
    await picture(page, "merged")
    await expect(page.get_by_role("button", name=f"Person {first}", exact=True)).to_be_focused()
    await page.get_by_role("button", name=f"Undo merge of {second}").click()
    await expect(page.locator("#detected > li")).to_have_count(2)
    await expect(details.locator("dl")).not_to_contain_text("Also seen as")


async def test_a_person_is_deleted_after_a_second_question(page: Page, board: Board) -> None:
    """Keep returns to the button."""
    global_id = await add_detected_person(board.registry, "cam-001")
    await sign_in(page)
    await open_details(page, f"Person {global_id}")
    await page.get_by_role("button", name=f"Delete person {global_id}", exact=True).click()
    await expect(page.get_by_role("button", name=f"Yes, delete person {global_id}")).to_be_focused()
    await page.get_by_role("button", name=f"Keep person {global_id}").click()
    await expect(page.get_by_role("button", name=f"Delete person {global_id}", exact=True)).to_be_focused()
    await page.get_by_role("button", name=f"Delete person {global_id}", exact=True).click()
    await page.get_by_role("button", name=f"Yes, delete person {global_id}").click()
    await expect(page.locator("#detected-notice")).to_have_text(f"Person {global_id} is deleted.")
    await expect(page.locator("#detected")).to_have_text("No person is seen right now.")
    await expect(page.get_by_role("button", name="Seen now")).to_be_focused()
    assert await stored_document(board, global_id) == {}


async def test_a_person_deleted_elsewhere_leaves_the_page(page: Page, board: Board) -> None:
    """Open details close."""
    global_id = await add_detected_person(board.registry, "cam-001")
    await sign_in(page)
    await open_details(page, f"Person {global_id}")
    await board.registry.mongo.db.persons.delete_one({"_id": global_id})
    await expect(page.locator("#detected")).to_have_text("No person is seen right now.")
    await expect(page.get_by_text("live", exact=True)).to_be_visible()


async def test_a_viewer_gets_no_button_that_changes_anything(page: Page, board: Board) -> None:
    """Neither in a section nor on the API's page; an operator then gets them."""
    await board.registry.api_keys.create("viewer", "viewer", "key-of-a-viewer")
    await board.registry.identities.delete("EMP-777")
    global_id = await add_detected_person(board.registry, "cam-001")
    await sign_in(page, "key-of-a-viewer")
    details = await open_details(page, f"Person {global_id}")
    await expect(details).to_contain_text("First seen")
    await expect(page.locator("#identities")).to_contain_text("EMP-12345")
    await expect(page.locator("#devices")).to_contain_text("cam-002")
    views = ["Sign out", "Seen now", "All", f"Person {global_id}", "Current", "Deleted"]
    await expect(page.locator("button:visible")).to_have_text(views)
    await expect(page.locator("input:visible")).to_have_count(0)
    await picture(page, "viewer")
    await page.get_by_role("button", name="Deleted", exact=True).click()
    await expect(page.locator("#identities")).to_contain_text("0 of 2 cameras have confirmed")
    await expect(page.locator("button:visible")).to_have_text(views)
    await page.get_by_role("link", name="API").click()
    for path, method, offered in (
        ("/api/v1/identities", "get", 1),
        ("/api/v1/identities", "post", 0),
        ("/api/v1/enrollments", "post", 0),
        ("/api/v1/audit", "get", 0),
    ):
        operation = page.locator(f".opblock-{method}", has=page.locator(f'[data-path="{path}"]'))
        await operation.locator(".opblock-summary-control").click()
        await expect(operation.locator(".opblock-body")).to_contain_text("Responses")
        await expect(operation.get_by_role("button", name="Try it out")).to_have_count(offered)
    await page.goto(board.url)
    await page.get_by_role("button", name="Sign out").click()
    await sign_in(page)
    await expect(page.get_by_role("button", name="Delete EMP-12345")).to_be_visible()
    await expect(page.get_by_role("button", name="Enroll")).to_be_visible()


async def test_details_on_a_phone_need_no_sideways_scrolling(page: Page, board: Board) -> None:
    """At 360 pixels, with a long name and a form open."""
    global_id = await add_detected_person(board.registry, "cam-001", "cam-002")
    await page.set_viewport_size({"width": 360, "height": 740})
    await sign_in(page)
    await open_details(page, f"Person {global_id}")
    await page.get_by_role("button", name=f"Rename person {global_id}").click()
    await page.get_by_label("Name (empty for none)").fill(LONG_NAME)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name=LONG_NAME)).to_be_visible()
    await picture(page, "phone-details")
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
