"""Scoring: what a student answers to a question, and how its answer is found."""
