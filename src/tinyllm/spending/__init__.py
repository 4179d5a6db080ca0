"""Spending: the account of a run, and the cap on it."""
