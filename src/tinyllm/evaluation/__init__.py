"""Evaluation: what the student answers, and how sure one can be of the figures."""
