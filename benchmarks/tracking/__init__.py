"""Measure cross-camera tracking: load, latency and a whole course."""
