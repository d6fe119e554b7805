"""The rows of the gallery: identities, templates, digests.

Every function runs in the caller's transaction.
"""

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

# A block of this size stays in the processor's cache until it is copied.
_ROWS_AT_ONCE = 16

LOCAL = "local"
"""The prefix of template ids that were enrolled on the device itself."""

# A row is an identity: its first template and its own fields.
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
_TEMPLATES_OF = """
    SELECT user_id, template_id, space, embedding FROM enrolled_users
    WHERE user_id IN (SELECT value FROM json_each(?1))
    UNION ALL
    SELECT user_id, template_id, space, embedding FROM additional_templates
    WHERE user_id IN (SELECT value FROM json_each(?1))
"""
_DROP_FURTHER = "DELETE FROM additional_templates WHERE user_id IN (SELECT value FROM json_each(?1))"
_DROP_IDENTITIES = "DELETE FROM enrolled_users WHERE user_id IN (SELECT value FROM json_each(?1))"
# ?1: whether identities that were enrolled on this device stay.
_CLEAR = (
    "DELETE FROM additional_templates WHERE NOT (?1 AND template_id GLOB ?2)",
    "DELETE FROM enrolled_users WHERE NOT (?1 AND template_id GLOB ?2)",
)


def model_of(space: str) -> str:
    """Return the model of a space id.

    The model of `face:arcface-w600k-r50` is `arcface-w600k-r50`.
    """
    return space.partition(":")[2]


def change_digests(digests: Mapping[str, Digest], gained: Digests, lost: Digests) -> Digests:
    """Return the digest of each space after a change.

    A space without templates has none.
    """
    total = {
        space: digests.get(space, Digest()).plus(gained.get(space, Digest())).minus(lost.get(space, Digest()))
        for space in digests.keys() | gained.keys() | lost.keys()
    }
    return {space: digest for space, digest in total.items() if digest != Digest()}


def is_counted(template_id: str, dev_mode: bool) -> bool:
    """Return whether a template counts for the digests.

    The device's own templates do not count in dev mode.
    """
    return not (dev_mode and template_id.startswith(LOCAL))


def add_identities(
    connection: sqlite3.Connection,
    upserts: Sequence[Upsert],
    synced_at: str,
    dev_mode: bool,
    detector: str | None = None,
) -> Digests:
    """Write the templates of different identities; return what the digests gain.

    `remove_identities` must have removed their old templates.
    """
    connection.executemany(
        PUT_FIRST,
        [
            (
                upsert.user_id, upsert.display_name if dev_mode else None, model_of(first.space), detector,
                first.vector, len(first.vector) // 4, upsert.version, synced_at, first.template_id,
                first.space, first.quality, upsert.flag,
            )
            for upsert in upserts
            for first in upsert.templates[:1]
        ],
    )  # fmt: skip
    connection.executemany(
        PUT_FURTHER,
        [
            (
                upsert.user_id, further.template_id, further.space, model_of(further.space), further.vector,
                len(further.vector) // 4, further.quality,
            )
            for upsert in upserts
            for further in upsert.templates[1:]
        ],
    )  # fmt: skip
    return _sum_digests(
        (
            (upsert.user_id, template.template_id, template.space, template.vector)
            for upsert in upserts
            for template in upsert.templates
        ),
        dev_mode,
    )


def remove_identities(
    connection: sqlite3.Connection, user_ids: Sequence[str], replaced: Sequence[str], dev_mode: bool
) -> Digests | None:
    """Delete the identities `user_ids` and the templates of `replaced`.

    The rows of the identities `replaced` stay. Returns what the digests lose, None if the gallery had
    none of them.
    """
    found = connection.execute(_TEMPLATES_OF, (json.dumps([*user_ids, *replaced]),)).fetchall()
    if not found:
        return None
    present = {row[0] for row in found}
    connection.execute(_DROP_FURTHER, (json.dumps(list(present)),))
    removed = [user_id for user_id in user_ids if user_id in present]
    if removed:
        connection.execute(_DROP_IDENTITIES, (json.dumps(removed),))
    return _sum_digests(found, dev_mode)


def clear(connection: sqlite3.Connection, dev_mode: bool) -> None:
    """Delete all identities; in dev mode those that were enrolled on this device stay."""
    for statement in _CLEAR:
        connection.execute(statement, (dev_mode, f"{LOCAL}*"))
    write_digests(connection, compute_digests(connection, dev_mode))


def is_empty(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM enrolled_users LIMIT 1").fetchone() is None


def compute_digests(connection: sqlite3.Connection, dev_mode: bool) -> Digests:
    """Return the digest of each space's rows as they are now, bit flips included."""
    return _sum_digests(
        connection.execute("SELECT user_id, template_id, space, embedding FROM gallery_templates"), dev_mode
    )


def _sum_digests(rows: Iterable[tuple[str, str, str, bytes]], dev_mode: bool) -> Digests:
    counts: Counter[str] = Counter()
    values: dict[str, int] = defaultdict(int)
    for user_id, template_id, space, vector in rows:
        if is_counted(template_id, dev_mode):
            counts[space] += 1
            values[space] ^= template_hash(user_id, space, vector)
    return {space: Digest(count, values[space]) for space, count in counts.items()}


def is_local(connection: sqlite3.Connection, user_id: str) -> bool | None:
    """Return whether the identity was enrolled on this device.

    Returns None if it is not stored.
    """
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
    """Return user ids and vectors float32[n,d] of `space`.

    The first row's dimension is `d`. Rows of another length are drift: they are left out.
    """
    # An upper bound over all spaces, counted in the indexes: counting the rows of the space would read the
    # whole file once more. Memory of unused rows is never touched.
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
    """Shrink the page cache.

    Each page is read once, and pages displace rows in the processor's cache.
    """
    (cache_size,) = connection.execute("PRAGMA cache_size").fetchone()
    connection.execute("PRAGMA cache_size = -64")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA cache_size = {cache_size}")
