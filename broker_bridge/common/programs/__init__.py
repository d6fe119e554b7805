"""What the entry points of all programs share."""
