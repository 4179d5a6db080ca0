"""Spending: what a run has paid for, and the cap on it.

Add a kind of price: `ledger.cost`. A kind of cap: `ledger.Cap` and `budget`.
"""
