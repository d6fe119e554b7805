"""The rows of the gallery: people, templates, digest. Every function runs in the caller's transaction."""

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from broker_bridge.contract.digest import Digest, template_hash
from broker_bridge.contract.embeddings import Vector
from broker_bridge.contract.messages import Upsert

Digests = dict[str, Digest]

# So many that a block of them stays in the cache until it has been copied.
_ROWS_AT_ONCE = 16

LOCAL = "local"
"""How the ids of templates begin that were enrolled on the device itself."""

# Whole people only: a person's first template, and everything that is told of the person.
PUT_FIRST = """
    INSERT INTO enrolled_users (user_id, display_name, model, detector, embedding, embedding_dim,
                                sync_version, synced_at, created_at, template_id, space, quality, flag)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, ?9, ?10, ?11, ?12)
    ON CONFLICT (user_id) DO UPDATE SET
        display_name = excluded.display_name, model = excluded.model, detector = excluded.detector,
        embedding = excluded.embedding, embedding_dim = excluded.embedding_dim,
        sync_version = excluded.sync_version, synced_at = excluded.synced_at,
        template_id = excluded.template_id, space = excluded.space, quality = excluded.quality,
        flag = excluded.flag
"""
PUT_FURTHER = """
    INSERT INTO additional_templates (user_id, template_id, space, model, embedding, embedding_dim, quality)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
# ?1 is a JSON list of user ids.
_THEIR_TEMPLATES = """
    SELECT user_id, template_id, space, embedding FROM enrolled_users
    WHERE user_id IN (SELECT value FROM json_each(?1))
    UNION ALL
    SELECT user_id, template_id, space, embedding FROM additional_templates
    WHERE user_id IN (SELECT value FROM json_each(?1))
"""
_DROP_FURTHER = "DELETE FROM additional_templates WHERE user_id IN (SELECT value FROM json_each(?1))"
_DROP_PEOPLE = "DELETE FROM enrolled_users WHERE user_id IN (SELECT value FROM json_each(?1))"
# ?1: whether people who were enrolled on this device stay.
_CLEAR = (
    "DELETE FROM additional_templates WHERE NOT (?1 AND template_id GLOB ?2)",
    "DELETE FROM enrolled_users WHERE NOT (?1 AND template_id GLOB ?2)",
)


def model_of(space: str) -> str:
    """The model part of a space id: `arcface-w600k-r50` of `face:arcface-w600k-r50`."""
    return space.partition(":")[2]


def moved(digests: Mapping[str, Digest], gained: Digests, lost: Digests) -> Digests:
    """Per space, the digest after a change; a space without templates has no entry."""
    total = {
        space: digests.get(space, Digest()).plus(gained.get(space, Digest())).minus(lost.get(space, Digest()))
        for space in digests.keys() | gained.keys() | lost.keys()
    }
    return {space: digest for space, digest in total.items() if digest != Digest()}


def is_counted(template_id: str, dev_mode: bool) -> bool:
    """Whether a template is in the digests, which the registry knows: in dev mode the device's own is not."""
    return not (dev_mode and template_id.startswith(LOCAL))


def add_people(
    connection: sqlite3.Connection,
    upserts: Sequence[Upsert],
    synced_at: str,
    dev_mode: bool,
    detector: str | None = None,
) -> Digests:
    """Write templates of different people, return the change of the digests; `remove_people` comes before."""
    connection.executemany(
        PUT_FIRST,
        [
            (
                one.user_id, one.display_name if dev_mode else None, model_of(first.space), detector,
                first.vector, len(first.vector) // 4, one.version, synced_at, first.template_id, first.space,
                first.quality, one.flag,
            )
            for one in upserts
            for first in one.templates[:1]
        ],
    )  # fmt: skip
    connection.executemany(
        PUT_FURTHER,
        [
            (
                one.user_id, further.template_id, further.space, model_of(further.space), further.vector,
                len(further.vector) // 4, further.quality,
            )
            for one in upserts
            for further in one.templates[1:]
        ],
    )  # fmt: skip
    return _sum(
        (
            (one.user_id, held.template_id, held.space, held.vector)
            for one in upserts
            for held in one.templates
        ),
        dev_mode,
    )


def remove_people(
    connection: sqlite3.Connection, user_ids: Sequence[str], replaced: Sequence[str], dev_mode: bool
) -> Digests | None:
    """Delete the templates of `user_ids` and of those who are `replaced`, whose rows are kept.

    Returns what the digests lose, None if nobody was there.
    """
    found = connection.execute(_THEIR_TEMPLATES, (json.dumps([*user_ids, *replaced]),)).fetchall()
    if not found:
        return None
    present = {row[0] for row in found}
    connection.execute(_DROP_FURTHER, (json.dumps(list(present)),))
    gone = [user_id for user_id in user_ids if user_id in present]
    if gone:
        connection.execute(_DROP_PEOPLE, (json.dumps(gone),))
    return _sum(found, dev_mode)


def clear(connection: sqlite3.Connection, dev_mode: bool) -> None:
    """Delete everybody, in dev mode but for people who were enrolled on this device."""
    for statement in _CLEAR:
        connection.execute(statement, (dev_mode, f"{LOCAL}*"))
    write_digests(connection, compute_digests(connection, dev_mode))


def is_empty(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM enrolled_users LIMIT 1").fetchone() is None


def compute_digests(connection: sqlite3.Connection, dev_mode: bool) -> Digests:
    """Per space, the digest of the rows as they are now, bit flips included."""
    return _sum(
        connection.execute("SELECT user_id, template_id, space, embedding FROM gallery_templates"), dev_mode
    )


def _sum(rows: Iterable[tuple[str, str, str, bytes]], dev_mode: bool) -> Digests:
    counts: Counter[str] = Counter()
    values: dict[str, int] = defaultdict(int)
    for user_id, template_id, space, vector in rows:
        if is_counted(template_id, dev_mode):
            counts[space] += 1
            values[space] ^= template_hash(user_id, space, vector)
    return {space: Digest(count, values[space]) for space, count in counts.items()}


def is_local(connection: sqlite3.Connection, user_id: str) -> bool | None:
    """Whether the person was enrolled on this device; None for somebody who is not here."""
    row = connection.execute(
        "SELECT template_id FROM enrolled_users WHERE user_id = ?", (user_id,)
    ).fetchone()
    return row[0].startswith(LOCAL) if row else None


def read_digests(connection: sqlite3.Connection) -> Digests:
    rows = connection.execute("SELECT space, count, digest FROM gallery_digests")
    return {space: Digest(count, int(digest, 16)) for space, count, digest in rows}


def write_digests(connection: sqlite3.Connection, digests: Mapping[str, Digest]) -> None:
    connection.execute("DELETE FROM gallery_digests")
    connection.executemany(
        "INSERT INTO gallery_digests (space, count, digest) VALUES (?, ?, ?)",
        [(space, digest.count, digest.hex) for space, digest in digests.items()],
    )


def load_gallery(connection: sqlite3.Connection, space: str) -> tuple[list[str], Vector]:
    """User ids and vectors (float32[n,d]) of `space`, of which `d` is the first row's dimension.

    Rows of another length are drift: they are left out.
    """
    # At most so many, whatever their space: counted in the indexes, since counting rows would read the whole
    # file once more. Memory that no row comes to is never touched.
    (most,) = connection.execute(
        "SELECT (SELECT COUNT(*) FROM enrolled_users) + (SELECT COUNT(*) FROM additional_templates)"
    ).fetchone()
    selected = "FROM gallery_templates WHERE space = ?"
    first = connection.execute(f"SELECT length(embedding) {selected} LIMIT 1", (space,)).fetchone()
    if first is None:
        return [], np.empty((0, 0), dtype=np.float32)
    user_ids: list[str] = []
    vectors = np.empty((most, first[0] // 4), dtype="<f4")
    target = vectors.reshape(-1).view(np.uint8).data
    with _pages_read_once(connection):
        rows = connection.execute(
            f"SELECT user_id, embedding {selected} AND length(embedding) = ?", (space, vectors.strides[0])
        )
        while block := rows.fetchmany(_ROWS_AT_ONCE):
            start = len(user_ids) * vectors.strides[0]
            owners, blobs = zip(*block, strict=True)
            data = b"".join(blobs)
            target[start : start + len(data)] = data
            user_ids.extend(owners)
    return user_ids, vectors[: len(user_ids)]


@contextmanager
def _pages_read_once(connection: sqlite3.Connection) -> Iterator[None]:
    """Keep hardly any pages: nobody comes back to them, and they push rows out of the processor's cache."""
    (kept,) = connection.execute("PRAGMA cache_size").fetchone()
    connection.execute("PRAGMA cache_size = -64")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA cache_size = {kept}")
