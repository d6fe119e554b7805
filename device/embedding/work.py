"""Process one job group by group, and keep its lease alive."""

import asyncio
from collections.abc import Sequence

from .backend import Backend, ClaimedJob, EmbeddedFace, JobProgress
from .catalog import PHOTO_UNAVAILABLE, Catalog
from .errors import JobFailedError
from .photos import PhotoEntry, PhotoReader
from .progress import JobTally, Reporter

PERSON_REFUSED = "person-refused"


class JobWork:
    """Process `job`.

    Progress is reported after the vectors are in the registry, so a crash repeats at most one group; the
    backend skips vectors that it has already.
    """

    def __init__(
        self,
        job: ClaimedJob,
        backend: Backend,
        catalog: Catalog,
        reader: PhotoReader,
        reporter: Reporter,
        *,
        group_photos: int,
        lease_seconds: float,
    ) -> None:
        self.tally = JobTally()
        self._job = job
        self._backend = backend
        self._catalog = catalog
        self._reader = reader
        self._reporter = reporter
        self._group_photos = group_photos
        self._lease_seconds = lease_seconds
        self._settled = JobProgress(job.position, job.total, job.counts)
        self._accepted = 0
        self._refusal: str | None = None

    async def process_job(self) -> None:
        """Process the job to its end.

        Raises JobFailedError, JobLeaseLostError, ServiceUnavailableError or AccessRefusedError.
        """
        work = asyncio.ensure_future(self._process_groups())
        lease = asyncio.ensure_future(self._keep_lease())
        try:
            await asyncio.wait({work, lease}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, lease):
                task.cancel()
            await asyncio.gather(work, lease, return_exceptions=True)
            self._reporter.end()
        # The lease first: its loss is the reason for the cancelled work.
        for task in (lease, work):
            if not task.cancelled():
                task.result()

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            await self._backend.extend(self._job, lambda: self._settled)

    async def _process_groups(self) -> None:
        photos = await self._photos()
        earlier = self._job.counts
        if self._job.total not in {None, len(photos)}:
            # A batch that has changed starts again at its first photo.
            self._settled, earlier = JobProgress(0, None, {}), {}
        position = self._settled.position
        self._reporter.begin(self._job.job_id, position, len(photos))
        while position < len(photos):
            group = photos[position : position + self._group_photos]
            await self._process_group(group)
            position += len(group)
            # The new length of a changed batch is reported only past the old position: else another
            # worker would take the old position for one in the new list.
            total = len(photos) if position >= self._job.position else None
            self._settled = JobProgress(position, total, self.tally.counts(earlier))
            await self._backend.extend(self._job, lambda: self._settled)
            self._reporter.stored(position, len(photos), self.tally)
        if self._refusal and not self._accepted and not self._job.position:
            raise JobFailedError(f"the backend accepted no identity: {self._refusal}")
        await self._backend.complete(self._job, self.tally.counts(earlier))

    async def _photos(self) -> Sequence[PhotoEntry]:
        config = self._job.config
        if config.photo_ids is not None:
            return config.photo_ids
        if config.batch_id is None:
            raise JobFailedError("the job names neither photo_ids nor a batch_id")
        return await self._catalog.list_batch(config.batch_id)

    async def _process_group(self, group: Sequence[PhotoEntry]) -> None:
        faces: list[EmbeddedFace] = []
        unavailable = 0
        async for result in self._reader.read_faces(group):
            self.tally.photos += 1
            if isinstance(result, EmbeddedFace):
                faces.append(result)
                self.tally.faces += 1
            else:
                unavailable += result == PHOTO_UNAVAILABLE
                self.tally.skip(result)
            self._reporter.photo_processed(self.tally)
        if unavailable == len(group):
            raise JobFailedError("the catalog failed over every photo of a group", retry=True)
        if faces:
            stored = await self._backend.store(self._job.config.source_system, faces)
            self.tally.embeddings_stored += stored.embeddings
            self._accepted += stored.identities
            if stored.refused:
                self.tally.skip(PERSON_REFUSED, stored.refused)
                self._refusal = stored.refusal
