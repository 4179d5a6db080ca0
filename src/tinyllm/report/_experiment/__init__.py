"""The report of an experiment: the paper's tables and figures with intervals, on one page and as files."""
