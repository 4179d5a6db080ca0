"""The command line: one file a group of commands."""

from tinyllm.cli.app import app, main

__all__ = ["app", "main"]
