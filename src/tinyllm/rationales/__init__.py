"""Rationales: asks teachers questions, and makes checked texts of their replies.

Add a check: a predicate in `checks` and a line in its table. A request passes through the files in this order:
`requests`, `generate`, `_visible`, `_refusal`, `checks`, `collect`, `files`. `forecast` counts requests without sending
them.
"""
