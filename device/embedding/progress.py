"""Report the progress of a job: a bar on a terminal, lines in a log."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_log = logging.getLogger(__name__)


@dataclass
class JobTally:
    """The counts of a job, or of all jobs of a run."""

    photos: int = 0
    faces: int = 0
    embeddings_stored: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    """Photos without a vector by reason; `person-refused` counts identities that the backend refused."""

    def skip(self, reason: str, times: int = 1) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + times

    def add(self, other: "JobTally") -> None:
        self.photos += other.photos
        self.faces += other.faces
        self.embeddings_stored += other.embeddings_stored
        for reason, times in other.skipped.items():
            self.skip(reason, times)

    def counts(self, earlier: Mapping[str, int]) -> Mapping[str, int]:
        """Return one flat table, added to the counts of `earlier` attempts."""
        done = {"photos": self.photos, "faces": self.faces, "embeddings_stored": self.embeddings_stored}
        total = Counter(earlier)
        total.update({**done, **self.skipped})
        return dict(total)


class Reporter(Protocol):
    """Receive the progress of a job from its start to its end."""

    def begin(self, job_id: str, position: int, total: int) -> None: ...

    def photo_processed(self, tally: JobTally) -> None:
        """Report one more processed photo."""

    def stored(self, position: int, total: int, tally: JobTally) -> None:
        """Report a group that is in the registry."""

    def end(self) -> None: ...


class BarReporter:
    """Show a bar with photos done, faces and skipped photos, until the end of the job."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def begin(self, job_id: str, position: int, total: int) -> None:
        self.end()
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[details]}"),
        )
        self._progress = Progress(
            TextColumn("{task.description}"), *columns, console=self._console, transient=True
        )
        self._task = self._progress.add_task(job_id[:16], total=total, completed=position, details="")
        self._progress.start()

    def photo_processed(self, tally: JobTally) -> None:
        if self._progress is not None:
            details = f"{tally.faces} faces, {sum(tally.skipped.values())} skipped"
            self._progress.update(self._task, advance=1, details=details)

    def stored(self, position: int, total: int, tally: JobTally) -> None:
        """Do nothing: `photo_processed` moves the bar."""

    def end(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class LogReporter:
    """Log a line at the start of a job and one for each group."""

    def __init__(self) -> None:
        self._job_id = ""

    def begin(self, job_id: str, position: int, total: int) -> None:
        self._job_id = job_id
        _log.info("job started job_id=%s position=%d total=%d", job_id, position, total)

    def photo_processed(self, tally: JobTally) -> None:
        """Do nothing: a line per photo is too much for a log."""

    def stored(self, position: int, total: int, tally: JobTally) -> None:
        skipped = sum(tally.skipped.values())
        _log.info(
            "job progress job_id=%s position=%d total=%d faces=%d skipped=%d",
            self._job_id, position, total, tally.faces, skipped,
        )  # fmt: skip

    def end(self) -> None:
        self._job_id = ""
