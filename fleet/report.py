"""What came of an import, for whoever watches and for whoever reads it afterwards."""

import json
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from .errors import CannotRunError
from .import_source import ImportRefusal

_SHOWN = 10


class RefusalFile:
    """One JSON object a line for each refusal, and for each warning with `refused` false.

    Readable by its owner alone: it names people.
    """

    def __init__(self, file: TextIO | None) -> None:
        self._file = file

    @classmethod
    def open(cls, path: Path | None) -> "RefusalFile":
        """Raises CannotRunError."""
        if path is None:
            return cls(None)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(path, flags, 0o600)
        except OSError as error:
            raise CannotRunError(f"--report {path}: cannot be written ({error.strerror})") from error
        return cls(os.fdopen(handle, "w", encoding="ascii"))

    def write(self, told: ImportRefusal, *, refused: bool = True) -> None:
        if self._file is not None:
            self._file.write(json.dumps({**asdict(told), "refused": refused}) + "\n")

    def __enter__(self) -> "RefusalFile":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()


class ImportReport:
    """Counts, and the refusals: all of them to `file`, the first few also to the terminal at the end."""

    def __init__(self, console: Console, file: RefusalFile) -> None:
        self._console = console
        self._file = file
        self._shown: list[ImportRefusal] = []
        self.people: Counter[str] = Counter()
        self.photos: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.look_alikes = 0

    def refuse(self, refusal: ImportRefusal) -> None:
        self.refusals[refusal.code] += 1
        self._file.write(refusal)
        if len(self._shown) < _SHOWN:
            self._shown.append(refusal)

    def warn(self, warning: ImportRefusal) -> None:
        """Somebody came in, but looks like somebody else."""
        self.look_alikes += 1
        self._file.write(warning, refused=False)

    @property
    def is_clean(self) -> bool:
        return not self.refusals

    def print(self, *, dry_run: bool) -> None:
        """The table, and why the first were refused."""
        table = Table(title="Dry run: nothing was written" if dry_run else None, title_justify="left")
        table.add_column("would be" if dry_run else "people")
        table.add_column("", justify="right")
        for result in ("created", "changed", "unchanged", "refused"):
            table.add_row(result, str(self.people[result]))
        for what, count in sorted(self.photos.items()):
            table.add_row(f"photos {what}", str(count))
        if self.look_alikes:
            table.add_row("look like somebody else", str(self.look_alikes))
        for code, count in sorted(self.refusals.items()):
            table.add_row(f"refused: {code}", str(count))
        self._console.print(table)
        for refusal in self._shown:
            said = Text(_printable(f"{refusal.where}: {refusal.detail} ({refusal.code})"))
            self._console.print(said, soft_wrap=True)
        hidden = self.refusals.total() - len(self._shown) if self._shown else 0
        if hidden:
            self._console.print(f"... and {hidden} more: --report FILE writes all of them")


class Bar:
    """People done of a total, which may be unknown, and how many were refused."""

    def __init__(self, console: Console, what: str, total: int | None) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[said]}"),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task: TaskID = self._progress.add_task(what, total=total, said="")
        self.done = 0

    def advance(self, by: int, said: str = "") -> None:
        self.done += by
        self._progress.update(self._task, advance=by, said=said)

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._progress.stop()


def _printable(text: str) -> str:
    """File names may hold what moves the cursor of a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
