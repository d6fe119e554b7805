"""The backend's REST as the worker uses it: jobs with a lease, and vectors in. No photo has a place in it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from broker_bridge.contract.embeddings import to_array

from .endurance import Endurance
from .errors import JobLeaseLostError, RequestRefusedError, TooLargeError
from .service import HttpService, ServiceAnswer

JOB_TYPE = "face_detect_embed"
# How long the end of the program may be held up by giving a job back.
_GIVE_BACK_SECONDS = 3.0
_LONGEST_ERROR = 500
_LONGEST_WORD = 120
# A job names up to 100,000 photos.
_MOST_CLAIMED_BYTES = 16 * 1024 * 1024
_MOST_BYTES = 256 * 1024
_LEASE_LOST = frozenset({404, 409})
# What is refused otherwise is not what was sent: the backend has no such page, for one.
_ABOUT_PEOPLE = frozenset({400, 409, 413, 422})

M = TypeVar("M", bound=BaseModel)
Counts = Mapping[str, int]


class _JobAnswer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class JobConfig(_JobAnswer):
    """Which photos of which source: named one by one, or as a batch of the catalog."""

    source_system: str
    photo_ids: list[str] | None = None
    batch_id: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "JobConfig":
        if (self.photo_ids is None) == (self.batch_id is None):
            raise ValueError("a job names either photo_ids or a batch_id")
        return self


class ClaimedJob(_JobAnswer):
    """A job under this worker's lease. The first `position` photos are done, with `counts`; `total` is how
    many there were when somebody last looked."""

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
    """The vectors of the first `position` photos are in the registry, of `total` (None: not known yet)."""

    position: int
    total: int | None
    counts: Counts


@dataclass(frozen=True)
class EmbeddedFace:
    """A vector, little-endian float32[d] of unit length, and whose it is in the source system."""

    external_id: str
    name: str
    vector: bytes
    confidence: float


@dataclass(frozen=True)
class StoredVectors:
    """What became of vectors: people found or made, vectors newly stored (others were there already), and
    people who were refused, with the last sentence that says why."""

    people: int = 0
    embeddings: int = 0
    refused: int = 0
    refusal: str | None = None

    def plus(self, other: "StoredVectors") -> "StoredVectors":
        return StoredVectors(
            self.people + other.people,
            self.embeddings + other.embeddings,
            self.refused + other.refused,
            other.refusal or self.refusal,
        )


class Backend:
    """Waits through an absence of the backend. Any method may raise AccessRefusedError.

    `space` is that of all vectors: two models may have vectors of one length that do not compare.
    """

    def __init__(
        self, service: HttpService, endurance: Endurance, *, space: str, worker_id: str, lease_seconds: int
    ) -> None:
        self._service = service
        self._endurance = endurance
        self._space = space
        self._worker_id = worker_id
        self._lease_seconds = lease_seconds
        # Two extensions at once could arrive in the wrong order, and the position go back.
        self._turn = asyncio.Lock()

    async def claim(self) -> ClaimedJob | None:
        """The oldest job that waits, now leased to this worker. Raises RefusedError for a backend that does
        not have such jobs."""
        answer = await self._post(
            "/api/training/claim",
            {"worker_id": self._worker_id, "job_types": [JOB_TYPE], "lease_seconds": self._lease_seconds},
            _MOST_CLAIMED_BYTES,
        )
        return None if answer.status == 204 else _read(ClaimedJob, answer)

    async def extend(self, job: ClaimedJob, progress: Callable[[], JobProgress]) -> None:
        """Say how far the job is, which extends the lease. Raises LeaseLostError."""
        async with self._turn:
            now = progress()
            document = {"lease_token": job.lease_token, "position": now.position, "total": now.total}
            await self._settle(job, "progress", {**document, "counts": dict(now.counts)})

    async def complete(self, job: ClaimedJob, result: Counts) -> None:
        """Raises LeaseLostError."""
        async with self._turn:
            await self._settle(job, "complete", {"lease_token": job.lease_token, "result": dict(result)})

    async def fail(self, job: ClaimedJob, error: str, *, retry: bool) -> None:
        """Raises LeaseLostError."""
        document = {"lease_token": job.lease_token, "error": to_sentence(error), "retry": retry}
        await self._settle(job, "fail", document)

    async def give_back(self, job: ClaimedJob, reason: str) -> bool:
        """Let another worker have the job at once, if the backend can be told so quickly."""
        document = {"lease_token": job.lease_token, "error": to_sentence(reason), "retry": True}
        told = asyncio.ensure_future(self._service.post(_path(job, "fail"), document, _MOST_BYTES))
        try:
            await asyncio.wait({told}, timeout=_GIVE_BACK_SECONDS)
        finally:
            told.cancel()
        return told.done() and not told.cancelled() and told.exception() is None

    async def store(self, source_system: str, faces: Sequence[EmbeddedFace]) -> StoredVectors:
        """Hand in vectors, by person. A person whom the backend refuses does not hold up the others.

        Raises RefusedError when it is not about people.
        """
        people = group_by_person(faces)
        try:
            return await self._ingest(source_system, people)
        except RequestRefusedError as error:
            if error.status not in _ABOUT_PEOPLE:
                raise
        total = StoredVectors()
        for person in people:
            total = total.plus(await self._store_one(source_system, person))
        return total

    async def _store_one(self, source_system: str, person: Mapping[str, Any]) -> StoredVectors:
        try:
            return await self._ingest(source_system, [person])
        except RequestRefusedError as error:
            if error.status not in _ABOUT_PEOPLE:
                raise
            return StoredVectors(refused=1, refusal=str(error))

    async def _ingest(self, source_system: str, people: Sequence[Mapping[str, Any]]) -> StoredVectors:
        document = {"source_system": source_system, "space": self._space, "results": people}
        answer = await self._post("/api/identities/ingest-embeddings", document)
        stored = _read(_Stored, answer)
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
        self, path: str, document: Mapping[str, Any], most_bytes: int = _MOST_BYTES
    ) -> ServiceAnswer:
        try:
            return await self._endurance.until_answered(
                lambda: self._service.post(path, document, most_bytes)
            )
        except RequestRefusedError as error:
            raise RequestRefusedError(error.status, f"{error}{_explanation(error.body)}") from error
        except TooLargeError as error:
            raise RequestRefusedError(200, f"{self._service.name} answers {error}") from error


def group_by_person(faces: Sequence[EmbeddedFace]) -> list[dict[str, Any]]:
    """`results` of the seed's body: one entry a person, in the order in which they first appear, under the
    name that was told last."""
    people: dict[str, dict[str, Any]] = {}
    for face in faces:
        person = people.setdefault(face.external_id, {"external_id": face.external_id, "faces": []})
        person["name"] = face.name
        person["faces"].append({"embedding": to_array(face.vector).tolist(), "confidence": face.confidence})
    return list(people.values())


def to_sentence(text: str) -> str:
    """`text` as the backend takes an error: one line without anything in it that could be a picture."""
    words = (word[:_LONGEST_WORD] for word in text.split() if word.isprintable())
    return " ".join(words).replace("data:", "data")[:_LONGEST_ERROR]


def _path(job: ClaimedJob, act: str) -> str:
    return f"/api/training/jobs/{quote(job.job_id, safe='')}/{act}"


def _read(model: type[M], answer: ServiceAnswer) -> M:
    try:
        return model.model_validate_json(answer.body)
    except ValidationError as error:
        detail = f"its answer is not what this worker expects ({model.__name__.strip('_')})"
        raise RequestRefusedError(answer.status, detail) from error


def _explanation(body: bytes) -> str:
    """The sentence of a problem document (RFC 9457), which names fields and never their values."""
    try:
        detail = _BackendProblem.model_validate_json(body).detail
    except ValidationError:
        return ""
    return f": {detail[:_LONGEST_ERROR]}" if detail.isprintable() else ""
