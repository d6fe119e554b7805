"""Measurements beside the bare libraries in one run, `make bench`. Ratios travel, absolute figures do not."""
