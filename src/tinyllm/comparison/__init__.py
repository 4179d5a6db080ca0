"""Comparison: figures of finished runs, with intervals and tests.

Add a statistic of one run: a function in `_statistics`, and a field in `metrics`. A statistic of several runs: a
function in `_seeds`, and its use in `results`.
"""

from tinyllm.comparison._seeds import Difference, Estimate, findable
from tinyllm.comparison._statistics import Accuracy, Paired, chance_rate, majority_right, paired

__all__ = ["Accuracy", "Difference", "Estimate", "Paired", "chance_rate", "findable", "majority_right", "paired"]
