"""The stages of a run, in their order, and the run folder by which they meet. Each command calls one function here."""
