"""The rows of the gallery: people, templates, digest. Every function runs in the caller's transaction."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
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


def model_of(space: str) -> str:
    """The model part of a space id: `arcface-w600k-r50` of `face:arcface-w600k-r50`."""
    return space.partition(":")[2]


def add(digests: Mapping[str, Digest], change: Mapping[str, Digest]) -> Digests:
    """Per space, the sum of both; a space without templates has no entry."""
    total = {
        space: digests.get(space, Digest()).plus(change.get(space, Digest()))
        for space in digests.keys() | change.keys()
    }
    return {space: digest for space, digest in total.items() if digest != Digest()}


def is_counted(template_id: str, dev_mode: bool) -> bool:
    """Whether a template is in the digests, which the registry knows: in dev mode the device's own is not."""
    return not (dev_mode and template_id.startswith(LOCAL))


def add_person(
    connection: sqlite3.Connection,
    upsert: Upsert,
    synced_at: str,
    dev_mode: bool,
    detector: str | None = None,
) -> Digests:
    """Write the person's templates and return the change of the digests; `remove_person` comes before."""
    change: Digests = {}
    for position, template in enumerate(upsert.templates):
        dimension = len(template.vector) // 4
        model = model_of(template.space)
        if position == 0:
            name = upsert.display_name if dev_mode else None
            connection.execute(
                PUT_FIRST,
                (
                    upsert.user_id, name, model, detector, template.vector, dimension, upsert.version,
                    synced_at, template.template_id, template.space, template.quality, upsert.flag,
                ),
            )  # fmt: skip
        else:
            connection.execute(
                PUT_FURTHER,
                (
                    upsert.user_id, template.template_id, template.space, model, template.vector, dimension,
                    template.quality,
                ),
            )  # fmt: skip
        if is_counted(template.template_id, dev_mode):
            counted = Digest.of(upsert.user_id, template.space, [template.vector])
            change = add(change, {template.space: counted})
    return change


def remove_person(
    connection: sqlite3.Connection, user_id: str, dev_mode: bool, *, keep_row: bool = False
) -> Digests | None:
    """Delete the person's templates and return the change of the digests, None if there were none.

    `keep_row` is for one who is replaced.
    """
    change: Digests = defaultdict(Digest)
    found = connection.execute(
        "SELECT template_id, space, embedding FROM gallery_templates WHERE user_id = ?", (user_id,)
    ).fetchall()
    if not found:
        return None
    for template_id, space, vector in found:
        if is_counted(template_id, dev_mode):
            change[space] = change[space].minus(Digest(1, template_hash(user_id, space, vector)))
    connection.execute("DELETE FROM additional_templates WHERE user_id = ?", (user_id,))
    if not keep_row:
        connection.execute("DELETE FROM enrolled_users WHERE user_id = ?", (user_id,))
    return dict(change)


def compute_digests(connection: sqlite3.Connection, dev_mode: bool) -> Digests:
    """Per space, the digest of the rows as they are now, bit flips included."""
    digests: Digests = defaultdict(Digest)
    for user_id, template_id, space, vector in connection.execute(
        "SELECT user_id, template_id, space, embedding FROM gallery_templates"
    ):
        if is_counted(template_id, dev_mode):
            digests[space] = digests[space].plus(Digest(1, template_hash(user_id, space, vector)))
    return dict(digests)


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
