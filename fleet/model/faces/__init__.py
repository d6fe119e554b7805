"""Photographs of known people, and their faces as cameras see them."""
