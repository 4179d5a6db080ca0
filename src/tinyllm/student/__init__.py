"""Student: what it learns (mixture), in which steps and shapes (plan, batch), and how (learner, train).

Add a method or a router: a pure function in `mixture` and a line in its table. The form of a prompt and where its prefix
stands: `encode`. The token budget of a micro-batch: `plan`. A format to save in: a file beside `model`.
"""
