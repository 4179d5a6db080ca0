"""The benchmarks of training: contenders, each in a process of its own, on the same rows, from the same weights."""
