"""Benchmarks: `python -m benchmarks.generate --help`; the tables are in docs/benchmarks.md."""
