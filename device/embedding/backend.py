"""Call the backend's REST API: leased jobs and vectors, never photos."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from broker_bridge.contract.embeddings import to_array
from broker_bridge.contract.spaces import SpaceRecord

from .error_text import MAX_ERROR_CHARS, to_error_text
from .errors import JobLeaseLostError, RequestRefusedError, TooLargeError
from .retrier import RequestRetrier
from .service import HttpService, ServiceAnswer
from .space_check import RecordedSpace, check_space, space_path, unknown_space

JOB_TYPE = "face_detect_embed"
# The longest delay of the program's end while it releases a job.
_RELEASE_SECONDS = 3.0
# A job names up to 100,000 photos.
_MAX_JOB_BYTES = 16 * 1024 * 1024
_MAX_ANSWER_BYTES = 256 * 1024
_LEASE_LOST = frozenset({404, 409})
# These statuses concern the content of a request; others mean for example that the page does not exist.
_ITEM_STATUSES = frozenset({400, 409, 413, 422})

M = TypeVar("M", bound=BaseModel)
Counts = Mapping[str, int]


class _JobAnswer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class JobConfig(_JobAnswer):
    """The photos of a job: a list of ids, or a batch of the catalog."""

    source_system: str
    photo_ids: list[str] | None = None
    batch_id: str | None = None

    @model_validator(mode="after")
    def _check_exclusive(self) -> "JobConfig":
        if (self.photo_ids is None) == (self.batch_id is None):
            raise ValueError("a job names either photo_ids or a batch_id")
        return self


class ClaimedJob(_JobAnswer):
    """A job under this worker's lease.

    The first `position` photos are done, with `counts`; `total` is the last known number of photos.
    """

    job_id: str
    config: JobConfig
    position: int = Field(ge=0)
    total: int | None = None
    counts: dict[str, int] = Field(default_factory=dict)
    lease_token: str


class _Refusal(_JobAnswer):
    code: str
    detail: str


class _Stored(_JobAnswer):
    identities_resolved: int
    embeddings_stored: int
    errors: list[_Refusal] = Field(default_factory=list)


class _BackendProblem(_JobAnswer):
    detail: str = ""


@dataclass(frozen=True)
class JobProgress:
    """The progress of a job.

    The vectors of the first `position` photos are in the registry; `total` is None while it is unknown.
    """

    position: int
    total: int | None
    counts: Counts


@dataclass(frozen=True)
class EmbeddedFace:
    """A face vector with its identity in the source system.

    `vector` is little-endian float32[d] of unit length.
    """

    external_id: str
    name: str
    vector: bytes
    confidence: float


@dataclass(frozen=True)
class StoredVectors:
    """The result of storing vectors.

    `identities` were found or created, `embeddings` are new vectors (others existed already), `refused`
    identities were refused by the backend, the last one for the reason `refusal`.
    """

    identities: int = 0
    embeddings: int = 0
    refused: int = 0
    refusal: str | None = None

    def plus(self, other: "StoredVectors") -> "StoredVectors":
        return StoredVectors(
            self.identities + other.identities,
            self.embeddings + other.embeddings,
            self.refused + other.refused,
            other.refusal or self.refusal,
        )


class Backend:
    """Call the backend and retry while it is unavailable.

    Every method may raise AccessRefusedError.
    `record` is that of the space of all vectors: vectors of two models may have one length and not compare.
    """

    def __init__(
        self,
        service: HttpService,
        retrier: RequestRetrier,
        *,
        record: SpaceRecord,
        worker_id: str,
        lease_seconds: int,
    ) -> None:
        self._service = service
        self._retrier = retrier
        self._record = record
        self._worker_id = worker_id
        self._lease_seconds = lease_seconds
        # Two concurrent reports could arrive in the wrong order, and the position would go back.
        self._progress_lock = asyncio.Lock()

    async def check_space(self) -> None:
        """Raise SpaceRefusedError unless the worker's vectors compare with the backend's."""
        path = space_path(self._record.space)
        url = self._service.url(path)
        try:
            answer = await self._retrier.request(lambda: self._service.get(url, _MAX_ANSWER_BYTES))
        except RequestRefusedError as error:
            if error.status == 404:
                raise unknown_space(self._record.space) from error
            raise
        check_space(self._record, _parse(RecordedSpace, answer))

    async def claim(self) -> ClaimedJob | None:
        """Lease the oldest waiting job to this worker; None if there is none.

        Raises RequestRefusedError for a backend without such jobs.
        """
        answer = await self._post(
            "/api/training/claim",
            {"worker_id": self._worker_id, "job_types": [JOB_TYPE], "lease_seconds": self._lease_seconds},
            _MAX_JOB_BYTES,
        )
        return None if answer.status == 204 else _parse(ClaimedJob, answer)

    async def extend(self, job: ClaimedJob, progress: Callable[[], JobProgress]) -> None:
        """Report the progress of `job` and extend its lease; raises JobLeaseLostError."""
        async with self._progress_lock:
            current = progress()
            document = {
                "lease_token": job.lease_token,
                "position": current.position,
                "total": current.total,
                "counts": dict(current.counts),
            }
            await self._settle(job, "progress", document)

    async def complete(self, job: ClaimedJob, result: Counts) -> None:
        """Complete `job` with its `result`; raises JobLeaseLostError."""
        async with self._progress_lock:
            await self._settle(job, "complete", {"lease_token": job.lease_token, "result": dict(result)})

    async def fail(self, job: ClaimedJob, error: str, *, retry: bool) -> None:
        """Fail `job`; `retry` lets a worker try again. Raises JobLeaseLostError."""
        document = {"lease_token": job.lease_token, "error": to_error_text(error), "retry": retry}
        await self._settle(job, "fail", document)

    async def release_job(self, job: ClaimedJob, reason: str) -> bool:
        """Release `job` to other workers.

        Return whether the backend confirmed it in three seconds.
        """
        document = {"lease_token": job.lease_token, "error": to_error_text(reason), "retry": True}
        release = asyncio.ensure_future(self._service.post(_path(job, "fail"), document, _MAX_ANSWER_BYTES))
        try:
            await asyncio.wait({release}, timeout=_RELEASE_SECONDS)
        finally:
            release.cancel()
        return release.done() and not release.cancelled() and release.exception() is None

    async def store(self, source_system: str, faces: Sequence[EmbeddedFace]) -> StoredVectors:
        """Store vectors, grouped by identity.

        A refused identity does not affect the others.
        Raises RequestRefusedError when the refusal does not concern the content.
        """
        results = group_by_external_id(faces)
        try:
            return await self._ingest(source_system, results)
        except RequestRefusedError as error:
            if error.status not in _ITEM_STATUSES:
                raise
        total = StoredVectors()
        for result in results:
            total = total.plus(await self._store_result(source_system, result))
        return total

    async def _store_result(self, source_system: str, result: Mapping[str, Any]) -> StoredVectors:
        try:
            return await self._ingest(source_system, [result])
        except RequestRefusedError as error:
            if error.status not in _ITEM_STATUSES:
                raise
            return StoredVectors(refused=1, refusal=str(error))

    async def _ingest(self, source_system: str, results: Sequence[Mapping[str, Any]]) -> StoredVectors:
        document = {"source_system": source_system, "space": self._record.space, "results": results}
        answer = await self._post("/api/identities/ingest-embeddings", document)
        stored = _parse(_Stored, answer)
        refusal = f"{stored.errors[-1].code}: {stored.errors[-1].detail}" if stored.errors else None
        return StoredVectors(
            stored.identities_resolved, stored.embeddings_stored, len(stored.errors), refusal
        )

    async def _settle(self, job: ClaimedJob, act: str, document: Mapping[str, Any]) -> None:
        try:
            await self._post(_path(job, act), document)
        except RequestRefusedError as error:
            if error.status in _LEASE_LOST:
                raise JobLeaseLostError(str(error)) from error
            raise

    async def _post(
        self, path: str, document: Mapping[str, Any], max_bytes: int = _MAX_ANSWER_BYTES
    ) -> ServiceAnswer:
        try:
            return await self._retrier.request(lambda: self._service.post(path, document, max_bytes))
        except RequestRefusedError as error:
            raise RequestRefusedError(error.status, f"{error}{_explanation(error.body)}") from error
        except TooLargeError as error:
            raise RequestRefusedError(200, f"{self._service.name} answers {error}") from error


def group_by_external_id(faces: Sequence[EmbeddedFace]) -> list[dict[str, Any]]:
    """Return `results` of the seed's body, one entry per external id.

    An entry has the latest name; entries have the order of their first appearance.
    """
    results: dict[str, dict[str, Any]] = {}
    for face in faces:
        entry = results.setdefault(face.external_id, {"external_id": face.external_id, "faces": []})
        entry["name"] = face.name
        entry["faces"].append({"embedding": to_array(face.vector).tolist(), "confidence": face.confidence})
    return list(results.values())


def _path(job: ClaimedJob, act: str) -> str:
    return f"/api/training/jobs/{quote(job.job_id, safe='')}/{act}"


def _parse(model: type[M], answer: ServiceAnswer) -> M:
    try:
        return model.model_validate_json(answer.body)
    except ValidationError as error:
        detail = f"its answer does not have the expected form ({model.__name__.strip('_')})"
        raise RequestRefusedError(answer.status, detail) from error


def _explanation(body: bytes) -> str:
    """Return the sentence of a problem document (RFC 9457), without field values."""
    try:
        detail = _BackendProblem.model_validate_json(body).detail
    except ValidationError:
        return ""
    return f": {detail[:MAX_ERROR_CHARS]}" if detail.isprintable() else ""
