"""The command line: one file a group of commands."""

from tinyllm.cli.runs import app, main

__all__ = ["app", "main"]
