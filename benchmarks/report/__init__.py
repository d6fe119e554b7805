"""The record of a run: benchmarks/RESULTS.md."""
