"""The OpenAI Batch protocol as a teacher: hours instead of seconds, at half the price."""

from tinyllm.teachers._batch.teacher import OpenAIBatchTeacher

__all__ = ["OpenAIBatchTeacher"]
