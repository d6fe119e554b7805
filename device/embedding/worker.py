"""Process jobs one after the other."""

import logging
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from .backend import Backend, ClaimedJob
from .errors import (
    JobFailedError,
    JobLeaseLostError,
    RequestRefusedError,
    ServiceUnavailableError,
    SpaceRefusedError,
)
from .progress import JobTally
from .retrier import Sleep
from .work import JobWork

_log = logging.getLogger(__name__)


@dataclass
class RunSummary:
    """The counts of a run. Another worker finishes jobs that were lost or released."""

    jobs_done: int = 0
    jobs_failed: int = 0
    jobs_lost: int = 0
    jobs_given_back: int = 0
    tally: JobTally = field(default_factory=JobTally)

    @property
    def is_clean(self) -> bool:
        """Return whether this worker finished every job that it started."""
        return not (self.jobs_failed or self.jobs_lost or self.jobs_given_back)

    def document(self) -> dict[str, Any]:
        document = asdict(self)
        tally = document.pop("tally")
        return {**document, **tally}


class EmbedWorker:
    """Claim and process jobs, one at a time; `create_work` gives the work of a job."""

    def __init__(
        self,
        backend: Backend,
        create_work: Callable[[ClaimedJob], JobWork],
        *,
        poll_seconds: float,
        sleep: Sleep,
        source: random.Random,
    ) -> None:
        self.summary = RunSummary()
        self._backend = backend
        self._create_work = create_work
        self._poll_seconds = poll_seconds
        self._sleep = sleep
        self._source = source

    async def process_jobs(self, *, once: bool = False) -> None:
        """Process jobs until cancelled, or with `once` until no job waits.

        Raises AccessRefusedError, ModelError or SpaceRefusedError after releasing the job,
        RequestRefusedError for a backend without such jobs, and ServiceUnavailableError if the backend stays
        unavailable for too long.
        """
        await self._backend.check_space()
        while True:
            job = await self._backend.claim()
            if job is not None:
                await self._process_job(job)
            elif once:
                return
            else:
                await self._sleep(self._poll_seconds * self._source.uniform(0.75, 1.25))

    async def _process_job(self, job: ClaimedJob) -> None:
        work = self._create_work(job)
        try:
            # Anew for each job: the record may have changed since the start.
            await self._backend.check_space()
            await work.process_job()
        except JobLeaseLostError as error:
            self.summary.jobs_lost += 1
            _log.warning("job lease lost job_id=%s error=%r", job.job_id, str(error))
        except JobFailedError as error:
            await self._fail(job, str(error), retry=error.retry)
        except RequestRefusedError as error:
            await self._fail(job, str(error), retry=True)
        except ServiceUnavailableError as error:
            await self._release_job(job, str(error))
        except SpaceRefusedError as error:
            await self._release_job(job, str(error))
            raise
        except BaseException as error:
            await self._release_job(job, f"the worker stopped ({type(error).__name__})")
            raise
        else:
            self.summary.jobs_done += 1
            _log.info(
                "job complete job_id=%s photos=%d faces=%d embeddings_stored=%d skipped=%d",
                job.job_id, work.tally.photos, work.tally.faces, work.tally.embeddings_stored,
                sum(work.tally.skipped.values()),
            )  # fmt: skip
        finally:
            self.summary.tally.add(work.tally)

    async def _fail(self, job: ClaimedJob, reason: str, *, retry: bool) -> None:
        self.summary.jobs_failed += 1
        _log.error("job failed job_id=%s retry=%s error=%r", job.job_id, retry, reason)
        try:
            await self._backend.fail(job, reason, retry=retry)
        except (JobLeaseLostError, RequestRefusedError) as error:
            _log.warning("job failure not reported job_id=%s error=%r", job.job_id, str(error))

    async def _release_job(self, job: ClaimedJob, reason: str) -> None:
        self.summary.jobs_given_back += 1
        released = await self._backend.release_job(job, reason)
        if released:
            _log.warning("job released job_id=%s error=%r", job.job_id, reason)
        else:
            _log.warning("job not released; its lease has to expire job_id=%s error=%r", job.job_id, reason)
