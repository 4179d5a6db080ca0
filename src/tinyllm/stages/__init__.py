"""Stages of one run and its folder: init, check, generate, train, evaluate, report; and export.

Add a stage: a file that reads and writes the run folder (`folder`), a step in `run`, a command in `cli`.

    init → check → generate → train → evaluate → report      `run.run_all` does what is not done yet

Stages load and save. The work itself is done by functions of other rooms that take objects (`rationales.generate`,
`student.train`, `scoring.score`, …). Stages meet through files, so each can be run alone.
"""
