"""Image indicators are found; ordinary names, ids and vectors pass."""

import base64
import hashlib
import time

import pytest

from dashboard_api.http.image_indicators import classify_name, classify_text, find_image_indicator, is_image

RANDOM = hashlib.sha512(b"a").digest() + hashlib.sha512(b"b").digest()
LONG_BASE64 = base64.b64encode(RANDOM).decode()


@pytest.mark.parametrize(
    "name",
    [
        "image", "photo", "thumbnail", "url", "path", "file",
        "images", "Photo", "PHOTO", "photo_url", "photoUrl", "photoURL", "imagePath", "image-data",
        "file_name", "filename", "filepath", "thumbnail_data", "thumbnail.b64", "photos2",
        "source_image_path", "img",
        "profilePicture", "imgbase64", "file_url", "\uff50\uff48\uff4f\uff54\uff4f",
    ],
)  # fmt: skip
def test_a_field_for_images_is_found_by_its_name(name: str) -> None:
    """The noun counts alone, in the plural, and inside a compound in any notation."""
    assert classify_name(name) == "name"


@pytest.mark.parametrize(
    "name",
    [
        "external_id", "name", "profile", "pathology", "imagination", "photon_count", "curl", "confidence",
        "embedding", "user.profile_id", "telephoto",
    ],
)  # fmt: skip
def test_other_field_names_pass(name: str) -> None:
    """A word that merely contains one of the six nouns is no indicator."""
    assert classify_name(name) is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("data:image/png;base64,iVBORw0KGgo=", "data-uri"),
        ("see DATA:image/jpeg;base64,/9j/4AAQ", "data-uri"),
        ("data:;base64,AAAA", "data-uri"),
        ("data:,x", "data-uri"),
        ("http://alfred:8082/api/photos/1/file", "url"),
        ("HTTPS://alfred", "url"),
        ("s3://bucket/key", "url"),
        ("file:/etc/passwd", "url"),
        ("/srv/photos/anna.JPG", "image-file"),
        ("C:\\photos\\anna.jpeg", "image-file"),
        ("IMG_0042.heic (2)", "image-file"),
        (LONG_BASE64, "base64"),
        ("Anna " + LONG_BASE64[:70] + " Schmidt", "base64"),
        (base64.urlsafe_b64encode(RANDOM).decode(), "base64"),
        ("A" * 200, "base64"),
        ("/9j/" + "A" * 40, "base64"),
        ("iVBORw0KGgo" + "A" * 40, "base64"),
    ],
)
def test_an_image_or_its_address_is_found_in_a_text(text: str, kind: str) -> None:
    """Data URIs, URLs, names of image files and long base64 are indicators."""
    assert classify_text(text) == kind


@pytest.mark.parametrize(
    "text",
    [
        "John Smith", "Dr. Anna-Maria von und zu Hohenstein-Langenfels (Data: Science)", "42", "a/b/c+d#e",
        "urn:uuid:123e4567-e89b-12d3-a456-426614174000", "hr/berlin/employees/000042",
        "anna@example.org", "Jpeg Jones", hashlib.sha256(b"x").hexdigest(), hashlib.sha512(b"x").hexdigest(),
        "\u674e\u5c0f\u9f99",
        "Taumatawhakatangihangakoauauotamateaturipukakapikimaungahoronukupokai",
    ],
)  # fmt: skip
def test_names_and_ids_pass(text: str) -> None:
    """Slashes, hashes in hex and long names are no indicators."""
    assert classify_text(text) is None


def test_an_indicator_is_found_at_any_depth_and_reported_by_its_path() -> None:
    """Neither the value of the field nor an unsafe field name is quoted."""
    found = find_image_indicator(
        {"results": [{"faces": [{"embedding": [0.1], "meta": {"Photo-URL": "secret"}}]}]}
    )
    assert found is not None
    assert (found.at, found.kind) == ("results.0.faces.0.meta.Photo-URL", "name")
    assert "secret" not in found.problem().detail
    odd = find_image_indicator({"a": [{"data:image/png;base64,AAAA": 1}]})
    assert odd is not None
    assert odd.at == "a.0.(a name that is not shown)"


def test_base64_vectors_pass_unless_they_begin_like_an_image() -> None:
    """Long base64 is expected in the field `vector` alone."""
    assert find_image_indicator({"faces": [{"vector": LONG_BASE64}]}) is None
    assert find_image_indicator({"faces": [{"vector": "/9j/" + LONG_BASE64}]}) is not None
    assert is_image(b"\xff\xd8\xff\xe0")
    assert not is_image(b'{"source_system": "alfred"}')


@pytest.mark.parametrize("text", ["data:" + "a" * 10**6, "a" * 10**6, "." * 10**6, "data:x;" * 10**5])
def test_a_text_of_any_length_is_classified_quickly(text: str) -> None:
    """No pattern backtracks on a text that was crafted for it."""
    started = time.perf_counter()
    classify_text(text)
    classify_name(text)
    assert time.perf_counter() - started < 1.0
