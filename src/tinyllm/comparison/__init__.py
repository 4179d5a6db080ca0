"""Comparison: figures of finished runs, with intervals and tests.

Add a statistic of one run: a function in `statistics` and a field in `metrics`. Of several runs: a function in `seeds`
and its use in `results`.
"""
