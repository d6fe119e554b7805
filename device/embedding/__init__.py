"""Photos of an outside catalog become vectors; the photos stay where they are."""
