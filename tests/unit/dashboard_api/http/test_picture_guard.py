"""What smells of a picture, and what only looks a little like it."""

import base64
import hashlib
import time

import pytest

from dashboard_api.http.picture_guard import find_picture, is_image, smell_of_name, smell_of_text

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
def test_a_field_for_pictures_is_known_by_its_name(name: str) -> None:
    """Alone, in the plural, and as a word of a longer name however it is written."""
    assert smell_of_name(name) == "name"


@pytest.mark.parametrize(
    "name",
    [
        "external_id", "name", "profile", "pathology", "imagination", "photon_count", "curl", "confidence",
        "embedding", "user.profile_id", "telephoto",
    ],
)  # fmt: skip
def test_other_names_are_not_taken_for_one(name: str) -> None:
    """A word that only contains one of the six is another word."""
    assert smell_of_name(name) is None


@pytest.mark.parametrize(
    ("text", "smell"),
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
def test_a_picture_or_its_address_is_known_in_a_text(text: str, smell: str) -> None:
    """Data URIs, URLs, names of image files and long base64."""
    assert smell_of_text(text) == smell


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
def test_names_and_ids_that_people_have_pass(text: str) -> None:
    """Slashes, hashes in hex, and long names."""
    assert smell_of_text(text) is None


def test_a_picture_is_found_at_any_depth_and_named_by_its_path_alone() -> None:
    """The path says where; what the field held, or a name that is itself odd, is not repeated."""
    found = find_picture({"results": [{"faces": [{"embedding": [0.1], "meta": {"Photo-URL": "secret"}}]}]})
    assert found is not None
    assert (found.at, found.smell) == ("results.0.faces.0.meta.Photo-URL", "name")
    assert "secret" not in found.problem().detail
    odd = find_picture({"a": [{"data:image/png;base64,AAAA": 1}]})
    assert odd is not None
    assert odd.at == "a.0.(a name that is not shown)"


def test_vectors_in_base64_are_no_pictures_unless_they_begin_like_one() -> None:
    """The one place where long base64 belongs."""
    assert find_picture({"faces": [{"vector": LONG_BASE64}]}) is None
    assert find_picture({"faces": [{"vector": "/9j/" + LONG_BASE64}]}) is not None
    assert is_image(b"\xff\xd8\xff\xe0")
    assert not is_image(b'{"source_system": "alfred"}')


@pytest.mark.parametrize("text", ["data:" + "a" * 10**6, "a" * 10**6, "." * 10**6, "data:x;" * 10**5])
def test_a_text_of_any_length_is_looked_at_quickly(text: str) -> None:
    """No pattern goes back and forth over a text that was made for it."""
    started = time.perf_counter()
    smell_of_text(text)
    smell_of_name(text)
    assert time.perf_counter() - started < 1.0
