"""The README.md of an export: how to run it, with the exact prompt and scores."""

from __future__ import annotations

from tinyllm.config import ANSWER_TASK, compares_by_token
from tinyllm.questions.types import Question
from tinyllm.student.encode import Encoder
from tinyllm.student.model import Student

_GGUF = """\
llama.cpp:

    llama-server -m student.gguf --port 8080
    curl -s http://127.0.0.1:8080/completion -d '{"prompt": "THE PROMPT BELOW", "n_predict": 48, "temperature": 0}'

Ollama:

    ollama create student -f Modelfile
    ollama run student "THE QUESTION WITH ITS CHOICES"

Both write the answer as text. To compute the scores below, you need the log-probability of each token of each choice.
"""

_ONNX_CAUSAL = """\
onnxruntime. `student.onnx` takes `input_ids` (1, T), `position_ids` (1, T), `mask` (1, 1, T, T) and `at` (N). The mask
is 0 where a token sees another one, and -1e9 where it does not. `at` has the positions of the tokens whose next token
is scored. The result is `log_probabilities` (N, V). The file has no cache.

    session = onnxruntime.InferenceSession("student.onnx")
    (log_probabilities,) = session.run(None, {"input_ids": …, "position_ids": …, "mask": …, "at": …})
"""

_ONNX_SEQ2SEQ = """\
onnxruntime. `student.onnx` takes `input_ids` (1, T) and `decoder_input_ids` (C, L). Each row of the latter begins with
the decoder's start token, and there are at least two rows of at least two tokens. The result is `log_probabilities`
(C, L, V).

    session = onnxruntime.InferenceSession("student.onnx")
    (log_probabilities,) = session.run(None, {"input_ids": …, "decoder_input_ids": …})
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
    onnx = _ONNX_SEQ2SEQ if student.is_encoder_decoder else _ONNX_CAUSAL
    how = {"gguf": _GGUF, "onnx": onnx, "merged": _MERGED, "ctranslate2": _CTRANSLATE2}
    divided = " The sum is divided by the number of these tokens." if compares_by_token(student.card.layout) else ""
    return f"""# {name}, as {kind} ({precision})

A student that TinyLLM trained. `parity.json` compares its answers with those of the student in the run.

    tinyllm predict FOLDER questions.csv
    tinyllm serve FOLDER

## Without TinyLLM

{how[kind]}
## The prompt

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


def modelfile(file: str, prefix: str) -> str:
    """Return Ollama's Modelfile."""
    return f'''FROM ./{file}
TEMPLATE """{{{{ .Prompt }}}}
{prefix.rstrip()}"""
PARAMETER temperature 0
PARAMETER num_predict 48
'''
