"""How far a job is, for whoever watches: a bar on a terminal, lines in a log."""

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
    """What has been done: of a job, or of all jobs of a run."""

    photos: int = 0
    faces: int = 0
    embeddings_stored: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    """Photos without a vector by reason, and people whom the backend refused as `person-refused`."""

    def skip(self, reason: str, times: int = 1) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + times

    def add(self, other: "JobTally") -> None:
        self.photos += other.photos
        self.faces += other.faces
        self.embeddings_stored += other.embeddings_stored
        for reason, times in other.skipped.items():
            self.skip(reason, times)

    def counts(self, earlier: Mapping[str, int]) -> Mapping[str, int]:
        """One flat table, as the backend keeps it, on top of what it had from `earlier` attempts."""
        done = {"photos": self.photos, "faces": self.faces, "embeddings_stored": self.embeddings_stored}
        total = Counter(earlier)
        total.update({**done, **self.skipped})
        return dict(total)


class Reporter(Protocol):
    """Is told of a job from its start to its end."""

    def begin(self, job_id: str, position: int, total: int) -> None: ...

    def looked(self, tally: JobTally) -> None:
        """One more photo was looked at."""

    def stored(self, position: int, total: int, tally: JobTally) -> None:
        """A group is in the registry."""

    def end(self) -> None: ...


class BarReporter:
    """A bar with photos done, faces and skipped ones, which goes away with its job."""

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
            TextColumn("{task.fields[said]}"),
        )
        self._progress = Progress(
            TextColumn("{task.description}"), *columns, console=self._console, transient=True
        )
        self._task = self._progress.add_task(job_id[:16], total=total, completed=position, said="")
        self._progress.start()

    def looked(self, tally: JobTally) -> None:
        if self._progress is not None:
            said = f"{tally.faces} faces, {sum(tally.skipped.values())} skipped"
            self._progress.update(self._task, advance=1, said=said)

    def stored(self, position: int, total: int, tally: JobTally) -> None:
        """The bar is there already."""

    def end(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class LogReporter:
    """A line when a job begins and one for each group."""

    def __init__(self) -> None:
        self._job_id = ""

    def begin(self, job_id: str, position: int, total: int) -> None:
        self._job_id = job_id
        _log.info("job %s: begins at photo %d of %d", job_id, position, total)

    def looked(self, tally: JobTally) -> None:
        """Too little for a line."""

    def stored(self, position: int, total: int, tally: JobTally) -> None:
        skipped = sum(tally.skipped.values())
        _log.info(
            "job %s: %d of %d photos, %d faces, %d skipped",
            self._job_id, position, total, tally.faces, skipped,
        )  # fmt: skip

    def end(self) -> None:
        self._job_id = ""
