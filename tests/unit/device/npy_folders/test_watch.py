"""The watched folders of one device: real files, a real database, and a registry that answers by script."""

import logging
import os
from contextlib import closing

import numpy as np
import pytest

from broker_bridge.common.npy import to_npy
from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.embeddings import EmbeddingSpace, to_array
from broker_bridge.contract.messages import Registered, WireError
from device.enrollment.gallery_rows import GalleryRows
from device.enrollment.registrations import RegistrationSender
from device.management.health import Health
from device.npy_folders.gallery_view import GalleryFeed
from device.npy_folders.intake import MAX_PENDING
from device.npy_folders.watch import NpyWatch
from device.store.db_manager import DatabaseManager
from tests.device_samples import DIMENSION, SPACE, Clock, ScriptedLink, seeded, vector
from tests.waiting import wait_until

GAIT = "gait:test-6"
SPACES = {"face": EmbeddingSpace(SPACE, DIMENSION), "gait": EmbeddingSpace(GAIT, 6), "speaker": None}
WATCH_SECONDS = 5.0


class Folders:
    """The watched folders of a device; another on the same path is the device after a restart."""

    def __init__(self, tmp_path, clock=None, *, mirror=False, synced=True, spaces=SPACES, people=None):
        self.path = tmp_path / "npy"
        self.clock = clock or Clock()
        self.synced = synced
        self.link = ScriptedLink()
        self.health = Health()
        self.rows = GalleryFeed()
        self.db = DatabaseManager(tmp_path / "device.db", utc_now=self.clock.utc_now)
        self.db.initialize()
        self.registrations = RegistrationSender(
            self.link, self.db, source=seeded(), utc_now=self.clock.utc_now
        )
        self.watch = NpyWatch(
            self.path,
            spaces,
            self.rows,
            connection=self.db.connection,
            register=self.registrations.register_employee,
            health=self.health,
            mirror=mirror,
            watch_seconds=WATCH_SECONDS,
            is_synced=lambda: self.synced,
            clock=self.clock,
        )
        self.registrations.connected(self.clock())
        self.hold(people or {})
        self.hold({}, GAIT, 6)
        self.watch.step()

    def close(self):
        self.db.close()

    def file(self, user_id, folder="face_db"):
        return self.path / folder / f"{user_id}.npy"

    def put(self, user_id, array, folder="face_db"):
        with self.file(user_id, folder).open("wb") as file:
            np.save(file, array)

    def hold(self, people, space=SPACE, dimension=DIMENSION):
        """The gallery is now `{user_id: [vector, ...]}`."""
        pairs = [(user_id, one) for user_id, vectors in people.items() for one in vectors]
        vectors = np.array([to_array(one) for _, one in pairs], dtype=np.float32).reshape(-1, dimension)
        self.rows.update(GalleryRows(space, dimension, [user_id for user_id, _ in pairs], vectors, 1))

    def look(self):
        """Let the time of one look go by."""
        self.clock.advance(WATCH_SECONDS)
        self.watch.step()
        self.registrations.tick(self.clock())

    @property
    def asked(self):
        """One of each, in the order in which they were sent first."""
        return list({one.request_id: one for one in self.link.of(channels.REGISTER)}.values())

    def answer(self, asked, result="created", user_id=None, error=None):
        message = Registered(
            request_id=asked.request_id, result=result, user_id=user_id or asked.user_id, error=error
        )
        self.registrations.receive_message(Decoded(channels.REGISTERED, {}, message))
        self.watch.step()

    @property
    def problem(self):
        """The sentence of `file-invalid`, empty if there is none."""
        return "".join(one.detail for one in self.health.problems() if one.code == "file-invalid")

    def names(self, folder="face_db"):
        return sorted(file.name for file in (self.path / folder).iterdir())


@pytest.fixture
def folders(tmp_path):
    with closing(Folders(tmp_path)) as one:
        yield one


@pytest.fixture
def mirror(tmp_path):
    with closing(Folders(tmp_path, mirror=True)) as one:
        yield one


def array(seed, dimension=DIMENSION):
    """Not of unit length: nobody's file has to be."""
    return 3 * to_array(vector(seed, dimension))


# Inward


def test_the_folders_are_made_for_their_owner_alone(folders):
    """All three, also the one that no space is held of."""
    assert sorted(one.name for one in folders.path.iterdir()) == ["face_db", "gait_db", "speaker_db"]
    assert {one.stat().st_mode & 0o777 for one in folders.path.iterdir()} == {0o700}


def test_a_new_file_is_registered_at_the_next_look(folders):
    """As an employee of the file's name, in the space of its folder; once."""
    folders.put("EMP-1", array(1))
    folders.put("EMP-2", array(2, 6).reshape(1, 6), "gait_db")
    folders.look()
    face, gait = folders.asked
    assert (face.user_id, face.space, face.kind, face.display_name) == ("EMP-1", SPACE, "employee", None)
    assert np.allclose(to_array(face.vector), to_array(vector(1)))
    assert (gait.user_id, gait.space) == ("EMP-2", GAIT)
    folders.answer(face, "created")
    folders.answer(gait, "exists")
    for _ in range(3):
        folders.look()
    assert len(folders.asked) == 2
    assert (folders.watch.counts, folders.problem) == ({"registered": 2}, "")
    assert folders.registrations.counts == {}


def test_a_changed_file_is_registered_again_and_a_touched_one_is_not(folders):
    """Once per content."""
    folders.put("EMP-1", array(1))
    folders.look()
    folders.answer(folders.asked[0])
    os.utime(folders.file("EMP-1"), (1, 1))
    folders.look()
    assert len(folders.asked) == 1
    folders.put("EMP-1", array(2))
    folders.look()
    assert [one.user_id for one in folders.asked] == ["EMP-1", "EMP-1"]
    assert np.allclose(to_array(folders.asked[1].vector), to_array(vector(2)))


def test_after_a_restart_nothing_is_registered_again(folders, tmp_path):
    """Neither what was answered nor what still waits for its answer."""
    folders.put("EMP-1", array(1))
    folders.put("EMP-2", array(2))
    folders.look()
    folders.answer(folders.asked[0])
    waiting = folders.asked[1]
    folders.close()
    with closing(Folders(tmp_path, folders.clock)) as again:
        again.look()
        assert [one.request_id for one in again.asked] == [waiting.request_id]
        again.answer(waiting)
        again.look()
        assert len(again.asked) == 1
        assert again.watch.counts == {"registered": 1}


def test_a_file_that_was_removed_and_put_back_is_new(folders):
    """Deleting it deletes nobody; putting it back is a wish."""
    folders.put("EMP-1", array(1))
    folders.look()
    folders.answer(folders.asked[0])
    folders.file("EMP-1").unlink()
    folders.look()
    folders.put("EMP-1", array(1))
    folders.look()
    assert len(folders.asked) == 2


def test_a_folder_that_is_away_for_a_while_is_no_reason_to_register_everybody_again(folders):
    """A disk that was not mounted: it is said, not made anew, and its files are known when it is back."""
    folders.put("EMP-1", array(1))
    folders.look()
    folders.answer(folders.asked[0])
    folder = folders.path / "face_db"
    folder.rename(folders.path / "away")
    folders.look()
    assert folders.problem == "face_db: cannot be read (No such file or directory)"
    (folders.path / "away").rename(folder)
    folders.look()
    assert (len(folders.asked), folders.problem) == (1, "")


def test_a_vector_that_is_held_as_that_persons_needs_no_registration(folders):
    """Copied from another device's folder, whichever of the person's templates it is."""
    folders.hold({"EMP-1": [vector(1), vector(2)]})
    folders.put("EMP-1", array(2))
    folders.put("EMP-2", array(1))
    folders.look()
    assert [one.user_id for one in folders.asked] == ["EMP-2"]


def test_before_the_first_sync_nothing_is_registered(tmp_path):
    """A device whose database was lost would give its old folder back to the registry."""
    with closing(Folders(tmp_path, synced=False)) as folders:
        folders.put("EMP-1", array(1))
        folders.put("EMP-2", array(2))
        folders.look()
        assert folders.asked == []
        folders.synced = True
        folders.hold({"EMP-1": [vector(1)]})
        folders.look()
        assert [one.user_id for one in folders.asked] == ["EMP-2"]


def test_ids_that_differ_by_case_are_two_people(folders):
    """As in the registry."""
    folders.put("EMP-1", array(1))
    folders.put("emp-1", array(2))
    folders.look()
    assert {one.user_id for one in folders.asked} == {"EMP-1", "emp-1"}


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({"result": "exists", "user_id": "EMP-9"}, "the registry has this vector as EMP-9"),
        (
            {"result": "rejected", "error": WireError(code="enrollment-closed", detail="not from here")},
            "the registry rejected it, enrollment-closed: not from here",
        ),
    ],
)
def test_what_the_registry_refuses_is_a_problem_of_the_file_until_it_is_another(folders, answer, sentence):
    """The first device wins. It stays where it is and is not asked about again."""
    folders.put("EMP-1", array(1))
    folders.look()
    folders.answer(folders.asked[0], **answer)
    assert folders.problem == f"face_db/EMP-1.npy: {sentence}"
    os.utime(folders.file("EMP-1"), (1, 1))
    folders.look()
    folders.look()
    assert folders.problem == f"face_db/EMP-1.npy: {sentence}"
    assert (len(folders.asked), folders.watch.counts) == (1, {"refused": 1})
    folders.put("EMP-1", array(2))
    folders.look()
    assert (len(folders.asked), folders.problem) == (2, "")


def test_what_was_refused_is_asked_again_after_a_restart(folders, tmp_path):
    """Somebody may have opened the site."""
    folders.put("EMP-1", array(1))
    folders.look()
    refused = WireError(code="enrollment-closed", detail="closed")
    folders.answer(folders.asked[0], "rejected", error=refused)
    folders.close()
    with closing(Folders(tmp_path, folders.clock)) as again:
        again.look()
        assert [one.user_id for one in again.asked] == ["EMP-1"]


def test_a_registration_that_nobody_answered_for_a_day_is_asked_anew(folders):
    """The file is still there, and so is the wish."""
    folders.put("EMP-1", array(1))
    folders.look()
    folders.clock.advance(2 * 86_400)
    folders.registrations.tick(folders.clock())
    folders.look()
    assert [one.user_id for one in folders.asked] == ["EMP-1", "EMP-1"]


def test_thousands_of_files_wait_in_the_folder_and_not_in_the_queue(folders):
    """A bounded number is asked about; each answer lets the next one in."""
    for seed in range(MAX_PENDING + 10):
        folders.put(f"EMP-{seed}", array(seed))
    folders.look()
    assert len(folders.asked) == MAX_PENDING
    for one in folders.asked[:10]:
        folders.answer(one)
    folders.registrations.tick(folders.clock())
    assert len({one.user_id for one in folders.asked}) == MAX_PENDING + 10


# What is wrong


WRONG = {
    "EMP-2": (array(2).astype(np.float64), "its type is float64, expected float32"),
    "EMP-3": (np.array([{"a": 1}], dtype=object), "it holds pickled objects, which are never loaded"),
    "EMP-4": (array(4).reshape(2, 4), "its shape is [2,4], expected [8] or [1,8]"),
    "EMP-5": (array(5, 512), "its shape is [512], expected [8]"),
    "EMP-6": (np.full(DIMENSION, np.nan, np.float32), "NaN or infinity"),
    "EMP-7": (np.zeros(DIMENSION, np.float32), "zero vector"),
    "EMP-8": (np.zeros(30_000, np.float32), "expected at most 65536"),
}


@pytest.mark.parametrize("user_id", WRONG)
def test_a_file_that_holds_no_vector_of_the_space_is_left_where_it_is_and_named(folders, caplog, user_id):
    """Told once, while it lasts, by name and never by number; over when it is mended."""
    data, sentence = WRONG[user_id]
    folders.put(user_id, data)
    before = folders.file(user_id).read_bytes()
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            folders.look()
    assert folders.problem.startswith(f"face_db/{user_id}.npy: ")
    assert sentence in folders.problem
    assert [one.message for one in caplog.records if "stays where it is" in one.message] == [
        (
            f"folder file ignored; it stays where it is folder=face_db file='{user_id}.npy' "
            f"reason={folders.problem.partition(': ')[2]!r}"
        )
    ]
    assert folders.file(user_id).read_bytes() == before
    assert (folders.asked, folders.watch.counts) == ([], {"invalid": 1})
    folders.put(user_id, array(2))
    folders.look()
    assert folders.problem == ""
    assert [one.user_id for one in folders.asked] == [user_id]


@pytest.mark.parametrize("stem", [".", "a b", "x+y", "#", "", "-EMP", "café", "EMP-1\n", "x" * 129, "\udcff"])
def test_a_name_that_is_no_user_id_is_a_problem_until_it_goes(folders, stem):
    """Two dots and a suffix, blanks, letters that look like others, bytes that are no text."""
    folders.put(stem, array(1))
    folders.look()
    assert "its name is not a user id" in folders.problem
    assert folders.problem.isprintable()
    assert folders.asked == []
    folders.file(stem).unlink()
    folders.look()
    assert (folders.problem, folders.watch.counts) == ("", {"invalid": 1})


def test_what_does_not_end_in_npy_is_nobodys_business(folders):
    """Notes, temporary files, another case."""
    for name in ("README", "EMP-1.npy.part", "EMP-1.NPY", ".EMP-1.swp"):
        (folders.path / "face_db" / name).write_text("hello")
    folders.look()
    folders.look()
    assert (folders.problem, folders.asked) == ("", [])


def test_a_link_is_not_followed(folders, tmp_path):
    """Whatever it points to: the folder's owner may not be who reads it."""
    (tmp_path / "elsewhere").write_bytes(to_npy(vector(1)))
    folders.file("EMP-1").symlink_to(tmp_path / "elsewhere")
    folders.look()
    folders.look()
    assert folders.problem == "face_db/EMP-1.npy: it is a symbolic link; links are not followed"
    assert folders.asked == []


def test_a_file_that_cannot_be_read_is_said(folders):
    """Copied there by somebody else, say."""
    folders.put("EMP-1", array(1))
    folders.file("EMP-1").chmod(0)
    if os.access(folders.file("EMP-1"), os.R_OK):
        pytest.skip("root reads everything")
    folders.look()
    folders.look()
    assert folders.problem == "face_db/EMP-1.npy: it cannot be read (Permission denied)"


def test_a_half_written_file_is_waited_for(folders):
    """It is no problem as long as it grows, and registered when it is whole."""
    whole = to_npy(vector(1))
    for length in (0, 10, 140, len(whole) - 1):
        folders.file("EMP-1").write_bytes(whole[:length])
        folders.look()
        folders.rows.update(folders.rows.latest(SPACE))
        folders.watch.step()
        assert (folders.problem, folders.asked) == ("", [])
    folders.file("EMP-1").write_bytes(whole)
    folders.look()
    assert [one.user_id for one in folders.asked] == ["EMP-1"]


def test_a_file_that_stays_half_written_is_said_at_the_second_look(folders):
    """A copy that broke off."""
    folders.file("EMP-1").write_bytes(to_npy(vector(1))[:-4])
    folders.look()
    assert folders.problem == ""
    folders.look()
    assert "it is incomplete: 28 bytes of numbers, expected 32" in folders.problem


def test_a_folder_whose_space_nobody_holds_says_what_to_set(folders):
    """Its files are not guessed to be of another."""
    folders.put("EMP-1", array(1), "speaker_db")
    folders.look()
    folders.look()
    assert "supports no speaker space; add one to device.further_spaces" in folders.problem


def test_many_problems_make_one_sentence_of_bounded_length(folders):
    """The first few are named, the others counted; the heartbeat takes it."""
    for number in range(300):
        folders.file(f"EMP-{number:03}" + "x" * 100).write_bytes(b"")
    folders.look()
    folders.look()
    assert len(folders.problem) < 1000
    assert folders.problem.endswith("; and 295 more")


def test_a_database_that_fails_is_said_and_tried_again(folders):
    """The file is registered when it takes it."""
    folders.put("EMP-1", array(1))
    folders.db.close()
    folders.look()
    assert "not open" in folders.problem
    folders.db.initialize()
    folders.look()
    assert folders.problem == ""
    assert [one.user_id for one in folders.asked] == ["EMP-1"]


# Outward


def test_without_a_mirror_nobody_appears(folders):
    """Which is the rule: vectors stay in the database."""
    folders.hold({"EMP-1": [vector(1)]})
    folders.look()
    assert folders.names() == []


def test_who_is_held_appears_at_once_and_who_goes_disappears(mirror):
    """The first template as float32[d], for the owner alone, without waiting for a look."""
    mirror.hold({"EMP-1": [vector(1), vector(2)], "EMP-2": [vector(3)]})
    mirror.hold({"EMP-1": [vector(4, 6)]}, GAIT, 6)
    mirror.watch.step()
    assert mirror.names() == ["EMP-1.npy", "EMP-2.npy"]
    assert mirror.names("gait_db") == ["EMP-1.npy"]
    shown = np.load(mirror.file("EMP-1"), allow_pickle=False)
    assert (shown.dtype, shown.tobytes()) == (np.float32, vector(1))
    assert mirror.file("EMP-1").stat().st_mode & 0o777 == 0o600
    mirror.hold({"EMP-2": [vector(5)]})
    mirror.watch.step()
    assert mirror.names() == ["EMP-2.npy"]
    assert np.load(mirror.file("EMP-2")).tobytes() == vector(5)


def test_what_the_mirror_writes_is_not_registered(mirror, tmp_path):
    """Not at the next look, not touched, not after a restart, not when the person went meanwhile."""
    mirror.hold({"EMP-1": [vector(1)], "EMP-2": [vector(2)]})
    mirror.watch.step()
    os.utime(mirror.file("EMP-1"), (1, 1))
    mirror.look()
    mirror.hold({"EMP-1": [vector(3)], "EMP-2": [vector(2)]})
    mirror.watch.step()
    mirror.look()
    assert np.load(mirror.file("EMP-1")).tobytes() == vector(3)
    mirror.close()
    with closing(Folders(tmp_path, mirror.clock, mirror=True, people={"EMP-1": [vector(3)]})) as again:
        again.look()
        again.look()
        assert (again.names(), again.asked) == (["EMP-1.npy"], [])
    assert mirror.asked == []


def test_a_file_that_was_deleted_comes_back_while_the_person_is_held(mirror):
    """At the next look: deleting a file deletes nobody."""
    mirror.hold({"EMP-1": [vector(1)]})
    mirror.watch.step()
    mirror.file("EMP-1").unlink()
    mirror.look()
    assert (mirror.names(), mirror.asked) == (["EMP-1.npy"], [])


def test_a_file_that_somebody_put_there_is_neither_replaced_nor_removed(mirror, tmp_path):
    """Registered, held, changed elsewhere, gone from the registry: it is theirs, also after a restart."""
    mirror.put("EMP-1", array(1))
    theirs = mirror.file("EMP-1").read_bytes()
    mirror.look()
    mirror.answer(mirror.asked[0])
    for people in ({"EMP-1": [vector(1)]}, {"EMP-1": [vector(2)]}, {}):
        mirror.hold(people)
        mirror.watch.step()
        mirror.look()
        assert mirror.file("EMP-1").read_bytes() == theirs
    mirror.close()
    with closing(Folders(tmp_path, mirror.clock, mirror=True)) as again:
        again.look()
        assert again.file("EMP-1").read_bytes() == theirs
        assert again.asked == []


def test_a_mirrored_file_that_somebody_replaced_is_registered_and_then_theirs(mirror):
    """A new vector of a person who is held."""
    mirror.hold({"EMP-1": [vector(1)]})
    mirror.watch.step()
    mirror.put("EMP-1", array(2))
    mirror.look()
    assert [one.user_id for one in mirror.asked] == ["EMP-1"]
    mirror.answer(mirror.asked[0], "exists")
    mirror.hold({})
    mirror.watch.step()
    mirror.look()
    assert mirror.names() == ["EMP-1.npy"]


def test_a_change_that_meets_somebodys_work_does_not_undo_it(mirror):
    """The file was replaced after the last look: the mirror leaves it, and the next look registers it."""
    mirror.hold({"EMP-1": [vector(1)], "EMP-2": [vector(2)]})
    mirror.watch.step()
    mirror.put("EMP-1", array(5))
    mirror.put("EMP-2", array(6))
    mirror.put("EMP-3", array(7))
    mirror.hold({"EMP-1": [vector(3)], "EMP-3": [vector(4)]})
    mirror.watch.step()
    assert np.load(mirror.file("EMP-1")).tobytes() == array(5).tobytes()
    assert np.load(mirror.file("EMP-2")).tobytes() == array(6).tobytes()
    mirror.look()
    assert {one.user_id for one in mirror.asked} == {"EMP-1", "EMP-2", "EMP-3"}


def test_a_mirrored_file_that_was_only_touched_is_still_replaced(mirror):
    """Touched after the last look, and then the person's template changes: at the next look it is shown."""
    mirror.hold({"EMP-1": [vector(1)]})
    mirror.watch.step()
    os.utime(mirror.file("EMP-1"), (1, 1))
    mirror.hold({"EMP-1": [vector(2)]})
    mirror.watch.step()
    mirror.look()
    assert np.load(mirror.file("EMP-1")).tobytes() == vector(2)
    assert mirror.asked == []


def test_a_mirror_that_is_switched_off_takes_its_files_along(mirror, tmp_path):
    """Nobody keeps them up to date any more. What somebody put there stays, and so does the gallery."""
    mirror.put("EMP-9", array(9))
    mirror.hold({"EMP-1": [vector(1)]})
    mirror.hold({"EMP-1": [vector(4, 6)]}, GAIT, 6)
    mirror.look()
    mirror.answer(mirror.asked[0])
    mirror.close()
    no_gait = {**SPACES, "gait": None}
    with closing(Folders(tmp_path, mirror.clock, spaces=no_gait, people={"EMP-1": [vector(1)]})) as off:
        off.look()
        assert (off.names(), off.names("gait_db"), off.asked) == (["EMP-9.npy"], [], [])


def test_an_empty_file_that_a_power_cut_left_is_written_again(mirror, tmp_path):
    """It is the mirror's, though its content is gone: no problem stays, and nobody has to look."""
    mirror.hold({"EMP-1": [vector(1)], "EMP-2": [vector(2)]})
    mirror.watch.step()
    mirror.close()
    for user_id in ("EMP-1", "EMP-2"):
        mirror.file(user_id).write_bytes(b"")
    with closing(Folders(tmp_path, mirror.clock, mirror=True, people={"EMP-1": [vector(1)]})) as again:
        for _ in range(3):
            again.look()
        assert (again.names(), again.problem) == (["EMP-1.npy"], "")
        assert np.load(again.file("EMP-1")).tobytes() == vector(1)


def test_a_process_that_died_between_note_and_file_leaves_nothing_to_register(mirror, tmp_path):
    """Noted before it is written: whichever of both contents the file has, it is ours."""
    mirror.hold({"EMP-1": [vector(1)]})
    mirror.watch.step()
    before = mirror.file("EMP-1").read_bytes()
    mirror.hold({"EMP-1": [vector(2)]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("device.npy_folders.mirror.write_npy", fails(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            mirror.watch.step()
    mirror.close()
    assert mirror.file("EMP-1").read_bytes() == before
    with closing(Folders(tmp_path, mirror.clock, mirror=True, people={"EMP-1": [vector(2)]})) as again:
        again.look()
        assert np.load(again.file("EMP-1")).tobytes() == vector(2)
        assert again.asked == []


def fails(error):
    def write(*_):
        raise error

    return write


def test_a_full_disk_is_said_and_the_files_come_when_there_is_room(mirror, monkeypatch):
    """Nobody is forgotten."""
    mirror.hold({"EMP-1": [vector(1)], "EMP-2": [vector(2)]})
    with monkeypatch.context() as patch:
        patch.setattr("device.npy_folders.mirror.write_npy", fails(OSError(28, "No space left on device")))
        mirror.watch.step()
    assert mirror.problem == "face_db: cannot be written to (No space left on device)"
    mirror.look()
    assert (mirror.names(), mirror.problem) == (["EMP-1.npy", "EMP-2.npy"], "")


def test_a_file_in_one_devices_folder_becomes_a_file_in_anothers(tmp_path):
    """And comes back to the first unchanged: the loop ends there."""
    with (
        closing(Folders(tmp_path / "a", mirror=True)) as first,
        closing(Folders(tmp_path / "b", mirror=True)) as second,
    ):
        first.put("EMP-1", array(1))
        first.look()
        [asked] = first.asked
        first.answer(asked)
        for device in (first, second):
            device.hold({"EMP-1": [asked.vector]})
            device.look()
            device.look()
        assert second.names() == ["EMP-1.npy"]
        assert np.load(second.file("EMP-1")).tobytes() == asked.vector
        assert (len(first.asked), second.asked) == (1, [])


# The thread


def test_the_thread_takes_in_a_change_at_once_and_ends_when_it_is_told(tmp_path):
    """Not only at the next look: the clock stands still."""
    with closing(Folders(tmp_path, mirror=True)) as folders:
        folders.watch.start()
        folders.hold({"EMP-1": [vector(1)]})
        wait_until(lambda: folders.names() == ["EMP-1.npy"], "the file of who is held")
        folders.hold({})
        wait_until(lambda: folders.names() == [], "no file of who is gone")
        thread = folders.watch._thread
        folders.watch.stop()
        assert not thread.is_alive()


def test_an_unexpected_error_does_not_end_the_thread(tmp_path, caplog):
    """It is said, and the folders are looked at again."""
    with closing(Folders(tmp_path, mirror=True)) as folders:
        failing = fails(ValueError("unexpected"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("device.npy_folders.mirror.write_npy", failing)
            folders.hold({"EMP-1": [vector(1)]})
            folders.watch.start()
            wait_until(lambda: "unexpected error" in caplog.text, "a word in the log")
        folders.watch.wake()
        wait_until(lambda: folders.names() == ["EMP-1.npy"], "the file")
        folders.watch.stop()
