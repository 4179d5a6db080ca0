"""Comparison: from what finished runs left to figures, and whether they differ by more than noise."""
