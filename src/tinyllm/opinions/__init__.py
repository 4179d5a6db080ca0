"""Opinions: what teachers themselves would answer, asked without the answer: one probability a choice.

Add a way to ask: its requests in `requests`, what a reply says in `_reading`, its name in `config/schema.py: Way`.
Another way to put the orders of a question together: `collect`. Another way to pool teachers: `pool`.
"""
