"""Rationales: a question is asked of teachers, and checked texts are made of the replies."""
