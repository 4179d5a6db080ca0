"""The student: what it learns (mixture), in which order and shape (plan, batch), and how (learner, train)."""
