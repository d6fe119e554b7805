"""A full snapshot on its way in: pages gather here while the old gallery keeps working."""

import sqlite3
from collections.abc import Iterable

from broker_bridge.contract.messages import Upsert

from .enrollments import LOCAL, PUT_FIRST, PUT_FURTHER, model_of

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
# ?1: whether people whom this device enrolled itself stay, unless a staged person has their id.
_DROP_PEOPLE = """
    DELETE FROM enrolled_users
    WHERE user_id NOT IN (SELECT user_id FROM staged_templates) AND NOT (?1 AND template_id GLOB ?2)
"""
_DROP_FURTHER = """
    DELETE FROM additional_templates
    WHERE user_id IN (SELECT user_id FROM staged_templates) OR NOT (?1 AND template_id GLOB ?2)
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


def swap_in(connection: sqlite3.Connection, synced_at: str, dev_mode: bool) -> None:
    """Make the staged people the gallery: whoever is not among them goes, in dev mode but for local ones."""
    local = (dev_mode, f"{LOCAL}*")
    connection.execute(_DROP_FURTHER, local)
    connection.execute(_DROP_PEOPLE, local)
    connection.executemany(PUT_FIRST, connection.execute(_STAGED_FIRST, (synced_at,)))
    connection.executemany(PUT_FURTHER, connection.execute(_STAGED_FURTHER))
    clear(connection)
