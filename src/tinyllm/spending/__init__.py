"""Spending: what a run has paid, and the cap on it.

Add a kind of price: `charges.cost`. A kind of cap: `budget`, and `replies/_ledger.py`, where the database enforces it.
"""
