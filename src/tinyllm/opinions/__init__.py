"""Opinions: a teacher's own answer to a question, as one probability per choice. The teacher does not see the answer.

Add a way to ask: its requests in `requests`, how a reply is read in `_reading`, its name in `config/_opinions.py: Way`.
How the replies to several orders of the choices are combined: `collect`. How several teachers are pooled: `pool`.
"""
