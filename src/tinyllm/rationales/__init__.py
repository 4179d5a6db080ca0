"""Rationales: asks teachers questions, and makes checked texts of their replies.

To add a check, add a predicate and a line in the table of `checks`. A request passes through the files in this order:
`requests`, `generate`, `_visible`, `_refusal`, `checks`, `collect`, `files`. `forecast` counts requests without sending
them.
"""
