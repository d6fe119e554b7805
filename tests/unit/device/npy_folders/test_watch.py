"""The watched folders of a device, with real files, database and scripted answers."""

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
    """The watched folders of a device; a second one on the same path is a restart."""

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
        self.set_gallery(people or {})
        self.set_gallery({}, GAIT, 6)
        self.watch.step()

    def close(self):
        self.db.close()

    def file(self, user_id, folder="face_db"):
        return self.path / folder / f"{user_id}.npy"

    def put(self, user_id, array, folder="face_db"):
        with self.file(user_id, folder).open("wb") as file:
            np.save(file, array)

    def set_gallery(self, people, space=SPACE, dimension=DIMENSION):
        """Set the gallery of `space` to `{user_id: [vector, ...]}`."""
        pairs = [(user_id, vector) for user_id, vectors in people.items() for vector in vectors]
        vectors = np.array([to_array(template) for _, template in pairs], dtype=np.float32).reshape(
            -1, dimension
        )
        self.rows.update(GalleryRows(space, dimension, [user_id for user_id, _ in pairs], vectors, 1))

    def scan(self):
        """Advance the clock to the next scan and run it."""
        self.clock.advance(WATCH_SECONDS)
        self.watch.step()
        self.registrations.tick(self.clock())

    @property
    def requests(self):
        """Return each registration once, in the order of the first send."""
        return list({request.request_id: request for request in self.link.of(channels.REGISTER)}.values())

    def answer(self, request, result="created", user_id=None, error=None):
        message = Registered(
            request_id=request.request_id, result=result, user_id=user_id or request.user_id, error=error
        )
        self.registrations.receive_message(Decoded(channels.REGISTERED, {}, message))
        self.watch.step()

    @property
    def problem(self):
        """Return the detail of the problem `file-invalid`, empty without one."""
        return "".join(problem.detail for problem in self.health.problems() if problem.code == "file-invalid")

    def names(self, folder="face_db"):
        return sorted(file.name for file in (self.path / folder).iterdir())


@pytest.fixture
def folders(tmp_path):
    with closing(Folders(tmp_path)) as folders:
        yield folders


@pytest.fixture
def mirror(tmp_path):
    with closing(Folders(tmp_path, mirror=True)) as folders:
        yield folders


def array(seed, dimension=DIMENSION):
    """Return a vector that is not of unit length."""
    return 3 * to_array(vector(seed, dimension))


# Inward


def test_the_folders_are_made_for_their_owner_alone(folders):
    """All three folders exist, also the one of an unsupported modality."""
    assert sorted(file.name for file in folders.path.iterdir()) == ["face_db", "gait_db", "speaker_db"]
    assert {file.stat().st_mode & 0o777 for file in folders.path.iterdir()} == {0o700}


def test_a_new_file_is_registered_at_the_next_scan(folders):
    """It is registered once, as an employee named by the file, in the folder's space."""
    folders.put("EMP-1", array(1))
    folders.put("EMP-2", array(2, 6).reshape(1, 6), "gait_db")
    folders.scan()
    face, gait = folders.requests
    assert (face.user_id, face.space, face.kind, face.display_name) == ("EMP-1", SPACE, "employee", None)
    assert np.allclose(to_array(face.vector), to_array(vector(1)))
    assert (gait.user_id, gait.space) == ("EMP-2", GAIT)
    folders.answer(face, "created")
    folders.answer(gait, "exists")
    for _ in range(3):
        folders.scan()
    assert len(folders.requests) == 2
    assert (folders.watch.counts, folders.problem) == ({"registered": 2}, "")
    assert folders.registrations.counts == {}


def test_a_changed_file_is_registered_again_and_a_touched_file_is_not(folders):
    """Each content is registered once."""
    folders.put("EMP-1", array(1))
    folders.scan()
    folders.answer(folders.requests[0])
    os.utime(folders.file("EMP-1"), (1, 1))
    folders.scan()
    assert len(folders.requests) == 1
    folders.put("EMP-1", array(2))
    folders.scan()
    assert [request.user_id for request in folders.requests] == ["EMP-1", "EMP-1"]
    assert np.allclose(to_array(folders.requests[1].vector), to_array(vector(2)))


def test_after_a_restart_nothing_is_registered_again(folders, tmp_path):
    """Answered and pending registrations are both known after the restart."""
    folders.put("EMP-1", array(1))
    folders.put("EMP-2", array(2))
    folders.scan()
    folders.answer(folders.requests[0])
    waiting = folders.requests[1]
    folders.close()
    with closing(Folders(tmp_path, folders.clock)) as again:
        again.scan()
        assert [request.request_id for request in again.requests] == [waiting.request_id]
        again.answer(waiting)
        again.scan()
        assert len(again.requests) == 1
        assert again.watch.counts == {"registered": 1}


def test_a_file_that_was_removed_and_put_back_is_registered_again(folders):
    """Removing a file deletes no identity."""
    folders.put("EMP-1", array(1))
    folders.scan()
    folders.answer(folders.requests[0])
    folders.file("EMP-1").unlink()
    folders.scan()
    folders.put("EMP-1", array(1))
    folders.scan()
    assert len(folders.requests) == 2


def test_a_missing_folder_is_a_problem_and_registers_nothing_again(folders):
    """An unmounted folder is not created again, and its files are known afterwards."""
    folders.put("EMP-1", array(1))
    folders.scan()
    folders.answer(folders.requests[0])
    folder = folders.path / "face_db"
    folder.rename(folders.path / "away")
    folders.scan()
    assert folders.problem == "face_db: cannot be read (No such file or directory)"
    (folders.path / "away").rename(folder)
    folders.scan()
    assert (len(folders.requests), folders.problem) == (1, "")


def test_a_vector_of_the_gallery_is_not_registered(folders):
    """A file copied from another device may have any of the identity's templates."""
    folders.set_gallery({"EMP-1": [vector(1), vector(2)]})
    folders.put("EMP-1", array(2))
    folders.put("EMP-2", array(1))
    folders.scan()
    assert [request.user_id for request in folders.requests] == ["EMP-2"]


def test_before_the_first_sync_nothing_is_registered(tmp_path):
    """A device that lost its database must not register its old files."""
    with closing(Folders(tmp_path, synced=False)) as folders:
        folders.put("EMP-1", array(1))
        folders.put("EMP-2", array(2))
        folders.scan()
        assert folders.requests == []
        folders.synced = True
        folders.set_gallery({"EMP-1": [vector(1)]})
        folders.scan()
        assert [request.user_id for request in folders.requests] == ["EMP-2"]


def test_ids_that_differ_by_case_are_two_identities(folders):
    """The registry distinguishes case too."""
    folders.put("EMP-1", array(1))
    folders.put("emp-1", array(2))
    folders.scan()
    assert {request.user_id for request in folders.requests} == {"EMP-1", "emp-1"}


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
def test_a_refused_file_is_a_problem_until_it_changes(folders, answer, sentence):
    """The first device wins. The file stays, and is not registered again."""
    folders.put("EMP-1", array(1))
    folders.scan()
    folders.answer(folders.requests[0], **answer)
    assert folders.problem == f"face_db/EMP-1.npy: {sentence}"
    os.utime(folders.file("EMP-1"), (1, 1))
    folders.scan()
    folders.scan()
    assert folders.problem == f"face_db/EMP-1.npy: {sentence}"
    assert (len(folders.requests), folders.watch.counts) == (1, {"refused": 1})
    folders.put("EMP-1", array(2))
    folders.scan()
    assert (len(folders.requests), folders.problem) == (2, "")


def test_a_refused_file_is_registered_again_after_a_restart(folders, tmp_path):
    """The site's policy may have changed."""
    folders.put("EMP-1", array(1))
    folders.scan()
    refused = WireError(code="enrollment-closed", detail="closed")
    folders.answer(folders.requests[0], "rejected", error=refused)
    folders.close()
    with closing(Folders(tmp_path, folders.clock)) as again:
        again.scan()
        assert [request.user_id for request in again.requests] == ["EMP-1"]


def test_a_registration_without_an_answer_for_a_day_is_sent_again(folders):
    """The file is still in the folder."""
    folders.put("EMP-1", array(1))
    folders.scan()
    folders.clock.advance(2 * 86_400)
    folders.registrations.tick(folders.clock())
    folders.scan()
    assert [request.user_id for request in folders.requests] == ["EMP-1", "EMP-1"]


def test_thousands_of_files_are_registered_in_bounded_numbers(folders):
    """Each answer makes room for the next registration."""
    for seed in range(MAX_PENDING + 10):
        folders.put(f"EMP-{seed}", array(seed))
    folders.scan()
    assert len(folders.requests) == MAX_PENDING
    for request in folders.requests[:10]:
        folders.answer(request)
    folders.registrations.tick(folders.clock())
    assert len({request.user_id for request in folders.requests}) == MAX_PENDING + 10


# Problems


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
def test_an_invalid_file_stays_in_place_and_is_reported(folders, caplog, user_id):
    """It is logged once, by name and without its numbers.

    The problem ends when the file is corrected.
    """
    data, sentence = WRONG[user_id]
    folders.put(user_id, data)
    before = folders.file(user_id).read_bytes()
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            folders.scan()
    assert folders.problem.startswith(f"face_db/{user_id}.npy: ")
    assert sentence in folders.problem
    assert [record.message for record in caplog.records if "stays where it is" in record.message] == [
        (
            f"folder file ignored; it stays where it is folder=face_db file='{user_id}.npy' "
            f"reason={folders.problem.partition(': ')[2]!r}"
        )
    ]
    assert folders.file(user_id).read_bytes() == before
    assert (folders.requests, folders.watch.counts) == ([], {"invalid": 1})
    folders.put(user_id, array(2))
    folders.scan()
    assert folders.problem == ""
    assert [request.user_id for request in folders.requests] == [user_id]


@pytest.mark.parametrize("stem", [".", "a b", "x+y", "#", "", "-EMP", "café", "EMP-1\n", "x" * 129, "\udcff"])
def test_a_name_that_is_no_user_id_is_a_problem_until_it_is_removed(folders, stem):
    """The names have dots, blanks, similar letters or bytes that are no text."""
    folders.put(stem, array(1))
    folders.scan()
    assert "its name is not a user id" in folders.problem
    assert folders.problem.isprintable()
    assert folders.requests == []
    folders.file(stem).unlink()
    folders.scan()
    assert (folders.problem, folders.watch.counts) == ("", {"invalid": 1})


def test_other_suffixes_are_ignored(folders):
    """Notes, temporary files and another case are no problem."""
    for name in ("README", "EMP-1.npy.part", "EMP-1.NPY", ".EMP-1.swp"):
        (folders.path / "face_db" / name).write_text("hello")
    folders.scan()
    folders.scan()
    assert (folders.problem, folders.requests) == ("", [])


def test_a_link_is_not_followed(folders, tmp_path):
    """The target may be a file that the folder's owner must not read."""
    (tmp_path / "elsewhere").write_bytes(to_npy(vector(1)))
    folders.file("EMP-1").symlink_to(tmp_path / "elsewhere")
    folders.scan()
    folders.scan()
    assert folders.problem == "face_db/EMP-1.npy: it is a symbolic link; links are not followed"
    assert folders.requests == []


def test_an_unreadable_file_is_a_problem(folders):
    """Another user may have copied it."""
    folders.put("EMP-1", array(1))
    folders.file("EMP-1").chmod(0)
    if os.access(folders.file("EMP-1"), os.R_OK):
        pytest.skip("root reads everything")
    folders.scan()
    folders.scan()
    assert folders.problem == "face_db/EMP-1.npy: it cannot be read (Permission denied)"


def test_a_half_written_file_is_waited_for(folders):
    """A growing file is no problem, and is registered when it is complete."""
    whole = to_npy(vector(1))
    for length in (0, 10, 140, len(whole) - 1):
        folders.file("EMP-1").write_bytes(whole[:length])
        folders.scan()
        folders.rows.update(folders.rows.latest(SPACE))
        folders.watch.step()
        assert (folders.problem, folders.requests) == ("", [])
    folders.file("EMP-1").write_bytes(whole)
    folders.scan()
    assert [request.user_id for request in folders.requests] == ["EMP-1"]


def test_a_file_that_stays_half_written_is_a_problem_at_the_second_scan(folders):
    """The copy was interrupted."""
    folders.file("EMP-1").write_bytes(to_npy(vector(1))[:-4])
    folders.scan()
    assert folders.problem == ""
    folders.scan()
    assert "it is incomplete: 28 bytes of numbers, expected 32" in folders.problem


def test_a_folder_without_a_supported_space_names_the_setting(folders):
    """Its files are not taken for vectors of another space."""
    folders.put("EMP-1", array(1), "speaker_db")
    folders.scan()
    folders.scan()
    assert "supports no speaker space; add one to device.further_spaces" in folders.problem


def test_many_problems_make_one_sentence_of_bounded_length(folders):
    """The detail names the first files and counts the others, for the heartbeat."""
    for number in range(300):
        folders.file(f"EMP-{number:03}" + "x" * 100).write_bytes(b"")
    folders.scan()
    folders.scan()
    assert len(folders.problem) < 1000
    assert folders.problem.endswith("; and 295 more")


def test_a_failing_database_is_a_problem_and_is_tried_again(folders):
    """The file is registered when the database works again."""
    folders.put("EMP-1", array(1))
    folders.db.close()
    folders.scan()
    assert "not open" in folders.problem
    folders.db.initialize()
    folders.scan()
    assert folders.problem == ""
    assert [request.user_id for request in folders.requests] == ["EMP-1"]


# Outward


def test_without_a_mirror_no_file_is_written(folders):
    """Vectors stay in the database by default."""
    folders.set_gallery({"EMP-1": [vector(1)]})
    folders.scan()
    assert folders.names() == []


def test_the_mirror_follows_the_gallery_at_once(mirror):
    """The first template is written as float32[d] for the owner alone, before a scan."""
    mirror.set_gallery({"EMP-1": [vector(1), vector(2)], "EMP-2": [vector(3)]})
    mirror.set_gallery({"EMP-1": [vector(4, 6)]}, GAIT, 6)
    mirror.watch.step()
    assert mirror.names() == ["EMP-1.npy", "EMP-2.npy"]
    assert mirror.names("gait_db") == ["EMP-1.npy"]
    shown = np.load(mirror.file("EMP-1"), allow_pickle=False)
    assert (shown.dtype, shown.tobytes()) == (np.float32, vector(1))
    assert mirror.file("EMP-1").stat().st_mode & 0o777 == 0o600
    mirror.set_gallery({"EMP-2": [vector(5)]})
    mirror.watch.step()
    assert mirror.names() == ["EMP-2.npy"]
    assert np.load(mirror.file("EMP-2")).tobytes() == vector(5)


def test_a_file_of_the_mirror_is_not_registered(mirror, tmp_path):
    """The mirror holds its own files back: scanned or touched, or after a restart.

    It also holds if the identity was removed meanwhile.
    """
    mirror.set_gallery({"EMP-1": [vector(1)], "EMP-2": [vector(2)]})
    mirror.watch.step()
    os.utime(mirror.file("EMP-1"), (1, 1))
    mirror.scan()
    mirror.set_gallery({"EMP-1": [vector(3)], "EMP-2": [vector(2)]})
    mirror.watch.step()
    mirror.scan()
    assert np.load(mirror.file("EMP-1")).tobytes() == vector(3)
    mirror.close()
    with closing(Folders(tmp_path, mirror.clock, mirror=True, people={"EMP-1": [vector(3)]})) as again:
        again.scan()
        again.scan()
        assert (again.names(), again.requests) == (["EMP-1.npy"], [])
    assert mirror.requests == []


def test_a_deleted_file_of_the_mirror_is_written_again(mirror):
    """The next scan restores it while the identity is in the gallery."""
    mirror.set_gallery({"EMP-1": [vector(1)]})
    mirror.watch.step()
    mirror.file("EMP-1").unlink()
    mirror.scan()
    assert (mirror.names(), mirror.requests) == (["EMP-1.npy"], [])


def test_a_file_of_another_program_is_neither_replaced_nor_removed(mirror, tmp_path):
    """It stays after registration, changes and deletion, also over a restart."""
    mirror.put("EMP-1", array(1))
    theirs = mirror.file("EMP-1").read_bytes()
    mirror.scan()
    mirror.answer(mirror.requests[0])
    for people in ({"EMP-1": [vector(1)]}, {"EMP-1": [vector(2)]}, {}):
        mirror.set_gallery(people)
        mirror.watch.step()
        mirror.scan()
        assert mirror.file("EMP-1").read_bytes() == theirs
    mirror.close()
    with closing(Folders(tmp_path, mirror.clock, mirror=True)) as again:
        again.scan()
        assert again.file("EMP-1").read_bytes() == theirs
        assert again.requests == []


def test_a_replaced_file_of_the_mirror_is_registered(mirror):
    """A new vector of a known identity then belongs to the other program."""
    mirror.set_gallery({"EMP-1": [vector(1)]})
    mirror.watch.step()
    mirror.put("EMP-1", array(2))
    mirror.scan()
    assert [request.user_id for request in mirror.requests] == ["EMP-1"]
    mirror.answer(mirror.requests[0], "exists")
    mirror.set_gallery({})
    mirror.watch.step()
    mirror.scan()
    assert mirror.names() == ["EMP-1.npy"]


def test_the_mirror_does_not_undo_a_change_since_the_last_scan(mirror):
    """The mirror leaves the replaced file, and the next scan registers it."""
    mirror.set_gallery({"EMP-1": [vector(1)], "EMP-2": [vector(2)]})
    mirror.watch.step()
    mirror.put("EMP-1", array(5))
    mirror.put("EMP-2", array(6))
    mirror.put("EMP-3", array(7))
    mirror.set_gallery({"EMP-1": [vector(3)], "EMP-3": [vector(4)]})
    mirror.watch.step()
    assert np.load(mirror.file("EMP-1")).tobytes() == array(5).tobytes()
    assert np.load(mirror.file("EMP-2")).tobytes() == array(6).tobytes()
    mirror.scan()
    assert {request.user_id for request in mirror.requests} == {"EMP-1", "EMP-2", "EMP-3"}


def test_a_touched_file_of_the_mirror_is_replaced_at_the_next_scan(mirror):
    """The identity's template changed after the file was touched."""
    mirror.set_gallery({"EMP-1": [vector(1)]})
    mirror.watch.step()
    os.utime(mirror.file("EMP-1"), (1, 1))
    mirror.set_gallery({"EMP-1": [vector(2)]})
    mirror.watch.step()
    mirror.scan()
    assert np.load(mirror.file("EMP-1")).tobytes() == vector(2)
    assert mirror.requests == []


def test_a_mirror_that_is_switched_off_removes_its_files(mirror, tmp_path):
    """Files of other programs stay, and so does the gallery."""
    mirror.put("EMP-9", array(9))
    mirror.set_gallery({"EMP-1": [vector(1)]})
    mirror.set_gallery({"EMP-1": [vector(4, 6)]}, GAIT, 6)
    mirror.scan()
    mirror.answer(mirror.requests[0])
    mirror.close()
    no_gait = {**SPACES, "gait": None}
    with closing(Folders(tmp_path, mirror.clock, spaces=no_gait, people={"EMP-1": [vector(1)]})) as off:
        off.scan()
        assert (off.names(), off.names("gait_db"), off.requests) == (["EMP-9.npy"], [], [])


def test_an_empty_file_after_a_power_cut_is_written_again(mirror, tmp_path):
    """It is still the mirror's file, and no problem stays."""
    mirror.set_gallery({"EMP-1": [vector(1)], "EMP-2": [vector(2)]})
    mirror.watch.step()
    mirror.close()
    for user_id in ("EMP-1", "EMP-2"):
        mirror.file(user_id).write_bytes(b"")
    with closing(Folders(tmp_path, mirror.clock, mirror=True, people={"EMP-1": [vector(1)]})) as again:
        for _ in range(3):
            again.scan()
        assert (again.names(), again.problem) == (["EMP-1.npy"], "")
        assert np.load(again.file("EMP-1")).tobytes() == vector(1)


def test_a_crash_between_note_and_file_leaves_nothing_to_register(mirror, tmp_path):
    """The content is stored before the file, so either content is the mirror's."""
    mirror.set_gallery({"EMP-1": [vector(1)]})
    mirror.watch.step()
    before = mirror.file("EMP-1").read_bytes()
    mirror.set_gallery({"EMP-1": [vector(2)]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("device.npy_folders.mirror.write_npy", raising(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            mirror.watch.step()
    mirror.close()
    assert mirror.file("EMP-1").read_bytes() == before
    with closing(Folders(tmp_path, mirror.clock, mirror=True, people={"EMP-1": [vector(2)]})) as again:
        again.scan()
        assert np.load(again.file("EMP-1")).tobytes() == vector(2)
        assert again.requests == []


def raising(error):
    def write(*_):
        raise error

    return write


def test_a_full_disk_is_a_problem_until_there_is_room(mirror, monkeypatch):
    """All files are written afterwards."""
    mirror.set_gallery({"EMP-1": [vector(1)], "EMP-2": [vector(2)]})
    with monkeypatch.context() as patch:
        patch.setattr("device.npy_folders.mirror.write_npy", raising(OSError(28, "No space left on device")))
        mirror.watch.step()
    assert mirror.problem == "face_db: cannot be written to (No space left on device)"
    mirror.scan()
    assert (mirror.names(), mirror.problem) == (["EMP-1.npy", "EMP-2.npy"], "")


def test_a_file_of_one_device_is_mirrored_by_another(tmp_path):
    """The first device keeps its file unchanged, and nothing is registered twice."""
    with (
        closing(Folders(tmp_path / "a", mirror=True)) as first,
        closing(Folders(tmp_path / "b", mirror=True)) as second,
    ):
        first.put("EMP-1", array(1))
        first.scan()
        [request] = first.requests
        first.answer(request)
        for device in (first, second):
            device.set_gallery({"EMP-1": [request.vector]})
            device.scan()
            device.scan()
        assert second.names() == ["EMP-1.npy"]
        assert np.load(second.file("EMP-1")).tobytes() == request.vector
        assert (len(first.requests), second.requests) == (1, [])


# The thread


def test_the_thread_mirrors_a_change_at_once_and_stops(tmp_path):
    """The clock stands still, so no scan is due."""
    with closing(Folders(tmp_path, mirror=True)) as folders:
        folders.watch.start()
        folders.set_gallery({"EMP-1": [vector(1)]})
        wait_until(lambda: folders.names() == ["EMP-1.npy"], "the file of the identity")
        folders.set_gallery({})
        wait_until(lambda: folders.names() == [], "no file of the removed identity")
        thread = folders.watch._thread
        folders.watch.stop()
        assert not thread.is_alive()


def test_an_unexpected_error_does_not_end_the_thread(tmp_path, caplog):
    """The error is logged, and the folders are scanned again."""
    with closing(Folders(tmp_path, mirror=True)) as folders:
        failing = raising(ValueError("unexpected"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("device.npy_folders.mirror.write_npy", failing)
            folders.set_gallery({"EMP-1": [vector(1)]})
            folders.watch.start()
            wait_until(lambda: "unexpected error" in caplog.text, "an error in the log")
        folders.watch.wake()
        wait_until(lambda: folders.names() == ["EMP-1.npy"], "the file")
        folders.watch.stop()
