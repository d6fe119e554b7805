"""What travels on the wire, version 1. Imports the standard library, pydantic and numpy only."""
