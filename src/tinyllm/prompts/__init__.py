"""Prompts: the in-context examples, and the prompt of a teacher.

Add a way to pick examples: a `Strategy` in `_examples`, its name in `config/_rationales.py`. The wording of a prompt:
`_text`.

In the paper, the generator picks examples P_i for question i from the training split, never the question itself. The
teacher sees P_i, the question, its choices and (teacher forcing) its answer: R_i^m = T^m(Q_i, O_i, A_i, P_i).
"""

from tinyllm.prompts._examples import ExampleGenerator
from tinyllm.prompts._text import Message, Prompt, letters_of, opinion_prompt, teacher_prompt

__all__ = ["ExampleGenerator", "Message", "Prompt", "letters_of", "opinion_prompt", "teacher_prompt"]
