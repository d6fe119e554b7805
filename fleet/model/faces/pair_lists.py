"""Read lists of pairs of photos.

A line is a pair, with tabs, commas or blanks between its fields, in one of three forms:

- `anna/1.jpg, anna/2.jpg, genuine` or `anna/1.jpg, ben/1.jpg, impostor`, with paths in the folder; the last
  field may also be `1` or `0`, `same` or `different`;
- `anna 1 2`, the photos 1 and 2 of anna, as in the lists of Labeled Faces in the Wild (LFW);
- `anna 1 ben 2`, a photo of each of two people, as there.

LFW's files are called `anna/anna_0001.jpg`. Empty lines, lines that begin with `#`, and LFW's first line
(its counts) are skipped.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fleet.errors import CannotRunError
from fleet.import_source import PhotoFile

from .person_folders import open_folder
from .photo_set import ListedPairs, PhotoSet, SubjectPhoto

_MOST_BYTES = 64 * 1024 * 1024
_GENUINE = frozenset({"genuine", "1", "same", "true"})
_IMPOSTOR = frozenset({"impostor", "0", "-1", "different", "false"})
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_FORMS = "expected 'anna/1.jpg, ben/1.jpg, impostor' (or genuine), or LFW's 'anna 1 2' or 'anna 1 ben 2'"


@dataclass
class _Pairs:
    """The pairs read so far.

    `labels` has the name of the subject of each photo of an LFW line.
    """

    photos: dict[Path, int] = field(default_factory=dict)
    labels: list[str | None] = field(default_factory=list)
    genuine: dict[tuple[int, int], str] = field(default_factory=dict)
    impostor: dict[tuple[int, int], str] = field(default_factory=dict)

    def position(self, file: Path, label: str | None) -> int:
        if file not in self.photos:
            self.photos[file] = len(self.photos)
            self.labels.append(label)
        elif label is not None:
            self.labels[self.photos[file]] = label
        return self.photos[file]


def read_pair_lists(folder: Path, lists: Sequence[Path]) -> PhotoSet:
    """Return the photos in `folder` that `lists` name, and their pairs.

    A subject is what genuine pairs join, or a name of LFW's form. Raises CannotRunError for a list that
    cannot be read, a line of no form, a photo that is missing, and lists that contradict each other.
    """
    root = open_folder(folder)
    pairs = _Pairs()
    for file in lists:
        for where, line in _lines(file):
            _read_line(pairs, root, where, line)
    names = ", ".join(map(str, lists))
    for kind, found in (("genuine", pairs.genuine), ("impostor", pairs.impostor)):
        if not found:
            raise CannotRunError(f"{names}: no {kind} pair in the list; error rates need pairs of both kinds")
    subjects = _join(pairs)
    for (first, second), where in pairs.impostor.items():
        if subjects[first] == subjects[second]:
            raise CannotRunError(
                f"{where}: an impostor pair of two photos that genuine pairs call the same person; "
                "correct the label of one of the lines"
            )
    files = list(pairs.photos)
    photos = tuple(
        SubjectPhoto(subject, PhotoFile(file, root)) for file, subject in zip(files, subjects, strict=True)
    )
    return PhotoSet(
        tuple(f"subject {number + 1}" for number in range(max(subjects) + 1)),
        photos,
        pairs=ListedPairs(tuple(pairs.genuine), tuple(pairs.impostor)),
    )


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield place and text of each line with content."""
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise CannotRunError(f"--pairs {file}: it has more than {_MOST_BYTES} bytes")
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CannotRunError(f"--pairs {file}: the list cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise CannotRunError(f"--pairs {file}: the list is no text in UTF-8") from error
    for number, line in enumerate(text.splitlines(), 1):
        content = line.strip()
        is_head = number == 1 and re.fullmatch(r"\d+(\s+\d+)?", content)
        if content and not content.startswith("#") and not is_head:
            yield f"--pairs {file}, line {number}", content


def _read_line(pairs: _Pairs, root: Path, where: str, line: str) -> None:
    separator = "\t" if "\t" in line else "," if "," in line else None
    fields = [part.strip() for part in line.split(separator)]
    if len(fields) == 3 and fields[1].isdecimal() and fields[2].isdecimal() and _is_name(fields[0]):
        ends = [(fields[0], fields[1]), (fields[0], fields[2])]
    elif len(fields) == 4 and fields[1].isdecimal() and fields[3].isdecimal():
        ends = [(fields[0], fields[1]), (fields[2], fields[3])]
    elif len(fields) == 3 and fields[2].lower() in _GENUINE | _IMPOSTOR:
        first, second = (pairs.position(_inside(root, part, where), None) for part in fields[:2])
        _add(pairs, first, second, where, is_genuine=fields[2].lower() in _GENUINE)
        return
    else:
        raise CannotRunError(f"{where}: {_FORMS}")
    first, second = (pairs.position(_lfw_file(root, *end, where), end[0]) for end in ends)
    _add(pairs, first, second, where, is_genuine=ends[0][0] == ends[1][0])


def _is_name(text: str) -> bool:
    return not text.lower().endswith(_SUFFIXES)


def _add(pairs: _Pairs, first: int, second: int, where: str, *, is_genuine: bool) -> None:
    if first == second:
        raise CannotRunError(f"{where}: a pair of a photo with itself; name two photos")
    chosen = pairs.genuine if is_genuine else pairs.impostor
    chosen.setdefault((min(first, second), max(first, second)), where)


def _inside(root: Path, text: str, where: str) -> Path:
    """Return the file that `text` names in `root`."""
    path = root / text
    if Path(text).is_absolute() or ".." in Path(text).parts or "\0" in text:
        raise CannotRunError(f"{where}: {text!r} leads out of the folder; paths are relative to it")
    if not path.is_file():
        raise CannotRunError(f"{where}: there is no photo {text!r} in the folder")
    return path


def _lfw_file(root: Path, name: str, number: str, where: str) -> Path:
    stems = (f"{name}_{int(number):04}", number, f"{name}_{number}")
    for stem in stems:
        for suffix in _SUFFIXES:
            text = f"{name}/{stem}{suffix}"
            if ".." not in Path(text).parts and (root / text).is_file():
                return _inside(root, text, where)
    raise CannotRunError(
        f"{where}: there is no photo {name}/{stems[0]}.jpg in the folder, nor {name}/{number}.jpg"
    )


def _join(pairs: _Pairs) -> list[int]:
    """Return the subject of each photo: what genuine pairs and names join is one."""
    above = list(range(len(pairs.photos)))

    def top(photo: int) -> int:
        while above[photo] != photo:
            above[photo] = above[above[photo]]
            photo = above[photo]
        return photo

    first_of: dict[str, int] = {}
    for photo, label in enumerate(pairs.labels):
        if label is not None:
            above[top(photo)] = top(first_of.setdefault(label, photo))
    for first, second in pairs.genuine:
        above[top(first)] = top(second)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(top(photo), len(numbers)) for photo in range(len(above))]
