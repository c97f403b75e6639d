"""Readers of archives: one module per family, with its benchmarks in `BENCHMARKS`."""
