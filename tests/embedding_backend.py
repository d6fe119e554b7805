"""Play the backend of seed 001: a queue with leases, and vectors stored once."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.recording_server import RecordingServer, Reply, Request


@dataclass
class QueuedJob:
    job_id: str
    config: dict[str, Any]
    position: int = 0
    total: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    attempt: int = 0
    status: str = "queued"
    token: str = ""
    result: dict[str, int] = field(default_factory=dict)
    error: str = ""
    retry: bool = False


class EmbeddingBackend(RecordingServer):
    """A backend with `jobs` in order and `stored` vectors.

    `spaces` are its records of spaces. `stored` is keyed by (source_system, external_id). A body with one of
    `refused_ids` gets 422. `before` is called with each request; its result is the answer, unless it is None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[QueuedJob] = []
        self.stored: dict[tuple[str, str], list[tuple[float, ...]]] = {}
        self.names: dict[tuple[str, str], str] = {}
        self.refused_ids: set[str] = set()
        self.spaces: dict[str, dict[str, Any]] = {}
        self.before: Callable[[Request], Reply | None] = lambda _: None
        self._lock = threading.Lock()

    def __enter__(self) -> "EmbeddingBackend":
        super().__enter__()
        return self

    def submit(self, **config: Any) -> QueuedJob:
        job = QueuedJob(f"job-{len(self.jobs) + 1}", {"source_system": "alfred_catalog", **config})
        self.jobs.append(job)
        return job

    def expire(self, job: QueuedJob) -> None:
        """End the lease of `job`, as after a silent worker."""
        with self._lock:
            job.status, job.token = "queued", ""

    def bodies(self, path_end: str) -> list[Any]:
        return [r.json() for r in list(self.requests) if r.path.endswith(path_end)]

    def answer(self, request: Request) -> Reply:
        early = self.before(request)
        if early is not None:
            return early
        if request.headers.get("Authorization") != "Bearer worker-key":
            return Reply.of({"detail": "this API key is not known here", "code": "key-invalid"}, 401)
        with self._lock:
            match request.path.split("/"):
                case [_, "api", "training", "claim"]:
                    return self._claim()
                case [_, "api", "training", "jobs", job_id, act]:
                    return self._settle(job_id, act, request.json())
                case [_, "api", "v1", "spaces", space] if space in self.spaces:
                    return Reply.of({"space": space, **self.spaces[space]})
                case [_, "api", "v1", "spaces", _]:
                    return Reply.of({"detail": "there is no such space", "code": "space-unknown"}, 404)
                case [_, "api", "identities", "ingest-embeddings"]:
                    return self._ingest(request.json())
        return Reply.of({"detail": "there is no such page"}, 404)

    def _claim(self) -> Reply:
        for job in self.jobs:
            if job.status == "queued":
                job.status, job.attempt = "claimed", job.attempt + 1
                job.token = f"{job.job_id}-token-{job.attempt}"
                return Reply.of(
                    {
                        "job_id": job.job_id,
                        "job_type": "face_detect_embed",
                        "config": job.config,
                        "position": job.position,
                        "total": job.total,
                        "counts": job.counts,
                        "attempt": job.attempt,
                        "lease_token": job.token,
                        "lease_expires_at": "2026-01-15T10:01:00.000Z",
                    }
                )
        return Reply(204)

    def _settle(self, job_id: str, act: str, body: dict[str, Any]) -> Reply:
        job = next(queued for queued in self.jobs if queued.job_id == job_id)
        if body["lease_token"] != job.token or job.status != "claimed":
            return Reply.of({"detail": "the lease is another worker's", "code": "lease-lost"}, 409)
        if act == "progress":
            if body["position"] >= job.position:
                job.position, job.counts = body["position"], body["counts"]
            job.total = job.total if body["total"] is None else body["total"]
        elif act == "complete":
            job.status, job.result = "done", body["result"]
        else:
            job.status, job.error, job.retry = "failed", body["error"], body["retry"]
        return Reply.of({"success": True})

    def _ingest(self, body: dict[str, Any]) -> Reply:
        if self.refused_ids & {entry["external_id"] for entry in body["results"]}:
            return Reply.of({"detail": "results.0.name: looks like a picture"}, 422)
        new = 0
        for entry in body["results"]:
            key = (body["source_system"], entry["external_id"])
            self.names[key] = entry["name"]
            kept = self.stored.setdefault(key, [])
            for face in entry["faces"]:
                vector = tuple(face["embedding"])
                if vector not in kept:
                    kept.append(vector)
                    new += 1
        resolved = len(body["results"])
        return Reply.of(
            {"success": True, "identities_resolved": resolved, "embeddings_stored": new, "errors": []}
        )
