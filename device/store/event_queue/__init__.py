"""The stored events without a receipt: rows on disk and in memory, and times."""
