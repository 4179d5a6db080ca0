"""Replies: what teachers said, kept raw in SQLite; and what a person does with such a store."""
