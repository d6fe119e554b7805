-- What became of files in the watched folders: `ours` was written by the mirror, any other is registered.
-- `content` is a hash of the file's bytes; a file that is being replaced has two rows for a moment.
CREATE TABLE npy_files (
    folder  TEXT NOT NULL,                       -- face_db, gait_db or speaker_db
    user_id TEXT NOT NULL,
    content BLOB NOT NULL,
    ours    INTEGER NOT NULL,
    PRIMARY KEY (folder, user_id, content)
) WITHOUT ROWID;
