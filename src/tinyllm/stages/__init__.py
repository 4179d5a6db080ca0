"""The stages of a run. Each reads its input from the run folder and writes its output there, and can be run alone.

    init → check → generate → train → evaluate → report      `run.run_all` runs what is not done yet

Stages load and save; the work itself is done by functions that take objects (`rationales.generate`, `student.train`,
`scoring.score`, …). Each command of the command line calls one function here.
"""
