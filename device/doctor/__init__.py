"""Examine a device: its faults in sentences, and the times of its stages."""
