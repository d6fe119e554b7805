-- The gallery. A person's first template stands in enrolled_users, as firmware knows it; further templates
-- of the person, also those of other spaces, stand in additional_templates.
CREATE TABLE enrolled_users (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id       TEXT NOT NULL UNIQUE,
    display_name  TEXT,                          -- dev mode only
    model         TEXT NOT NULL,
    detector      TEXT,
    embedding     BLOB NOT NULL,                 -- little-endian float32
    embedding_dim INTEGER NOT NULL,
    sync_version  INTEGER NOT NULL DEFAULT 0,
    synced_at     TEXT,
    created_at    TEXT NOT NULL,
    template_id   TEXT NOT NULL,
    space         TEXT NOT NULL,
    quality       REAL,
    flag          TEXT
);

CREATE TABLE additional_templates (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id       TEXT NOT NULL REFERENCES enrolled_users (user_id) ON DELETE CASCADE,
    template_id   TEXT NOT NULL,
    space         TEXT NOT NULL,
    model         TEXT NOT NULL,
    embedding     BLOB NOT NULL,
    embedding_dim INTEGER NOT NULL,
    quality       REAL
);
CREATE INDEX additional_templates_by_user ON additional_templates (user_id);

CREATE VIEW gallery_templates AS
    SELECT user_id, template_id, space, embedding, embedding_dim, quality FROM enrolled_users
    UNION ALL
    SELECT user_id, template_id, space, embedding, embedding_dim, quality FROM additional_templates;

-- Count and digest per space, kept in the same transaction as the rows: a row that changed without them
-- is drift (a flipped bit passes SQLite's own integrity check).
CREATE TABLE gallery_digests (
    space  TEXT PRIMARY KEY,
    count  INTEGER NOT NULL,
    digest TEXT NOT NULL
) WITHOUT ROWID;

-- Where the gallery stands ('live') and how far a reset has come ('staged').
CREATE TABLE sync_cursors (
    name         TEXT PRIMARY KEY CHECK (name IN ('live', 'staged')),
    epoch        TEXT,
    version      INTEGER NOT NULL,
    site_id      TEXT NOT NULL,
    spaces       TEXT NOT NULL,                  -- JSON list
    head_version INTEGER                         -- staged only: the head of the reset's first page
) WITHOUT ROWID;

CREATE TABLE staged_templates (
    user_id       TEXT NOT NULL,
    position      INTEGER NOT NULL,              -- 0: goes into enrolled_users
    display_name  TEXT,
    model         TEXT NOT NULL,
    embedding     BLOB NOT NULL,
    embedding_dim INTEGER NOT NULL,
    sync_version  INTEGER NOT NULL,
    template_id   TEXT NOT NULL,
    space         TEXT NOT NULL,
    quality       REAL,
    flag          TEXT,
    PRIMARY KEY (user_id, position)
);

CREATE TABLE device_config (
    key        TEXT PRIMARY KEY,
    value      TEXT NOT NULL,
    updated_at TEXT NOT NULL
) WITHOUT ROWID;

-- Events until the bridge's receipt. AUTOINCREMENT: a number is never used again, so "sent up to here" holds.
CREATE TABLE outbox (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id   TEXT NOT NULL UNIQUE,
    body       BLOB NOT NULL,                    -- the event's JSON without its image
    image      BLOB,                             -- JPEG
    created_at TEXT NOT NULL
);
CREATE INDEX outbox_with_image ON outbox (seq) WHERE image IS NOT NULL;

CREATE TABLE rejected (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id    TEXT NOT NULL UNIQUE,
    body        BLOB NOT NULL,
    image       BLOB,
    code        TEXT NOT NULL,
    detail      TEXT NOT NULL,
    rejected_at TEXT NOT NULL
);

CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
