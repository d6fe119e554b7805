"""Measure vector search and gallery matching."""
