"""Measurements: what `tools/benchmark.py` times, one module each."""
