-- When an event was stored, on a clock that is never set: the boot, and milliseconds since its start. Older
-- rows have neither. `created_at` is what the time of day said then.
ALTER TABLE outbox ADD COLUMN boot_id TEXT;
ALTER TABLE outbox ADD COLUMN boot_ms INTEGER;
ALTER TABLE rejected ADD COLUMN created_at TEXT;
ALTER TABLE rejected ADD COLUMN boot_id TEXT;
ALTER TABLE rejected ADD COLUMN boot_ms INTEGER;

-- The backend's time at the start of a boot, in milliseconds since 1970.
CREATE TABLE boots (
    boot_id        TEXT PRIMARY KEY,
    backend_ms     INTEGER NOT NULL,
    uncertainty_ms INTEGER NOT NULL
) WITHOUT ROWID;
