"""Write the people that a migration misses, and enroll them again from photos."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console

from fleet.api_client import ApiClient
from fleet.errors import CannotRunError
from fleet.import_source import SourceEntry
from fleet.importer import Importer
from fleet.output_file import open_output
from fleet.readers.folder import read_folder
from fleet.readers.npy import SUFFIX, NpySpaces
from fleet.report import ImportReport, ProgressBar, RefusalFile

from .migration import MissingItem

_COLUMNS = ("user_id", "kind", "source_system", "external_id")


def write_missing(file: str, people: Iterable[MissingItem]) -> int:
    """Write people to `file` and return how many.

    A file `.csv` has a line for each key of another system, others a JSON object for each person. Raises
    CannotRunError.
    """
    count = 0
    lines = _csv_lines if Path(file).suffix.lower() == ".csv" else _json_lines
    try:
        with open_output(file) as out:
            if lines is _csv_lines:
                out.write(_csv_line(_COLUMNS))
            for item in people:
                count += 1
                out.writelines(lines(item))
    except OSError as error:
        raise CannotRunError(f"{file}: cannot be written ({error.strerror})") from error
    return count


def _json_lines(item: MissingItem) -> Iterator[bytes]:
    document = item.model_dump(mode="json")
    yield json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _csv_lines(item: MissingItem) -> Iterator[bytes]:
    keys = [(key.source_system, key.external_id) for key in item.sources] or [("", "")]
    for key in keys:
        yield _csv_line((item.user_id, item.kind, *key))


def _csv_line(values: Iterable[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()


class PhotoReenrollment:
    """Enrolls people again from a folder with a folder of photos per user id.

    Only the people in `missing` are sent. Vectors in the folder are not: they may be of the old model.
    """

    def __init__(self, api: ApiClient, console: Console, missing: set[str]) -> None:
        self._api = api
        self._console = console
        self._missing = missing

    def enroll(self, folder: Path, report: Path | None) -> bool:
        """Enroll and print the results; return whether nothing was refused.

        Raises CannotRunError.
        """
        if not folder.is_dir():
            raise CannotRunError(f"{folder}: no such folder: name one with a folder of photos per user id")
        with RefusalFile.open(report) as refusals:
            outcome = ImportReport(self._console, refusals)
            try:
                source = read_folder(folder, [], NpySpaces(None))
                with ProgressBar(self._console, "enrolling", source.total) as bar:
                    importer = Importer(self._api, outcome, bar, dry_run=False)
                    for entry in source.entries:
                        self._enroll_entry(importer, outcome, bar, entry)
            except OSError as error:
                raise CannotRunError(f"{folder}: cannot be read ({error.strerror})") from error
        outcome.print(dry_run=False)
        return outcome.is_clean

    def _enroll_entry(
        self, importer: Importer, outcome: ImportReport, bar: ProgressBar, entry: SourceEntry
    ) -> None:
        for refusal in entry.refusals:
            if refusal.user_id in self._missing and not refusal.where.lower().endswith(SUFFIX):
                outcome.add_refusal(refusal)
        candidate = entry.candidate
        if candidate is None or candidate.user_id not in self._missing or not candidate.photos:
            bar.advance(1)
            return
        importer.add_photos(candidate)
