"""People from a source to the API: in groups, in their order, with their photos after them."""

from collections.abc import Sequence

from broker_bridge.contract.errors import FILE_INVALID

from .api_client import ApiClient, ImportItem
from .errors import ApiRefusedError, CannotRunError, FileRefusedError
from .import_source import ImportCandidate, ImportRefusal, ImportSource, PhotoFile, SourceEntry
from .readers.files import read_photo
from .report import Bar, ImportReport

MOST_PEOPLE = 500
MOST_BYTES = 900 * 1024
"""Below the API's `json_max_bytes` as it is by default; where that is less, a group is cut in half."""
LOOK_ALIKE = "look-alike"
# About what was sent, so that a part of it may come in; anything else is about all requests.
_ABOUT_PEOPLE = frozenset({400, 413, 422, 500})


class Importer:
    """Brings people in. Any of it may be done again: what is in already changes nothing."""

    def __init__(self, api: ApiClient, report: ImportReport, bar: Bar, *, dry_run: bool) -> None:
        self._api = api
        self._report = report
        self._bar = bar
        self._dry_run = dry_run
        self._group: list[ImportCandidate] = []
        self._bytes = 0

    def run(self, people: ImportSource) -> None:
        """Bring everybody in; raises CannotRunError."""
        for entry in people.entries:
            self._take(entry)
        self._flush()

    def _take(self, entry: SourceEntry) -> None:
        for refusal in entry.refusals:
            self._report.refuse(refusal)
        if entry.candidate is None:
            self._done("refused")
            return
        size = len(entry.candidate.body) + 1
        if self._group and (len(self._group) == MOST_PEOPLE or self._bytes + size > MOST_BYTES):
            self._flush()
        self._group.append(entry.candidate)
        self._bytes += size

    def _flush(self) -> None:
        if self._group:
            self._bring(self._group)
        self._group, self._bytes = [], 0

    def _bring(self, group: Sequence[ImportCandidate]) -> None:
        try:
            answer = self._api.bring([one.body for one in group], dry_run=self._dry_run)
        except ApiRefusedError as error:
            if error.status not in _ABOUT_PEOPLE:
                raise CannotRunError(
                    f"the API at {self._api.url} refuses ({error.status}): {error.detail}"
                ) from error
            if len(group) == 1:
                self._refuse(group[0], error.code, error.detail)
                return
            middle = len(group) // 2
            self._bring(group[:middle])
            self._bring(group[middle:])
            return
        for item in sorted(answer.items, key=lambda one: one.index):
            self._settle(group[item.index], item)

    def _settle(self, candidate: ImportCandidate, item: ImportItem) -> None:
        if item.result == "refused":
            self._refuse(candidate, item.code, item.detail)
            return
        for near in item.look_alikes[:1]:
            detail = f"looks like {near.nearest_user_id} (similarity {near.similarity:.2f} in {near.space})"
            self._report.warn(ImportRefusal(candidate.where, candidate.user_id, LOOK_ALIKE, detail))
        version = item.version
        for photo in candidate.photos:
            version = self._add_photo(candidate, photo, version)
        has_more = item.result == "unchanged" and version != item.version
        self._done("changed" if has_more else item.result)

    def _add_photo(self, candidate: ImportCandidate, photo: PhotoFile, version: int | None) -> int | None:
        """The version of the person afterwards."""
        where = (
            str(photo.file.relative_to(photo.root))
            if photo.file.is_relative_to(photo.root)
            else candidate.where
        )
        try:
            data, media_type = read_photo(photo)
            if self._dry_run:
                self._report.photos["not looked at"] += 1
                return version
            now = self._api.add_photo(candidate.user_id, data, media_type)
        except FileRefusedError as error:
            self._report.refuse(ImportRefusal(where, candidate.user_id, FILE_INVALID, str(error)))
        except ApiRefusedError as error:
            self._report.refuse(ImportRefusal(where, candidate.user_id, error.code, error.detail))
        else:
            self._report.photos["unchanged" if now == version else "added"] += 1
            return now
        self._report.photos["refused"] += 1
        return version

    def _refuse(self, candidate: ImportCandidate, code: str, detail: str) -> None:
        self._report.refuse(ImportRefusal(candidate.where, candidate.user_id, code, detail))
        self._done("refused")

    def _done(self, result: str) -> None:
        self._report.people[result] += 1
        refused = self._report.refusals.total()
        self._bar.advance(1, f"{refused} refused" if refused else "")
