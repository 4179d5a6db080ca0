"""Comparison: figures of finished runs, with intervals and tests.

Add a statistic of one run: a function in `_statistics` and a field in `metrics`. Of several runs: a function in
`_seeds` and its use in `results`.
"""

from tinyllm.comparison._seeds import Difference, findable
from tinyllm.comparison._statistics import Accuracy, chance_rate, majority_right, paired

__all__ = ["Accuracy", "Difference", "chance_rate", "findable", "majority_right", "paired"]
