"""`BootStore`: the backend's time at the start of each boot with stored events."""

from device.timing.device_clock import Anchor

from .connection import StoreConnection


class BootStore:
    """The table `boots`. Every method raises StoreError when the file fails."""

    def __init__(self, connection: StoreConnection) -> None:
        self._connection = connection

    def anchors(self) -> dict[str, Anchor]:
        with self._connection.reading() as sql:
            rows = sql.execute("SELECT boot_id, backend_ms, uncertainty_ms FROM boots").fetchall()
        return {boot_id: Anchor(backend_ms, uncertainty_ms) for boot_id, backend_ms, uncertainty_ms in rows}

    def save(self, boot_id: str, anchor: Anchor) -> None:
        """Store the anchor of a boot; delete those of boots without events."""
        with self._connection.transaction() as sql:
            sql.execute(
                "INSERT OR REPLACE INTO boots (boot_id, backend_ms, uncertainty_ms) VALUES (?, ?, ?)",
                (boot_id, anchor.backend_ms, anchor.uncertainty_ms),
            )
            sql.execute(
                "DELETE FROM boots WHERE boot_id != ? AND boot_id NOT IN (SELECT boot_id FROM outbox "
                "WHERE boot_id IS NOT NULL UNION SELECT boot_id FROM rejected WHERE boot_id IS NOT NULL)",
                (boot_id,),
            )

    def last_moments(self) -> dict[str, int]:
        """Return the last stored event by boot, in milliseconds since its start."""
        with self._connection.reading() as sql:
            rows = sql.execute(
                "SELECT boot_id, MAX(boot_ms) FROM (SELECT boot_id, boot_ms FROM outbox UNION ALL "
                "SELECT boot_id, boot_ms FROM rejected) WHERE boot_id IS NOT NULL GROUP BY boot_id"
            ).fetchall()
        return dict(rows)
