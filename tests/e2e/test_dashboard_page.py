"""The dashboard page in a real browser: what an operator sees and does."""

import base64

import cv2
from playwright.async_api import Page, expect
from skimage import data as samples

from broker_bridge.registry.devices.reports import DeviceReport
from broker_bridge.registry.identities.model import EnrollIdentity, ExternalKey

from .conftest import EVIL, KEY, Board, now, picture, sign_in


def photo(size: int = 96) -> str:
    face = cv2.resize(samples.astronaut()[60:260, 120:320, ::-1], (size, size))
    return base64.b64encode(cv2.imencode(".jpg", face)[1].tobytes()).decode()


async def test_a_wrong_key_is_told_and_the_right_one_is_kept_for_the_tab(page: Page) -> None:
    """The message stands where the key was typed; a reload does not ask again, signing out does."""
    await picture(page, "login")
    await sign_in(page, "wrong")
    await expect(page.get_by_role("alert")).to_contain_text("not known here")
    await sign_in(page)
    await expect(page.get_by_role("heading", name="Cameras")).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("heading", name="Cameras")).to_be_visible()
    assert KEY not in page.url
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("API key")).to_be_visible()
    assert await page.evaluate("Object.keys(sessionStorage).length + Object.keys(localStorage).length") == 0


async def test_cameras_people_and_events_are_shown_and_events_arrive_live(page: Page, board: Board) -> None:
    """Names that look like markup stay text; a picture is loaded with the key."""
    await board.recognised(1, "EMP-12345", photo())
    await sign_in(page)
    cameras, people, events = page.locator("#devices"), page.locator("#people"), page.locator("#events")
    await expect(cameras.locator("li").first).to_contain_text("up to date")
    await expect(cameras.locator("li").last).to_contain_text("at 2 of 3")
    await expect(people).to_contain_text("Ana Petrova")
    await expect(people).to_contain_text(EVIL)
    await expect(events.locator("li")).to_have_count(1)
    await expect(page.get_by_text("live", exact=True)).to_be_visible()
    await board.recognised(2, None)
    await board.recognised(3, "EMP-777", photo(64))
    await expect(events.locator("li")).to_have_count(3)
    await expect(events.locator("li").nth(1)).to_contain_text("unknown person")
    await expect(events.get_by_role("img", name="EMP-12345 at cam-001")).to_be_visible()
    await expect(events.locator("img")).to_have_count(2)
    widths = await events.locator("img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert sorted(widths) == [64, 96]
    assert await page.title() == "WFM Fleet"
    await picture(page, "board-light")
    await page.emulate_media(color_scheme="dark")
    await picture(page, "board-dark")


async def test_a_degraded_camera_says_what_is_wrong_with_it(page: Page, board: Board) -> None:
    """A sentence for each problem, and the mark is gone once the camera says that all is well."""
    sentence = "the model file for face:gabor-512 is another one than the registry has on record"

    async def beats(state: str, *problems: str) -> None:
        said = {"state": state, "problems": [{"code": "model-differs", "detail": one} for one in problems]}
        await board.registry.devices.record_reports(
            [DeviceReport.latest("cam-002", "heartbeat", said, now())]
        )

    await beats("degraded", sentence, EVIL)
    await sign_in(page)
    first, last = page.locator("#devices li").first, page.locator("#devices li").last
    for text in ("degraded", sentence, EVIL):
        await expect(last).to_contain_text(text)
    await expect(first).not_to_contain_text("degraded")
    await picture(page, "degraded")
    await beats("ok")
    await expect(last).not_to_contain_text("degraded")


async def test_a_camera_without_a_picture_is_marked(page: Page, board: Board) -> None:
    """It is online and in sync, and sees nobody."""

    async def beats(camera: str) -> None:
        await board.registry.devices.record_reports(
            [DeviceReport.latest("cam-002", "heartbeat", {"camera": camera}, now())]
        )

    await beats("reopening")
    await sign_in(page)
    first, last = page.locator("#devices li").first, page.locator("#devices li").last
    await expect(last).to_contain_text("no picture")
    await expect(first).not_to_contain_text("no picture")
    await beats("ok")
    await expect(last).not_to_contain_text("no picture")
    await beats("ended")
    await expect(last).to_contain_text("video ended")


async def test_deleting_somebody_shows_each_confirmation_as_it_comes(page: Page, board: Board) -> None:
    """Asked once more first; then 0, 1 and 2 of 2 cameras without a reload."""
    await sign_in(page)
    row = page.locator("#people li", has_text="EMP-12345")
    await row.get_by_role("button", name="Delete EMP-12345").click()
    await page.get_by_role("button", name="Keep").click()
    await row.get_by_role("button", name="Delete EMP-12345").click()
    await picture(page, "delete-asked")
    await page.get_by_role("button", name="Yes, delete").click()
    await expect(row).to_contain_text("0 of 2 cameras have confirmed")
    await board.applied("cam-001", 4)
    await expect(row).to_contain_text("1 of 2 cameras have confirmed")
    await expect(row).to_contain_text("waiting for cam-002")
    await board.applied("cam-002", 4)
    await expect(row).to_contain_text("2 of 2 cameras have confirmed")
    assert (await board.registry.identities.get("EMP-12345")).deleted


async def test_who_is_deleted_can_be_shown_and_restored(page: Page, board: Board) -> None:
    """By an operator, who is not offered to erase; a merged person says into whom, and can be parted."""
    people = board.registry.identities
    await people.delete("EMP-12345")
    await board.registry.identity_merges.merge("VIS-9", "EMP-777", by="operator")
    await sign_in(page)
    await page.get_by_role("button", name="Deleted", exact=True).click()
    rows = page.locator("#people li")
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text("0 of 2 cameras have confirmed")
    await expect(rows.first).to_contain_text("waiting for cam-001, cam-002")
    await expect(rows.last).to_contain_text("merged into EMP-777")
    await expect(page.get_by_role("button", name="Erase")).to_have_count(0)
    await picture(page, "deleted")
    await page.get_by_role("button", name="Undo merge VIS-9").click()
    await page.get_by_role("button", name="Restore EMP-12345").click()
    await expect(page.locator("#notice")).to_contain_text("EMP-12345 is back")
    # A list is waited for while there are more rows.
    await expect(rows).to_have_text(["Nobody is deleted."])
    await page.get_by_role("button", name="Current", exact=True).click()
    await expect(rows).to_have_count(3)
    assert not (await people.get("VIS-9")).deleted


async def test_an_admin_erases_and_gets_the_receipt(page: Page, board: Board) -> None:
    """Asked once more first; the cameras' confirmations come in by themselves, and events lose the name."""
    await board.registry.api_keys.create("admin", "admin", "key-of-an-admin")
    await board.recognised(1, "EMP-12345")
    await board.registry.identities.delete("EMP-12345")
    await sign_in(page, "key-of-an-admin")
    await expect(page.locator("#events li")).to_contain_text("EMP-12345")
    await page.get_by_role("button", name="Deleted", exact=True).click()
    row = page.locator("#people li")
    await page.get_by_role("button", name="Erase EMP-12345").click()
    await page.get_by_role("button", name="Keep EMP-12345").click()
    await page.get_by_role("button", name="Erase EMP-12345").click()
    await picture(page, "erase-asked")
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


async def test_what_there_is_no_consent_for_is_told(page: Page, board: Board) -> None:
    """And who came from another system, or as a visitor."""
    key = ExternalKey("alfred", "42")
    order = EnrollIdentity("EXT-1", kind="visitor", consent={"face": False}, external=key, flag="red")
    await board.registry.identities.enroll(order)
    await sign_in(page)
    row = page.locator("#people li", has_text="EXT-1")
    for text in ("no consent: face", "from alfred", "visitor", "red"):
        await expect(row).to_contain_text(text)
    await picture(page, "consent")


async def test_somebody_is_enrolled_by_photo(page: Page, board: Board) -> None:
    """Id, name and photo, and the person is in the list; a wrong id is told."""
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
    await expect(page.locator("#people")).to_contain_text("Sample Persön Ω")
    held = await board.registry.identities.templates_of(["EMP-42"])
    assert [template.source for template in held["EMP-42"]] == ["photo"]


async def test_on_a_phone_it_is_one_column_without_sideways_scrolling(page: Page, board: Board) -> None:
    """360 pixels wide, nothing sticks out."""
    await board.recognised(1, "EMP-777", photo())
    await page.set_viewport_size({"width": 360, "height": 740})
    await sign_in(page)
    await expect(page.locator("#events li")).to_have_count(1)
    await expect(page.locator("#people")).to_contain_text("Ana Petrova")
    await picture(page, "phone")
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    tops = await page.locator("section").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().left)"
    )
    assert len(set(tops)) == 1


async def test_what_is_wrong_with_a_camera_can_be_read_on_a_phone(page: Page, board: Board) -> None:
    """Its sentence has the width of the screen, not of a word."""
    sentence = "the model file for face:gabor-512 is another one than the registry has on record"
    said = {"state": "degraded", "problems": [{"code": "model-differs", "detail": sentence}]}
    await board.registry.devices.record_reports([DeviceReport.latest("cam-002", "heartbeat", said, now())])
    await page.set_viewport_size({"width": 360, "height": 740})
    await sign_in(page)
    problem = page.get_by_text(sentence)
    await expect(problem).to_be_visible()
    await picture(page, "phone-degraded")
    assert (await problem.bounding_box() or {"width": 0})["width"] > 280


async def test_the_documentation_page_shows_the_paths(page: Page, board: Board) -> None:
    """Swagger UI from our own files, under the page's policy."""
    await page.goto(f"{board.url}/docs")
    await expect(page.get_by_text("/api/v1/identities/{user_id}/photos")).to_be_visible()
    await picture(page, "docs")
