"""From job to job, for as long as there are any or for ever."""

import logging
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from .backend import Backend, ClaimedJob
from .endurance import Sleep
from .errors import AwayError, JobFailedError, JobLeaseLostError, RequestRefusedError
from .progress import JobTally
from .work import JobWork

_log = logging.getLogger(__name__)


@dataclass
class RunSummary:
    """What a run did. A job that was lost or given back is somebody else's to finish."""

    jobs_done: int = 0
    jobs_failed: int = 0
    jobs_lost: int = 0
    jobs_given_back: int = 0
    tally: JobTally = field(default_factory=JobTally)

    @property
    def is_clean(self) -> bool:
        """Whether every job that was begun here was finished here."""
        return not (self.jobs_failed or self.jobs_lost or self.jobs_given_back)

    def document(self) -> dict[str, Any]:
        document = asdict(self)
        tally = document.pop("tally")
        return {**document, **tally}


class EmbedWorker:
    """Takes jobs and does them, one at a time; `begin` makes the work of a job."""

    def __init__(
        self,
        backend: Backend,
        begin: Callable[[ClaimedJob], JobWork],
        *,
        poll_seconds: float,
        sleep: Sleep,
        source: random.Random,
    ) -> None:
        self.summary = RunSummary()
        self._backend = backend
        self._begin = begin
        self._poll_seconds = poll_seconds
        self._sleep = sleep
        self._source = source

    async def run(self, *, once: bool = False) -> None:
        """Until cancelled, or with `once` until no job waits.

        Raises AccessRefusedError or ModelError, after giving the job back; RefusedError when the backend has
        no such jobs to give; AwayError where the patience with the backend has an end.
        """
        while True:
            job = await self._backend.claim()
            if job is not None:
                await self._do(job)
            elif once:
                return
            else:
                await self._sleep(self._poll_seconds * self._source.uniform(0.75, 1.25))

    async def _do(self, job: ClaimedJob) -> None:
        work = self._begin(job)
        try:
            await work.run()
        except JobLeaseLostError as error:
            self.summary.jobs_lost += 1
            _log.warning("job %s is no longer this worker's: %s", job.job_id, error)
        except JobFailedError as error:
            await self._fail(job, str(error), retry=error.retry)
        except RequestRefusedError as error:
            await self._fail(job, str(error), retry=True)
        except AwayError as error:
            await self._give_back(job, str(error))
        except BaseException as error:
            await self._give_back(job, f"the worker stopped ({type(error).__name__})")
            raise
        else:
            self.summary.jobs_done += 1
            _log.info("job %s is complete; this worker's part: %s", job.job_id, dict(work.tally.counts({})))
        finally:
            self.summary.tally.add(work.tally)

    async def _fail(self, job: ClaimedJob, reason: str, *, retry: bool) -> None:
        self.summary.jobs_failed += 1
        _log.error("job %s failed%s: %s", job.job_id, ", to be tried again" if retry else "", reason)
        try:
            await self._backend.fail(job, reason, retry=retry)
        except (JobLeaseLostError, RequestRefusedError) as error:
            _log.warning("job %s could not be failed: %s", job.job_id, error)

    async def _give_back(self, job: ClaimedJob, reason: str) -> None:
        self.summary.jobs_given_back += 1
        told = await self._backend.give_back(job, reason)
        how = "was given back" if told else "goes to another worker when its lease expires"
        _log.warning("job %s %s: %s", job.job_id, how, reason)
