"""Provide `wfm-fleet`: import and export identities through the REST API."""
