"""What a first user reads of a run: the forecast, warnings about unproven teachers, names of tasks, and what comes next."""

from __future__ import annotations

import io
import json

import pytest

from tinyllm.cli._ending import _exports, _to_beat
from tinyllm.config import build_config
from tinyllm.opinions._weights import agreement
from tinyllm.questions import Question, Splits
from tinyllm.rationales.forecast import Forecast
from tinyllm.stages._soft import soft_lines
from tinyllm.stages.asking import forecast_lines
from tinyllm.stages.check import _from_hub, _unproven_teachers
from tinyllm.student.model import _why
from tinyllm.system.news import News
from tinyllm.teachers._http.endpoint import _is_public


def made(**more):
    figures = {"requests": 1042, "prompt_tokens": 123456, "completion_tokens": 99999, "thinking_tokens": 0}
    known = {"usd": None, "tokens_most": 1, "usd_most": None, "hours": 11.5, "basis": "the teacher's tokenizer"}
    return Forecast("qwen2.5-coder", 12, **(figures | known | more))


def test_the_forecast_fits_80_columns_and_has_no_empty_column():
    plain = forecast_lines([made(), made(basis="a rule of thumb")])
    assert "cost" not in plain[0]
    assert "thoughts" not in plain[0]
    assert "  Tokens of qwen2.5-coder: a rule of thumb" in plain
    assert max(map(len, plain)) <= 80
    paid = forecast_lines([made(usd=1.5, usd_most=3, thinking_tokens=7)])
    assert ("cost" in paid[0], "thoughts" in paid[0]) == (True, True)


def test_teachers_that_nothing_can_weigh_are_told():
    def told(count, valid=None, train=None, **soft):
        names = [f"t{i}" for i in range(count)]
        tree = {"data": {"train": "q.csv"}, "train": {"method": "fine-tuning", "answer": "choices", "soft": soft}}
        tree |= {"teachers": [{"name": n, "kind": "scripted"} for n in names], "opinions": {"teachers": names}}
        questions = {"train": (Question("a", "Why?", ("x", "y"), train),)}
        questions["valid"] = (Question("b", "How?", ("x", "y"), valid),)
        return _unproven_teachers(build_config(tree), Splits(**questions, test=()))

    assert "no answer is known, and 2 teachers give opinions" in told(2)
    assert "one teacher gives" in told(1, train=0, weight=1)
    assert told(2, valid=0) == told(3) == told(2, train=0) == ""


def test_teachers_that_agree_by_chance_are_told():
    one, other = (0.9, 0.1), (0.1, 0.9)
    chance = [{"a": (one, other)[i % 2], "b": (one, other)[i // 2 % 2]} for i in range(40)]
    assert agreement(chance) == pytest.approx((0.5, 0.5 + 1.96 * (0.25 / 40) ** 0.5))
    same = [{"a": (one, other)[i % 2], "b": (one, other)[i % 2]} for i in range(40)]
    assert agreement(same)[0] > agreement(same)[1]
    assert agreement([{"a": one}]) is None
    figures = {
        "weights": {}, "weights_from": "x", "valid_accuracy": None, "valid": 0, "without_answer": 0, "shuffled": False,
    }  # fmt: skip
    assert "no more than chance" in " ".join(soft_lines(figures | {"agreement": agreement(chance)}))
    assert "chance" not in " ".join(soft_lines(figures | {"agreement": agreement(same)}))


def test_only_formats_are_suggested_that_the_student_can_be_written_to(tmp_path):
    assert "ctranslate2" not in _exports(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"is_encoder_decoder": True}))
    assert "gguf" not in _exports(tmp_path)


def test_a_majority_below_chance_is_not_drawn():
    assert _to_beat(0.0, 0.25) == {"chance": 0.25}
    assert _to_beat(0.3, 0.25) == {"majority class": 0.3, "chance": 0.25}


def test_the_hub_is_named_where_it_is_asked(tmp_path):
    assert _from_hub("smollm3-135m") == ", asking the Hugging Face hub for smollm3-135m"
    assert _from_hub("smollm2-135m-instruct") == _from_hub(str(tmp_path)) == _from_hub("./none") == ""
    assert "cannot be reached" in _why(OSError("We couldn't connect to 'https://huggingface.co' to load the files"))
    assert "no such folder" in _why(ValueError("Repo id must be in the form 'repo_name'"))


@pytest.mark.parametrize(
    ("host", "public"),
    [("api.openai.com", True), ("localhost", False), ("127.0.0.1", False), ("10.0.0.3", False), ("8.8.8.8", True),
     ("gpu.local", False), ("node7", False)],
)  # fmt: skip
def test_a_public_service_is_told_from_a_server_of_ones_own(host, public):
    assert _is_public(host) is public


def test_a_terminal_gets_lines_that_break_between_words(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "20")
    text = "  warning: " + "words of a certain length " * 9
    command = "Next: tinyllm run " + "long " * 20
    broken = News.wrapped(f"{text}\n{command}", Terminal()).split("\n")
    assert max(map(len, broken[:-1])) <= 40
    assert " ".join(" ".join(broken[:-1]).split()) == " ".join(text.split())
    assert broken[1].startswith("    ")
    assert broken[-1] == command
    assert News.wrapped(text, io.StringIO()) == text
