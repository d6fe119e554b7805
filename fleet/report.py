"""Report an import: a progress bar, a table at the end, and a file of refusals."""

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
    """Write one JSON object a line for each refusal or warning.

    Warnings have `refused` false.

    Only its owner can read the file, because it contains user ids.
    """

    def __init__(self, file: TextIO | None) -> None:
        self._file = file

    @classmethod
    def open(cls, path: Path | None) -> "RefusalFile":
        """Open `path` for writing.

        None gives a file that drops everything. Raises CannotRunError.
        """
        if path is None:
            return cls(None)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(path, flags, 0o600)
        except OSError as error:
            raise CannotRunError(f"--report {path}: cannot be written ({error.strerror})") from error
        return cls(os.fdopen(handle, "w", encoding="ascii"))

    def write(self, refusal: ImportRefusal, *, refused: bool = True) -> None:
        if self._file is not None:
            self._file.write(json.dumps({**asdict(refusal), "refused": refused}) + "\n")

    def __enter__(self) -> "RefusalFile":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()


class ImportReport:
    """Count results, and write refusals to `file`.

    The first ten also go to the terminal at the end.
    """

    def __init__(self, console: Console, file: RefusalFile) -> None:
        self._console = console
        self._file = file
        self._shown: list[ImportRefusal] = []
        self.results: Counter[str] = Counter()
        self.photos: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.warnings: Counter[str] = Counter()

    def add_refusal(self, refusal: ImportRefusal) -> None:
        self.refusals[refusal.code] += 1
        self._file.write(refusal)
        if len(self._shown) < _SHOWN:
            self._shown.append(refusal)

    def add_warning(self, warning: ImportRefusal) -> None:
        """Count an identity that was imported although it may be another one."""
        self.warnings[warning.code] += 1
        self._file.write(warning, refused=False)

    @property
    def is_clean(self) -> bool:
        return not self.refusals

    def print(self, *, dry_run: bool) -> None:
        """Print the table and the first refusals."""
        table = Table(title="Dry run: nothing was written" if dry_run else None, title_justify="left")
        table.add_column("would be" if dry_run else "people")
        table.add_column("", justify="right")
        for result in ("created", "changed", "unchanged", "refused"):
            table.add_row(result, str(self.results[result]))
        for what, count in sorted(self.photos.items()):
            table.add_row(f"photos {what}", str(count))
        for code, count in sorted(self.warnings.items()):
            table.add_row(f"warnings: {code}", str(count))
        for code, count in sorted(self.refusals.items()):
            table.add_row(f"refused: {code}", str(count))
        self._console.print(table)
        for refusal in self._shown:
            line = Text(_printable(f"{refusal.where}: {refusal.detail} ({refusal.code})"))
            self._console.print(line, soft_wrap=True)
        hidden = self.refusals.total() - len(self._shown) if self._shown else 0
        if hidden:
            self._console.print(f"... and {hidden} more: --report FILE writes all of them")


class ProgressBar:
    """Show the items done of a total and details such as refusals."""

    def __init__(self, console: Console, what: str, total: int | None) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[details]}"),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task: TaskID = self._progress.add_task(what, total=total, details="")
        self.done = 0

    def advance(self, by: int, details: str = "") -> None:
        self.done += by
        self._progress.update(self._task, advance=by, details=details)

    def __enter__(self) -> "ProgressBar":
        self._progress.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._progress.stop()


def _printable(text: str) -> str:
    """Replace the control characters that a file name may contain."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
