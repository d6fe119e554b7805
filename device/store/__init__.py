"""The store of a device: one SQLite file with gallery, cursor and outbox."""
