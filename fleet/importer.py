"""Send a source's identities to the API in groups, each with its photos."""

from collections.abc import Sequence

from broker_bridge.contract.errors import FILE_INVALID

from .api_client import AddedPhoto, ApiClient, ImportItem
from .errors import ApiRefusedError, CannotRunError, FileRefusedError
from .import_source import ImportCandidate, ImportRefusal, ImportSource, PhotoFile, SourceEntry
from .readers.files import read_photo
from .report import ImportReport, ProgressBar

MAX_GROUP_IDENTITIES = 500
MAX_GROUP_BYTES = 900 * 1024
"""Below the default of the API's `json_max_bytes`; where that is lower, a group is cut in half."""
LOOK_ALIKE = "look-alike"
NOT_COMPARED = "not-compared"
SIMILAR_ID = "similar-id"
# These statuses concern the content of a group, so a part of it may succeed; others concern every request.
_ITEM_STATUSES = frozenset({400, 413, 422, 500})


class Importer:
    """Import identities. Repeating any part of an import changes nothing."""

    def __init__(self, api: ApiClient, report: ImportReport, bar: ProgressBar, *, dry_run: bool) -> None:
        self._api = api
        self._report = report
        self._bar = bar
        self._dry_run = dry_run
        self._group: list[ImportCandidate] = []
        self._bytes = 0
        self._not_compared: set[str] = set()

    def import_source(self, source: ImportSource) -> None:
        """Import every entry of `source`; raises CannotRunError."""
        for entry in source.entries:
            self._add_entry(entry)
        self._flush()

    def _add_entry(self, entry: SourceEntry) -> None:
        for refusal in entry.refusals:
            self._report.add_refusal(refusal)
        if entry.candidate is None:
            self._count_result("refused")
            return
        size = len(entry.candidate.body) + 1
        if self._group and (len(self._group) == MAX_GROUP_IDENTITIES or self._bytes + size > MAX_GROUP_BYTES):
            self._flush()
        self._group.append(entry.candidate)
        self._bytes += size

    def _flush(self) -> None:
        if self._group:
            self._send_group(self._group)
        self._group, self._bytes = [], 0

    def _send_group(self, group: Sequence[ImportCandidate]) -> None:
        try:
            answer = self._api.import_identities(
                [candidate.body for candidate in group], dry_run=self._dry_run
            )
        except ApiRefusedError as error:
            if error.status not in _ITEM_STATUSES:
                raise CannotRunError(
                    f"the API at {self._api.url} refuses ({error.status}): {error.detail}"
                ) from error
            if len(group) == 1:
                self._add_refusal(group[0], error.code, error.detail)
                return
            middle = len(group) // 2
            self._send_group(group[:middle])
            self._send_group(group[middle:])
            return
        for item in sorted(answer.items, key=lambda item: item.index):
            self._settle(group[item.index], item)

    def _settle(self, candidate: ImportCandidate, item: ImportItem) -> None:
        if item.result == "refused":
            self._add_refusal(candidate, item.code, item.detail)
            return
        self._add_look_alikes(candidate.where, candidate.user_id, item)
        if item.similar_ids:
            detail = f"its id resembles {', '.join(item.similar_ids)}: check whether it is the same person"
            self._report.add_warning(ImportRefusal(candidate.where, candidate.user_id, SIMILAR_ID, detail))
        version = self._send_photos(candidate, item.version)
        has_more = item.result == "unchanged" and version != item.version
        self._count_result("changed" if has_more else item.result)

    def add_photos(self, candidate: ImportCandidate) -> None:
        """Add the photos of an identity that is enrolled; raises CannotRunError."""
        version = self._send_photos(candidate, None)
        self._count_result("refused" if version is None else "changed")

    def _send_photos(self, candidate: ImportCandidate, version: int | None) -> int | None:
        """Return the version of the identity afterwards; `version` is the one before."""
        for photo in candidate.photos:
            version = self._add_photo(candidate, photo, version)
        return version

    def _add_photo(self, candidate: ImportCandidate, photo: PhotoFile, version: int | None) -> int | None:
        """Return the version of the identity afterwards."""
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
            added = self._api.add_photo(candidate.user_id, data, media_type)
        except FileRefusedError as error:
            self._report.add_refusal(ImportRefusal(where, candidate.user_id, FILE_INVALID, str(error)))
        except ApiRefusedError as error:
            self._report.add_refusal(ImportRefusal(where, candidate.user_id, error.code, error.detail))
        else:
            # The photo shows it, where the identity itself had no face yet.
            self._add_look_alikes(where, candidate.user_id, added)
            self._report.photos["unchanged" if added.version == version else "added"] += 1
            return added.version
        self._report.photos["refused"] += 1
        return version

    def _add_look_alikes(self, where: str, user_id: str, stored: ImportItem | AddedPhoto) -> None:
        """Report identities that a new face resembles, and spaces without a search."""
        for near in stored.look_alikes:
            detail = f"looks like {near.nearest_user_id} (similarity {near.similarity:.2f} in {near.space})"
            self._report.add_warning(ImportRefusal(where, user_id, LOOK_ALIKE, detail))
        for space in sorted(set(stored.not_compared) - self._not_compared):
            self._not_compared.add(space)
            detail = (
                f"{space} has no limits, so look-alikes are not searched in it, for this identity and all "
                "others: calibrate it (wfm-fleet model calibrate)"
            )
            self._report.add_warning(ImportRefusal(where, user_id, NOT_COMPARED, detail))

    def _add_refusal(self, candidate: ImportCandidate, code: str, detail: str) -> None:
        self._report.add_refusal(ImportRefusal(candidate.where, candidate.user_id, code, detail))
        self._count_result("refused")

    def _count_result(self, result: str) -> None:
        self._report.results[result] += 1
        refused = self._report.refusals.total()
        self._bar.advance(1, f"{refused} refused" if refused else "")
