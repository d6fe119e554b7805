"""Read a folder of identities.

It contains `<user id>/` with photos and `.npy` files, or files named after the user id.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from broker_bridge.common.pictures.picture_format import PICTURE_SUFFIXES
from broker_bridge.contract.errors import FILE_INVALID
from fleet.errors import FileRefusedError
from fleet.import_source import (
    NO_USER_ID,
    REQUEST_INVALID,
    ImportRefusal,
    ImportSource,
    PhotoFile,
    SourceEntry,
    read_user_id,
    to_entry,
)

from .files import is_picture
from .npy import FOLDERS, SUFFIX, NpySpaces, read_template

_MOST_VECTORS = 64
_LINK = "it is a symbolic link, which is not followed"


def read_folder(folder: Path, sites: list[str], spaces: NpySpaces) -> ImportSource:
    """Return the identities in `folder`, by name.

    Raises OSError if it cannot be listed.
    A device's own folders (`face_db` and the like) are accepted, and so is their parent folder.
    """
    root = folder.resolve(strict=True)
    found: dict[str, list[Path]] = {}
    refusals = []
    for path in _listed(root):
        if path.name in FOLDERS and path.is_dir() and not path.is_symlink():
            for inner in _listed(path):
                found.setdefault(_name(inner), []).append(inner)
        elif path.is_symlink():
            refusals.append(ImportRefusal(str(path.relative_to(root)), None, FILE_INVALID, _LINK))
        else:
            found.setdefault(_name(path), []).append(path)
    entries = _entries(root, found, refusals, sites, spaces)
    return ImportSource(entries, len(found))


def _listed(folder: Path) -> list[Path]:
    """Return the content of `folder` without hidden files of other programs."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _name(path: Path) -> str:
    has_ending = path.suffix.lower() in (SUFFIX, *PICTURE_SUFFIXES)
    return path.stem if has_ending and not path.is_dir() else path.name


def _entries(
    root: Path,
    found: dict[str, list[Path]],
    refusals: list[ImportRefusal],
    sites: list[str],
    spaces: NpySpaces,
) -> Iterator[SourceEntry]:
    if refusals:
        yield SourceEntry(refusals=tuple(refusals))
    for name in sorted(found):
        yield _entry(root, name, found[name], sites, spaces)


def _entry(root: Path, name: str, paths: list[Path], sites: list[str], spaces: NpySpaces) -> SourceEntry:
    where = str(paths[0].relative_to(root))
    user_id = read_user_id(name)
    if user_id is None:
        return SourceEntry(refusals=(ImportRefusal(where, None, REQUEST_INVALID, f"its name: {NO_USER_ID}"),))
    templates: list[dict[str, Any]] = []
    photos: list[PhotoFile] = []
    refusals: list[ImportRefusal] = []
    for file in _files(paths):
        try:
            if file.is_symlink():
                raise FileRefusedError(_LINK)  # noqa: TRY301  # one refusal for every problem of a file
            if file.suffix.lower() in PICTURE_SUFFIXES or (
                file.suffix.lower() != SUFFIX and is_picture(file, root)
            ):
                photos.append(PhotoFile(file, root))
            elif len(templates) == _MOST_VECTORS:
                raise FileRefusedError(f"a person has at most {_MOST_VECTORS} vectors")  # noqa: TRY301
            elif file.suffix.lower() == SUFFIX:
                templates.append(read_template(file, root, spaces))
            else:
                raise FileRefusedError("it is neither a photo (JPEG, PNG, WebP) nor a vector (.npy)")  # noqa: TRY301
        except FileRefusedError as error:
            refusals.append(ImportRefusal(str(file.relative_to(root)), user_id, FILE_INVALID, str(error)))
    if templates or photos:
        document = {"user_id": user_id, "templates": templates}
        return SourceEntry(to_entry(where, document, sites, tuple(photos)).candidate, tuple(refusals))
    empty = ImportRefusal(where, user_id, FILE_INVALID, "it contains neither a photo nor a vector")
    return SourceEntry(refusals=tuple(refusals) or (empty,))


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            yield from _listed(path)
        else:
            yield path
