"""`wfm-fleet`: people in and out of the registry from a terminal, by way of its REST API."""
