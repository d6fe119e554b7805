"""Measure how many events one bridge takes, beside the bare parts."""
