"""Rationales: questions are put to teachers, and checked texts are made of the replies.

Add a check: a predicate in `checks` and a line in its table. The files are the way of one request: `requests`,
`generate`, `_visible`, `_refusal`, `checks`, `collect`, `files`. `forecast` counts requests without sending them.
"""
