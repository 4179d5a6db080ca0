"""Replies: what teachers said, stored raw in SQLite before it counts.

Add a column: a new version in `store`. A tool for a person who has a store: a function in `tools`, a command in
`cli/_store.py`.
"""
