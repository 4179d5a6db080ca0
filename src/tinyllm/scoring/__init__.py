"""Scoring: which choice a student takes, by likelihood or by the text that it writes.

Add a scorer: a function in `score`, its use in `score.predict`, and its name in `config/_evaluate.py`, `predictions`
and `comparison/answers.py`. A way to read a written answer: a step in `_matching`.
"""
