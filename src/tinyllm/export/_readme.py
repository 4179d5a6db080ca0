"""The README.md of an export: how to run it, with the exact prompt and scores."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

from tinyllm.config import ANSWER_TASK, Layout, compares_by_token
from tinyllm.questions.types import Question
from tinyllm.student.encode import Encoder, question_text
from tinyllm.student.model import Student, StudentCard

_UNSEEN = """\
The student did not see choices in its prompts in training. It seldom writes one of yours word for word."""
_SEEN = "The prompt must have the choices in the form below. The text may still be none of them."

_CAUSAL_INPUTS = """\
The inputs are `input_ids` (1, T), `position_ids` (1, T), `mask` (1, 1, T, T) and `at` (N). The mask is 0 where a token
sees another one, and -1e9 where it does not. `at` has the positions of the tokens whose next token is scored. The
result is `log_probabilities` (N, V). The model has no cache."""

_SEQ2SEQ_INPUTS = """\
The inputs are `input_ids` (1, T) and `decoder_input_ids` (C, L). Each row of the latter begins with the decoder's start
token, and there are at least two rows of at least two tokens. The result is `log_probabilities` (C, L, V)."""

_ONNX = """\
onnxruntime:

    session = onnxruntime.InferenceSession("student.onnx")
    (log_probabilities,) = session.run(None, {{"input_ids": …, {others}}})

{inputs}
"""

_OPENVINO = """\
OpenVINO:

    model = openvino.compile_model("student.xml", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
    log_probabilities = model({{"input_ids": …, {others}}})["log_probabilities"]

{inputs}

Keep `student.bin` beside `student.xml`. Without the hint, OpenVINO computes in bf16 or f16 where the processor can, and
the answers depend on the machine. Its Python package reports its use to Intel, until you run `opt_in_out --opt_out`.
TinyLLM's commands don't report anything.
"""

_CTRANSLATE2 = """\
CTranslate2:

    model = ctranslate2.Translator("ctranslate2")
    model.translate_batch([TOKENS OF THE PROMPT], beam_size=1)          # the answer as text
    model.score_batch([TOKENS OF THE PROMPT], [TOKENS OF A CHOICE])     # the log-probabilities of a choice
"""

_MERGED = """\
transformers:

    AutoTokenizer.from_pretrained(FOLDER), AutoModelFor….from_pretrained(FOLDER)
"""


def readme(name: str, kind: str, precision: str, student: Student, encoder: Encoder, example: Question) -> str:
    """Return the README.md of an export."""
    prefix = student.card.prefixes[ANSWER_TASK]
    prompt = student.tokenizer.decode(list(encoder.generation_prompt(example, prefix)))
    inputs = _SEQ2SEQ_INPUTS if student.is_encoder_decoder else _CAUSAL_INPUTS
    others = '"decoder_input_ids": …' if student.is_encoder_decoder else '"position_ids": …, "mask": …, "at": …'
    how = {
        "gguf": _gguf(student.card, example) if kind == "gguf" else "",
        "onnx": _ONNX.format(inputs=inputs, others=others),
        "openvino": _OPENVINO.format(inputs=inputs, others=others),
        "merged": _MERGED,
        "ctranslate2": _CTRANSLATE2,
    }
    divided = " The sum is divided by the number of these tokens." if compares_by_token(student.card.layout) else ""
    return f"""# {name}, as {kind} ({precision})

A student that TinyLLM trained. It ranks choices: it compares how likely each choice is to follow the prompt. These
commands do that. `parity.json` compares its answers with those of the student in the run.

    tinyllm predict FOLDER questions.csv
    tinyllm serve FOLDER

## Without TinyLLM

{how[kind]}
## The prompt

{_has_choices(student.card)}
This is a prompt with its special tokens. The choice follows it{"" if student.is_encoder_decoder else " after a space"}.

```
{prompt}
```

| task | prefix |
|---|---|
{chr(10).join(f"| {task} | `{text}` |" for task, text in student.card.prefixes.items())}

## The scores

The score of a choice is the sum of the log-probabilities of its tokens and of the end-of-text token.{divided}
The choice with the highest score is the answer. The probabilities are the softmax of the scores divided by
{student.card.temperature:g}.
"""


def _has_choices(card: StudentCard) -> str:
    before, _ = around_a_message(card)
    starts = f" and starts with `{before}`" if before else ""
    return f"The prompt has {'no choices' if card.layout == 'cloze' else 'the choices'}{starts}."


def around_a_message(card: StudentCard) -> tuple[str, str]:
    """Return the texts before and after what a user writes to a causal student, a question without a context."""
    before, _ = _divided(card.layout, Question("", "", (), None))
    return before, f"\n{card.prefixes[ANSWER_TASK].rstrip()}"


def _divided(layout: Layout, question: Question) -> tuple[str, str]:
    """Return what stands before a question in its prompt, and the question with what follows it."""
    _, text = question_text(replace(question, question="\0", context=None), layout)
    before, _, after = text.partition("\0")
    return before, f"{question.question}{after}".rstrip("\n")


def _gguf(card: StudentCard, example: Question) -> str:
    before, after = around_a_message(card)
    _, message = _divided(card.layout, example)
    asked = {"prompt": f"{before}{message}{after}", "n_predict": 48, "temperature": 0}
    return f"""\
As a text model, the student writes freely: llama.cpp and Ollama do not rank the choices.
{_UNSEEN if card.layout == "cloze" else _SEEN}
To compute the scores below, you need the log-probability of each token of each choice.

llama.cpp:

```
llama-server -m student.gguf --port 8080
curl -s http://127.0.0.1:8080/completion -d {shlex.quote(json.dumps(asked, ensure_ascii=False))}
```

Ollama. The template in `Modelfile` adds the rest of the prompt:

```
ollama create student -f Modelfile
ollama run student {shlex.quote(message)}
```
"""


def modelfile(file: str, before: str, after: str) -> str:
    """Return Ollama's Modelfile. Its template puts two texts around the message."""
    return f'''FROM ./{file}
TEMPLATE """{before}{{{{ .Prompt }}}}{after}"""
PARAMETER temperature 0
PARAMETER num_predict 48
'''
