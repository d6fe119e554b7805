"""Draw steps: names of SyncWorld's methods with their arguments."""

from typing import Any

from hypothesis import strategies as st

from broker_bridge.registry.identities.model import DeleteIdentity, EnrollIdentity, Template
from tests.device_samples import vector

Step = tuple[Any, ...]

FACE, OTHER_FACE, GAIT = "face:test-8", "face:other-8", "gait:test-4"
DIMENSIONS = {FACE: 8, OTHER_FACE: 8, GAIT: 4}
USERS = [f"P{n}" for n in range(4)]
SITES = ["lobby", "gate"]

_users = st.sampled_from(USERS)
# One device is drawn most often, since faults concern a device that misses messages.
_cameras = st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3])
_flags = st.sampled_from([None, None, "", "red"])
_names = st.sampled_from([None, None, "", "Ana", 'Zoë "Z" \x7f 😀'])
_sites = st.sampled_from([None, None, None, (), ("lobby",), ("gate",), ("lobby", "gate")])
_consents = st.none() | st.dictionaries(
    st.sampled_from(["face", "gait", "speaker"]), st.booleans(), min_size=1, max_size=2
)
# Ten vectors per space repeat often and reach the limit of templates.
_templates = st.builds(
    lambda space, seed, quality: Template(space, vector(seed, DIMENSIONS[space]), quality, "test"),
    st.sampled_from([FACE, FACE, OTHER_FACE, GAIT]),
    st.integers(0, 9),
    st.sampled_from([None, 0.2, 0.9]),
)
_enrollments = st.builds(
    EnrollIdentity,
    _users,
    templates=st.lists(_templates, max_size=4).map(tuple),
    replace_modality=st.sampled_from([None, None, "face", "gait"]),
    display_name=_names,
    flag=_flags,
    sites=_sites,
    consent=_consents,
)
_deletions = st.builds(DeleteIdentity, _users)
_identity_changes = st.lists(st.one_of(_enrollments, _enrollments, _deletions), min_size=1, max_size=4)

_CHANGES: list[st.SearchStrategy[Step]] = [
    st.tuples(st.just("apply_changes"), _enrollments.map(lambda change: [change])),
    st.tuples(st.just("apply_changes"), _identity_changes),
    st.tuples(st.just("apply_changes"), _deletions.map(lambda change: [change])),
    st.tuples(st.just("remove_modality"), _users, st.sampled_from(["face", "gait"])),
    st.tuples(st.just("restore"), _users),
    st.tuples(st.just("merge"), _users, _users),
    st.tuples(st.just("unmerge"), _users),
    st.tuples(st.just("purge"), st.integers(1, 4)),
    st.tuples(st.just("delete_and_purge"), _users),
]
_change = st.one_of(_CHANGES)
_rare = st.one_of(
    st.tuples(st.just("begin_epoch")),
    st.tuples(st.just("back_up")),
    st.tuples(st.just("restore_backup")),
    st.tuples(st.just("restart_bridge")),
    st.tuples(st.just("disconnect_broker")),
    st.tuples(st.just("reconnect_broker")),
)
_network = st.one_of(
    st.tuples(st.just("deliver"), _cameras, st.integers(0, 5)),
    st.tuples(st.just("deliver_all"), _cameras),
    st.tuples(st.just("repeat"), _cameras, st.integers(0, 5)),
    st.tuples(st.just("lose_message"), _cameras, st.integers(0, 5)),
    st.tuples(st.just("answer"), _cameras, st.integers(0, 3)),
    st.tuples(st.just("answer"), _cameras, st.just(0)),
    st.tuples(st.just("answer_during_change"), _cameras, _change),
    st.tuples(st.just("connect"), _cameras),
    st.tuples(st.just("restart"), _cameras),
    st.tuples(st.just("catch_up"), _cameras),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 30.0, 1500.0])),
)
_publish = st.tuples(st.just("publish_changes"))

_step = st.one_of(_change, _change, _publish, _network, _network, _network, _rare)
# Lists without a fixed length would mostly have a handful of steps, too few for faults.
_later = st.integers(0, 60).flatmap(lambda length: st.lists(_step, min_size=length, max_size=length))


def _begin(seed: int) -> list[Step]:
    """Return the steps that enroll one identity and sync every device."""
    enrollments = [
        EnrollIdentity(user_id, templates=tuple(sample(space, seed + n) for space in DIMENSIONS))
        for n, user_id in enumerate(USERS[:3])
    ]
    return [
        ("apply_changes", enrollments),
        ("publish_changes",),
        *(("catch_up", camera) for camera in range(4)),
    ]


def sample(space: str, seed: int) -> Template:
    """Return a template that depends on the seed alone, except for its id."""
    return Template(space, vector(seed, DIMENSIONS[space]), 0.9, "test")


steps = st.builds(
    lambda with_gallery, seed, later: [*(_begin(seed) if with_gallery else []), *later],
    st.sampled_from([True, True, True, False]),
    st.integers(0, 5),
    _later,
)
