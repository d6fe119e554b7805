"""Read a folder that has a folder of photos per person."""

import os
from pathlib import Path

from broker_bridge.common.pictures.picture_format import PICTURE_SUFFIXES
from fleet.errors import CannotRunError, FileRefusedError
from fleet.import_source import PhotoFile
from fleet.readers.files import is_picture

from .photo_set import LeftOut, PhotoSet, SubjectPhoto

_LINK = LeftOut("", "symbolic-link", "it is a symbolic link, which is not followed")
_LOOSE = LeftOut("", "no-person", "it lies in no person's folder")
_NESTED = LeftOut("", "nested-folder", "it is a folder inside a person's folder: only photos are read there")
_NO_PHOTO = LeftOut("", "no-photo", "it is no photo: use JPEG, PNG or WebP")
_EMPTY = LeftOut("", "no-photos", "this folder has no photo")


def open_folder(folder: Path) -> Path:
    """Return `folder` without links.

    Raises CannotRunError for anything else than a folder.
    """
    try:
        root = folder.resolve(strict=True)
        if root.is_dir():
            os.listdir(root)  # noqa: PTH208  # whether it can be listed
            return root
    except FileNotFoundError as error:
        raise CannotRunError(f"{folder}: there is no such folder") from error
    except (OSError, RuntimeError) as error:
        # Before Python 3.13 a link that leads to itself is a RuntimeError.
        reason = getattr(error, "strerror", None) or "its symbolic links lead in a circle"
        raise CannotRunError(f"{folder}: the folder cannot be read ({reason})") from error
    raise CannotRunError(f"{folder} is a file: expected a folder with a folder of photos per person")


def read_person_folders(folder: Path) -> PhotoSet:
    """Return the photos in the folders of `folder`, each the photos of one person.

    Hidden files are skipped; links, nested folders and files that are no photos are told. Raises
    CannotRunError if there are fewer than two people with a photo.
    """
    root = open_folder(folder)
    left_out: list[LeftOut] = []
    subjects: list[str] = []
    photos: list[SubjectPhoto] = []
    for path in _listed(root):
        if path.is_symlink():
            left_out.append(_about(path, root, _LINK))
        elif not path.is_dir():
            left_out.append(_about(path, root, _LOOSE))
        else:
            files = _photos(path, root, left_out)
            if not files:
                left_out.append(_about(path, root, _EMPTY))
                continue
            photos += [SubjectPhoto(len(subjects), file) for file in files]
            subjects.append(path.name)
    found = PhotoSet(tuple(subjects), tuple(photos), tuple(left_out))
    _check_subjects(folder, found)
    return found


def _check_subjects(folder: Path, found: PhotoSet) -> None:
    codes = [item.code for item in found.left_out]
    expected = "expected a folder of photos per person, such as anna/1.jpg and ben/1.jpg"
    if len(found.subjects) >= 2:
        if found.most_photos < 2:
            raise CannotRunError(
                f"{folder} has one photo of each of {len(found.subjects)} people: without two photos of one "
                "person there are no genuine pairs; add a second photo of another day to several folders"
            )
        return
    if _NESTED.code in codes:
        nested = next(item.name for item in found.left_out if item.code == _NESTED.code)
        above = Path(folder) / Path(nested).parent
        raise CannotRunError(f"{folder} has folders inside folders ({nested}): {expected}; is it {above}?")
    if len(found.subjects) == 1:
        raise CannotRunError(
            f"{folder} has photos of one person alone ({found.subjects[0]}): errors are measured between "
            "people; add folders of others"
        )
    if _LOOSE.code in codes:
        raise CannotRunError(f"{folder} has files but no folder with photos: {expected}")
    raise CannotRunError(f"{folder} has no photos: {expected}")


def _photos(folder: Path, root: Path, left_out: list[LeftOut]) -> list[PhotoFile]:
    """Return the photos in one person's folder, and add its other files to `left_out`."""
    photos = []
    try:
        listed = _listed(folder)
    except OSError as error:
        reason = f"the folder cannot be read ({error.strerror})"
        left_out.append(LeftOut(str(folder.relative_to(root)), "unreadable", reason))
        return []
    for path in listed:
        if path.is_symlink():
            left_out.append(_about(path, root, _LINK))
        elif path.is_dir():
            left_out.append(_about(path, root, _NESTED))
        elif _is_photo(path, root):
            photos.append(PhotoFile(path, root))
        else:
            left_out.append(_about(path, root, _NO_PHOTO))
    return photos


def _is_photo(path: Path, root: Path) -> bool:
    if path.suffix.lower() in PICTURE_SUFFIXES:
        # Its content is judged when it is read, with a sentence of its own.
        return True
    try:
        return is_picture(path, root)
    except FileRefusedError:
        return False


def _listed(folder: Path) -> list[Path]:
    """Return the content of `folder` without hidden files of other programs."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _about(path: Path, root: Path, reason: LeftOut) -> LeftOut:
    return LeftOut(str(path.relative_to(root)), reason.code, reason.reason)
