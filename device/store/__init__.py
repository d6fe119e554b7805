"""What a device keeps: one SQLite file with its gallery, its cursor and its outbox."""
