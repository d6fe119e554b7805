"""Evaluate, calibrate and record embedding models: `wfm-fleet model`."""
