"""Measurements, run by hand: `python -m tests.benchmarks NAME`; docs/performance.md has results."""
