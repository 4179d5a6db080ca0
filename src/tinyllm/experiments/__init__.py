"""Experiments: a grid of datasets, students, methods and seeds, run to the end and looked at as one."""
