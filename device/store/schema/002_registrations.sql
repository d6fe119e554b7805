-- Visitors who wait for the registry's decision. Their vectors are biometric: a row goes with its answer.
CREATE TABLE registrations (
    request_id TEXT PRIMARY KEY,
    body       BLOB NOT NULL,                    -- RegisterIdentity as JSON
    created_at TEXT NOT NULL
) WITHOUT ROWID;
