"""The rows of a snapshot sync.

Pages are staged here while the old gallery stays in use. Without an old gallery the first snapshot of a
device fills the live gallery itself. Until it is complete the live cursor has no epoch: its rows are not
matched yet.
"""

import json
import sqlite3
from collections.abc import Sequence

import numpy as np

from broker_bridge.contract.embeddings import Vector
from broker_bridge.contract.messages import Upsert

from . import cursor as cursors
from . import enrollments
from .cursor import SyncCursor

_STAGE = """
    INSERT INTO staged_templates (user_id, position, display_name, model, embedding, embedding_dim,
                                  sync_version, template_id, space, quality, flag)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_STAGED_FIRST = """
    SELECT user_id, display_name, model, NULL, embedding, embedding_dim, sync_version, ?, template_id, space,
           quality, flag
    FROM staged_templates WHERE position = 0
"""
_STAGED_FURTHER = """
    SELECT user_id, template_id, space, model, embedding, embedding_dim, quality
    FROM staged_templates WHERE position > 0 ORDER BY user_id, position
"""
# ?1: whether identities of this device itself stay, unless a staged identity has the same id.
_DROP_IDENTITIES = """
    DELETE FROM enrolled_users
    WHERE user_id NOT IN (SELECT user_id FROM staged_templates) AND NOT (?1 AND template_id GLOB ?2)
"""
_DROP_FURTHER = """
    DELETE FROM additional_templates
    WHERE user_id IN (SELECT user_id FROM staged_templates) OR NOT (?1 AND template_id GLOB ?2)
"""


def fills_live_gallery(connection: sqlite3.Connection) -> bool:
    """Return whether the gallery's rows are those of an incomplete first snapshot."""
    live = cursors.read_live(connection)
    return live is not None and live.epoch is None


def begin(connection: sqlite3.Connection, site: SyncCursor) -> None:
    """Prepare a snapshot sync: in the live gallery, if that is empty and never synced."""
    live = cursors.read_live(connection)
    known = live is not None and live.epoch is not None and live.belongs_to(site.site_id, site.spaces)
    if not known and enrollments.is_empty(connection):
        cursors.write_live(connection, SyncCursor(site.site_id, site.spaces))


def clear(connection: sqlite3.Connection, dev_mode: bool) -> bool:
    """Delete an incomplete snapshot; return whether there was one."""
    fills_live = fills_live_gallery(connection)
    if fills_live:
        enrollments.clear(connection, dev_mode)
        cursors.forget_live(connection)
    staged = connection.execute("DELETE FROM staged_templates").rowcount
    cursors.forget_snapshot(connection)
    return fills_live or staged > 0


def load_gallery(connection: sqlite3.Connection, space: str) -> tuple[list[str], Vector]:
    """Return the gallery of `space`, without rows during a first snapshot sync.

    See `enrollments.load_gallery`.
    """
    if fills_live_gallery(connection):
        return [], np.empty((0, 0), dtype=np.float32)
    return enrollments.load_gallery(connection, space)


def count_identities(connection: sqlite3.Connection) -> int:
    """Return how many identities the snapshot sync has received."""
    staged = "SELECT COUNT(*) FROM staged_templates WHERE position = 0"
    filled = "SELECT COUNT(*) FROM enrolled_users"
    (count,) = connection.execute(filled if fills_live_gallery(connection) else staged).fetchone()
    return int(count)


def stage(
    connection: sqlite3.Connection, upserts: Sequence[Upsert], removals: Sequence[str], dev_mode: bool
) -> None:
    """Stage the identities of a page.

    They replace those of earlier pages that changed meanwhile.
    """
    removed = json.dumps([*removals, *(upsert.user_id for upsert in upserts)])
    connection.execute(
        "DELETE FROM staged_templates WHERE user_id IN (SELECT value FROM json_each(?))", (removed,)
    )
    connection.executemany(
        _STAGE,
        [
            (
                upsert.user_id, position, upsert.display_name if dev_mode else None,
                enrollments.model_of(template.space), template.vector, len(template.vector) // 4,
                upsert.version, template.template_id, template.space, template.quality, upsert.flag,
            )
            for upsert in upserts
            for position, template in enumerate(upsert.templates)
        ],
    )  # fmt: skip


def swap_in(connection: sqlite3.Connection, synced_at: str, dev_mode: bool) -> None:
    """Replace the gallery by the staged identities; in dev mode local identities stay."""
    local = (dev_mode, f"{enrollments.LOCAL}*")
    connection.execute(_DROP_FURTHER, local)
    connection.execute(_DROP_IDENTITIES, local)
    connection.executemany(enrollments.PUT_FIRST, connection.execute(_STAGED_FIRST, (synced_at,)))
    connection.executemany(enrollments.PUT_FURTHER, connection.execute(_STAGED_FURTHER))
    clear(connection, dev_mode)
