"""A full snapshot on its way in: pages gather here while the old gallery keeps working."""

import sqlite3
from collections.abc import Iterable

from broker_bridge.contract.messages import Upsert

from .enrollments import model_of

_STAGE = """
    INSERT INTO staged_templates (user_id, position, display_name, model, embedding, embedding_dim,
                                  sync_version, template_id, space, quality, flag)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# `WHERE true` keeps SQLite from reading ON CONFLICT as a join's ON.
_SWAP_FIRST = """
    INSERT INTO enrolled_users (user_id, display_name, model, embedding, embedding_dim, sync_version,
                                synced_at, created_at, template_id, space, quality, flag)
    SELECT user_id, display_name, model, embedding, embedding_dim, sync_version, ?1, ?1, template_id, space,
           quality, flag
    FROM staged_templates WHERE position = 0
    ON CONFLICT (user_id) DO UPDATE SET
        display_name = excluded.display_name, model = excluded.model, detector = NULL,
        embedding = excluded.embedding, embedding_dim = excluded.embedding_dim,
        sync_version = excluded.sync_version, synced_at = excluded.synced_at,
        template_id = excluded.template_id, space = excluded.space, quality = excluded.quality,
        flag = excluded.flag
"""
_SWAP_FURTHER = """
    INSERT INTO additional_templates (user_id, template_id, space, model, embedding, embedding_dim, quality)
    SELECT user_id, template_id, space, model, embedding, embedding_dim, quality
    FROM staged_templates WHERE position > 0 ORDER BY user_id, position
"""


def clear(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM staged_templates")
    connection.execute("DELETE FROM sync_cursors WHERE name = 'staged'")


def stage(
    connection: sqlite3.Connection, upserts: Iterable[Upsert], removals: Iterable[str], dev_mode: bool
) -> None:
    """Put a page's people beside those of earlier pages; one who changed meanwhile is replaced."""
    connection.executemany(
        "DELETE FROM staged_templates WHERE user_id = ?", [(user_id,) for user_id in removals]
    )
    for upsert in upserts:
        connection.execute("DELETE FROM staged_templates WHERE user_id = ?", (upsert.user_id,))
        connection.executemany(
            _STAGE,
            [
                (
                    upsert.user_id, position, upsert.display_name if dev_mode else None,
                    model_of(template.space), template.vector, len(template.vector) // 4, upsert.version,
                    template.template_id, template.space, template.quality, upsert.flag,
                )
                for position, template in enumerate(upsert.templates)
            ],
        )  # fmt: skip


def swap_in(connection: sqlite3.Connection, synced_at: str) -> None:
    """Make the staged people the gallery: whoever is not among them goes."""
    connection.execute("DELETE FROM additional_templates")
    connection.execute(
        "DELETE FROM enrolled_users WHERE user_id NOT IN (SELECT user_id FROM staged_templates)"
    )
    connection.execute(_SWAP_FIRST, (synced_at,))
    connection.execute(_SWAP_FURTHER)
    clear(connection)
