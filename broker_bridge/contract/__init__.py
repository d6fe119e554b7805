"""Define wire contract version 1.

Imports the standard library, pydantic and numpy only.
"""
