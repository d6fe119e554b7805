"""The dashboard page in a real browser: sign-in, cameras, identities and events."""

import base64

import cv2
import pytest
from playwright.async_api import Page, expect
from skimage import data as samples

from broker_bridge.registry.devices.reports import DeviceReport
from broker_bridge.registry.identities.model import EnrollIdentity, ExternalKey

from .conftest import EVIL, KEY, Board, now, picture, sign_in

pytestmark = pytest.mark.asyncio(loop_scope="session")


def photo(size: int = 96) -> str:
    face = cv2.resize(samples.astronaut()[60:260, 120:320, ::-1], (size, size))
    return base64.b64encode(cv2.imencode(".jpg", face)[1].tobytes()).decode()


async def test_a_wrong_key_is_reported_and_a_valid_key_is_kept_for_the_tab(page: Page) -> None:
    """A reload keeps the session; signing out removes the key."""
    await picture(page, "login")
    await sign_in(page, "wrong")
    await expect(page.get_by_role("alert")).to_contain_text("API key is unknown")
    await sign_in(page)
    await expect(page.get_by_role("heading", name="Cameras", exact=True)).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("heading", name="Cameras", exact=True)).to_be_visible()
    assert KEY not in page.url
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("API key")).to_be_visible()
    assert await page.evaluate("Object.keys(sessionStorage).length + Object.keys(localStorage).length") == 0


async def test_cameras_identities_and_events_are_shown_and_events_arrive_live(
    page: Page, board: Board
) -> None:
    """Names that look like markup stay text; images are loaded with the key."""
    await board.recognised(1, "EMP-12345", photo(), {"score": 0.934, "method": "depth"})
    await sign_in(page)
    cameras, identities, events = (
        page.locator("#devices"),
        page.locator("#identities"),
        page.locator("#events"),
    )
    await expect(cameras.locator("li").first).to_contain_text("up to date")
    await expect(cameras.locator("li").last).to_contain_text("at 2 of 3")
    await expect(identities).to_contain_text("Ana Petrova")
    await expect(identities).to_contain_text(EVIL)
    await expect(events.locator("li")).to_have_count(1)
    await expect(events.locator("li")).to_contain_text("92 % · liveness 0.93 (depth)")
    await expect(page.get_by_text("live", exact=True)).to_be_visible()
    await board.recognised(2, None, liveness="high")
    await board.recognised(3, "EMP-777", photo(64))
    await expect(events.locator("li")).to_have_count(3)
    await expect(events.locator("li").nth(1)).to_contain_text("unknown person")
    await expect(events.locator("li").nth(1)).not_to_contain_text("liveness")
    await expect(events.get_by_role("img", name="EMP-12345 at cam-001")).to_be_visible()
    await expect(events.locator("img")).to_have_count(2)
    widths = await events.locator("img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert sorted(widths) == [64, 96]
    assert await page.title() == "WFM Fleet"
    await picture(page, "board-light")
    await page.emulate_media(color_scheme="dark")
    await picture(page, "board-dark")


async def test_the_problems_of_a_degraded_camera_are_shown(page: Page, board: Board) -> None:
    """Each problem has a sentence; the badge goes when the camera reports `ok`."""
    sentence = "the model file for face:resnet29-512 is another one than the registry has on record"

    async def send_heartbeat(state: str, *details: str) -> None:
        problems = [{"code": "model-differs", "detail": detail} for detail in details]
        heartbeat = {"state": state, "problems": problems}
        await board.registry.devices.record_reports(
            [DeviceReport.latest("cam-002", "heartbeat", heartbeat, now())]
        )

    await send_heartbeat("degraded", sentence, EVIL)
    await sign_in(page)
    first, last = page.locator("#devices li").first, page.locator("#devices li").last
    for text in ("degraded", sentence, EVIL):
        await expect(last).to_contain_text(text)
    await expect(first).not_to_contain_text("degraded")
    await picture(page, "degraded")
    await send_heartbeat("ok")
    await expect(last).not_to_contain_text("degraded")


async def test_a_camera_without_a_picture_has_a_badge(page: Page, board: Board) -> None:
    """Such a camera can be online and up to date."""

    async def send_heartbeat(camera: str) -> None:
        await board.registry.devices.record_reports(
            [DeviceReport.latest("cam-002", "heartbeat", {"camera": camera}, now())]
        )

    await send_heartbeat("reopening")
    await sign_in(page)
    first, last = page.locator("#devices li").first, page.locator("#devices li").last
    await expect(last).to_contain_text("no picture")
    await expect(first).not_to_contain_text("no picture")
    await send_heartbeat("ok")
    await expect(last).not_to_contain_text("no picture")
    await send_heartbeat("ended")
    await expect(last).to_contain_text("video ended")


async def test_a_deletion_shows_each_confirmation_as_it_arrives(page: Page, board: Board) -> None:
    """After a second question the page counts 0, 1 and 2 of 2 cameras."""
    await sign_in(page)
    row = page.locator("#identities li", has_text="EMP-12345")
    await row.get_by_role("button", name="Delete EMP-12345").click()
    await page.get_by_role("button", name="Keep").click()
    await row.get_by_role("button", name="Delete EMP-12345").click()
    await picture(page, "delete-question")
    await page.get_by_role("button", name="Yes, delete").click()
    await expect(row).to_contain_text("0 of 2 cameras have confirmed")
    await board.applied("cam-001", 4)
    await expect(row).to_contain_text("1 of 2 cameras have confirmed")
    await expect(row).to_contain_text("waiting for cam-002")
    await board.applied("cam-002", 4)
    await expect(row).to_contain_text("2 of 2 cameras have confirmed")
    assert (await board.registry.identities.get("EMP-12345")).deleted


async def test_deleted_identities_are_listed_and_restored(page: Page, board: Board) -> None:
    """An operator gets no erase button; a merge is shown with its target and undone."""
    identities = board.registry.identities
    await identities.delete("EMP-12345")
    await board.registry.identity_merges.merge("VIS-9", "EMP-777", by="operator")
    await sign_in(page)
    await page.get_by_role("button", name="Deleted", exact=True).click()
    rows = page.locator("#identities li")
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text("0 of 2 cameras have confirmed")
    await expect(rows.first).to_contain_text("waiting for cam-001, cam-002")
    await expect(rows.last).to_contain_text("merged into EMP-777")
    await expect(page.get_by_role("button", name="Erase")).to_have_count(0)
    await picture(page, "deleted")
    await page.get_by_role("button", name="Undo merge VIS-9").click()
    await page.get_by_role("button", name="Restore EMP-12345").click()
    await expect(page.locator("#notice")).to_contain_text("EMP-12345 is back")
    # `to_have_text` with a list waits until this is the only row.
    await expect(rows).to_have_text(["No deleted identities."])
    await page.get_by_role("button", name="Current", exact=True).click()
    await expect(rows).to_have_count(3)
    assert not (await identities.get("VIS-9")).deleted


async def test_an_admin_erases_an_identity_and_gets_the_receipt(page: Page, board: Board) -> None:
    """Confirmations arrive without a reload, and events get the pseudonym."""
    await board.registry.api_keys.create("admin", "admin", "key-of-an-admin")
    await board.recognised(1, "EMP-12345")
    await board.registry.identities.delete("EMP-12345")
    await sign_in(page, "key-of-an-admin")
    await expect(page.locator("#events li")).to_contain_text("EMP-12345")
    await page.get_by_role("button", name="Deleted", exact=True).click()
    row = page.locator("#identities li")
    await page.get_by_role("button", name="Erase EMP-12345").click()
    await page.get_by_role("button", name="Keep EMP-12345").click()
    await page.get_by_role("button", name="Erase EMP-12345").click()
    await picture(page, "erase-question")
    await page.get_by_role("button", name="Yes, erase for ever EMP-12345").click()
    await expect(page.locator("#notice")).to_contain_text("EMP-12345 is erased")
    (erasure,) = await board.registry.erasures.page(before=None, limit=2)
    await expect(row).to_contain_text(f"receipt {erasure.erasure_id}: 0 of 2 devices, open")
    await expect(page.get_by_role("button", name="Restore")).to_have_count(0)
    await expect(page.locator("#events li")).to_contain_text("ERASED-")
    for device_id in ("cam-001", "cam-002"):
        await board.applied(device_id, erasure.version)
    await expect(row).to_contain_text("2 of 2 cameras have confirmed")
    await expect(row).to_contain_text("2 of 2 devices")
    assert "Ana Petrova" not in await page.locator("body").inner_text()
    await picture(page, "erased")


async def test_missing_consent_source_kind_and_flag_are_shown(page: Page, board: Board) -> None:
    """A visitor from another system has a badge for each."""
    key = ExternalKey("alfred", "42")
    enrollment = EnrollIdentity("EXT-1", kind="visitor", consent={"face": False}, external=key, flag="red")
    await board.registry.identities.enroll(enrollment)
    await sign_in(page)
    row = page.locator("#identities li", has_text="EXT-1")
    for text in ("no consent: face", "from alfred", "visitor", "red"):
        await expect(row).to_contain_text(text)
    await picture(page, "consent")


async def test_an_identity_is_enrolled_by_photo(page: Page, board: Board) -> None:
    """Id, name and photo add it to the list; an invalid id is reported."""
    await sign_in(page)
    picked = {"name": "me.jpg", "mimeType": "image/jpeg", "buffer": b"\xff\xd8 a photo"}
    await page.get_by_label("Id").fill("no good/id")
    await page.get_by_label("Photo").set_input_files([picked])
    await page.get_by_role("button", name="Enroll").click()
    await expect(page.locator("#notice")).to_contain_text("user_id")
    await page.get_by_label("Id").fill("EMP-42")
    await page.get_by_label("Name").fill("Sample Persön Ω")
    await page.get_by_role("button", name="Enroll").click()
    await expect(page.locator("#notice")).to_contain_text("EMP-42 is enrolled")
    await expect(page.locator("#identities")).to_contain_text("Sample Persön Ω")
    templates = await board.registry.identities.templates_of(["EMP-42"])
    assert [template.source for template in templates["EMP-42"]] == ["photo"]


async def test_a_phone_shows_one_column_without_sideways_scrolling(page: Page, board: Board) -> None:
    """At 360 pixels nothing is wider than the screen."""
    await board.recognised(1, "EMP-777", photo())
    await page.set_viewport_size({"width": 360, "height": 740})
    await sign_in(page)
    await expect(page.locator("#events li")).to_have_count(1)
    await expect(page.locator("#identities")).to_contain_text("Ana Petrova")
    await picture(page, "phone")
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    tops = await page.locator("section").evaluate_all(
        "sections => sections.map(section => section.getBoundingClientRect().left)"
    )
    assert len(set(tops)) == 1


async def test_the_problem_of_a_camera_is_readable_on_a_phone(page: Page, board: Board) -> None:
    """The sentence has the width of the screen."""
    sentence = "the model file for face:resnet29-512 is another one than the registry has on record"
    heartbeat = {"state": "degraded", "problems": [{"code": "model-differs", "detail": sentence}]}
    await board.registry.devices.record_reports(
        [DeviceReport.latest("cam-002", "heartbeat", heartbeat, now())]
    )
    await page.set_viewport_size({"width": 360, "height": 740})
    await sign_in(page)
    problem = page.get_by_text(sentence)
    await expect(problem).to_be_visible()
    await picture(page, "phone-degraded")
    assert (await problem.bounding_box() or {"width": 0})["width"] > 280


async def test_the_documentation_page_shows_the_paths(page: Page, board: Board) -> None:
    """Swagger UI is served from this server, under the policy of the page."""
    await page.goto(f"{board.url}/docs")
    await expect(page.get_by_text("/api/v1/identities/{user_id}/photos")).to_be_visible()
    await picture(page, "docs")
