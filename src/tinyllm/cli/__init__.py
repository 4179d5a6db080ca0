"""Commands: parse options, call one function of a stage or an experiment, print the result.

Add a command: a function in the file of its group, and a line in `app`. An exit code after an
exception: `app.main`. After a normal end: `raise typer.Exit(n)` in the command.
"""

from tinyllm.cli.app import main

__all__ = ["main"]
