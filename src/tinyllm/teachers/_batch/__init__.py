"""The OpenAI Batch protocol as a teacher: it takes hours instead of seconds, and costs half."""
