"""Play a photo catalog as seed 001 describes Alfred's.

It lists persons and their photos, by person and by batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tests.recording_server import RecordingServer, Reply, Request


@dataclass(frozen=True)
class CatalogPhoto:
    """A photo of the catalog; `metadata` overrides the generated fields."""

    data: bytes
    person_id: Any = None
    person_name: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)


class PhotoCatalog(RecordingServer):
    """An HTTP server with `photos` and `batches`.

    `overrides` answer for a path in place of the catalog; `key` is required if it is set; `before_file` is
    called with a photo's id before its bytes are sent.
    """

    def __init__(self) -> None:
        super().__init__()
        self.photos: dict[str, CatalogPhoto] = {}
        self.batches: dict[str, list[str]] = {}
        self.overrides: dict[str, Callable[[Request], Reply]] = {}
        self.key: str | None = None
        self.before_file: Callable[[str], None] = lambda _: None

    def __enter__(self) -> "PhotoCatalog":
        super().__enter__()
        return self

    def add(
        self, photo_id: str, data: bytes, person_id: Any = 42, name: Any = "John Smith", **metadata: Any
    ) -> None:
        self.photos[photo_id] = CatalogPhoto(data, person_id, name, metadata)

    def files_sent(self) -> list[str]:
        """Return the ids of the photos whose bytes were requested, in order."""
        return [r.path.split("/")[3] for r in list(self.requests) if r.path.endswith("/file")]

    def answer(self, request: Request) -> Reply:
        if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
            return Reply.of({"error": "unknown key"}, 401)
        override = self.overrides.get(request.path)
        if override is not None:
            return override(request)
        match [unquote(part) for part in request.path.split("/")]:
            case ["", "api", "photos", photo_id] if photo_id in self.photos:
                file_url = f"{request.path}/file"
                return Reply.of({**self._listed(photo_id), "file_url": file_url, **self._more(photo_id)})
            case ["", "api", "photos", photo_id, "file"] if photo_id in self.photos:
                self.before_file(photo_id)
                return Reply(body=self.photos[photo_id].data, headers={"Content-Type": "image/jpeg"})
            case ["", "api", "batches", batch_id, "photos"] if batch_id in self.batches:
                listed = [
                    {**self._listed(listed_id), **self._more(listed_id)}
                    for listed_id in self.batches[batch_id]
                ]
                return Reply.of({"photos": listed})
        return Reply.of({"error": "not found"}, 404)

    def _listed(self, photo_id: str) -> dict[str, Any]:
        photo = self.photos[photo_id]
        return {"photo_id": photo_id, "person_id": photo.person_id, "person_name": photo.person_name}

    def _more(self, photo_id: str) -> dict[str, Any]:
        return self.photos[photo_id].metadata
