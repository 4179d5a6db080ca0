"""What `python -m benchmarks.predict` and `python -m benchmarks.serve` run in processes of their own."""
