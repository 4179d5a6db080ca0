"""Spending: what a run has paid, and the cap on it.

To add a kind of price, change `charges.cost`. To add a kind of cap, change `budget` and `replies/_ledger.py`, where the
database enforces it.
"""
