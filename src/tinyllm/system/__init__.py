"""System: whole files, processes, memory, packaged models, progress messages.

Add a packaged model: a line in the table of `packaged`.
"""
