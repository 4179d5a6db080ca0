"""Opinions: what teachers themselves would answer, asked without the answer: one probability a choice.

Add a way to ask: its requests in `requests`, what a reply says in `_reading`, its name in `config/_opinions.py: Way`.
Another way to combine the answers to a question in several orders: `collect`. Another way to pool teachers: `pool`.
"""
