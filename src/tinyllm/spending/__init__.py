"""Spending: what a run has paid for, and the cap on it.

Add a kind of price: `charges.cost`. A kind of cap: `charges.Cap`, `budget`, and `replies/_ledger.py`, where the
database holds it.
"""
