"""System: atomic file writes, processes, memory, packaged models, progress messages.

Add a packaged model: a line in the table of `packaged`.
"""
