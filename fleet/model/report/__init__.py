"""What an evaluation found, as a table, as JSON and as a picture."""
