"""What `python -m benchmarks.evaluate` runs in processes of their own."""
