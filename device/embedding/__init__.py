"""Embed the photos of an external catalog; the photos stay in the catalog."""
