"""Scoring: which choice a student takes, by likelihood or by what it writes.

Add a scorer: a function in `score`, its use in `predict`, its name in `config/schema.py` and in
`comparison/answers.py`. A way to read what was written: a step in `matching`.
"""
