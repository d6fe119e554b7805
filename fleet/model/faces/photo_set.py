"""A set of photos of known subjects, before their faces are searched."""

from collections import Counter
from dataclasses import dataclass

from fleet.import_source import PhotoFile


@dataclass(frozen=True)
class SubjectPhoto:
    """A photo of subject number `subject`."""

    subject: int
    file: PhotoFile

    @property
    def name(self) -> str:
        """The path within the folder."""
        return str(self.file.file.relative_to(self.file.root))


@dataclass(frozen=True)
class LeftOut:
    """A file that is not measured: its path, and a reason as code and sentence."""

    name: str
    code: str
    reason: str


@dataclass(frozen=True)
class ListedPairs:
    """Pairs of positions in the photos of a set: genuine and impostor ones."""

    genuine: tuple[tuple[int, int], ...]
    impostor: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class PhotoSet:
    """Photos of `subjects`, by the names of their folders.

    `left_out` has the files that are no photos of them. With `pairs` only these are compared.
    """

    subjects: tuple[str, ...]
    photos: tuple[SubjectPhoto, ...]
    left_out: tuple[LeftOut, ...] = ()
    pairs: ListedPairs | None = None

    @property
    def most_photos(self) -> int:
        """The number of photos of the subject that has most."""
        return max(Counter(photo.subject for photo in self.photos).values(), default=0)
