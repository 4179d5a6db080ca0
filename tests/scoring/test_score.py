"""Scoring: likelihoods equal those of the plain model, and written answers are matched to choices."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from support import FAMILIES, MORE_FAMILIES, TEACHERS, some_questions, some_rationales, tiny_student
from tinyllm.errors import StudentError
from tinyllm.questions import Question
from tinyllm.scoring._matching import _normalise, match_choice
from tinyllm.scoring._passes import generate_texts
from tinyllm.scoring.predictions import OptionScores, credit, leaders
from tinyllm.scoring.score import arithmetic, generate_answers, score_options, score_targets
from tinyllm.student._steps import MicroBatch
from tinyllm.student._ways import Way
from tinyllm.student.learner import Learner
from tinyllm.student.mixture import MixtureSettings, Target, tinyllm
from tinyllm.student.model import Student

PREFIXES = {"answer": "predict: ", "ada": "explain as ada: ", "bob": "explain as bob: "}
SETTINGS = MixtureSettings(PREFIXES, dict.fromkeys(TEACHERS, 1.0))


@pytest.mark.parametrize("family", ["t5", "llama", "gemma3"])
@pytest.mark.parametrize("batch_tokens", [16, 10_000])
def test_option_scores_are_sums_of_the_plain_models_log_probabilities(family, batch_tokens):
    student = tiny_student(family)
    questions = [*some_questions(5), Question("q0", "Same id, other choices?", ("x", "y y y"), 0)]
    told = []
    scores = score_options(
        student, student.learner(), questions, batch_tokens=batch_tokens, progress=lambda *a: told.append(a)
    )
    assert told[-1][:2] == (6, 6)
    encoder = student.encoder()
    for question, found in zip(questions, scores, strict=True):
        assert len(found.total) == len(question.choices)
        prompt = encoder.generation_prompt(question, student.card.prefixes["answer"])
        for i, choice in enumerate(question.choices):
            target = encoder.target(choice)
            assert target[-1] == encoder.end
            with torch.no_grad():
                if student.is_encoder_decoder:
                    labels = torch.tensor([target])
                    logits = student.model(input_ids=torch.tensor([prompt]), labels=labels).logits[0]
                else:
                    logits = student.model(input_ids=torch.tensor([[*prompt, *target]])).logits[0, len(prompt) - 1 : -1]
            by_token = logits.log_softmax(-1)[range(len(target)), list(target)]
            assert found.total[i] == pytest.approx(by_token.sum().item(), rel=1e-4)
            assert found.mean[i] == pytest.approx(by_token.mean().item(), rel=1e-4)
            assert found.unended[i] == pytest.approx(by_token[:-1].sum().item(), rel=1e-4)
            assert found.characters[i] == len(choice)


def test_scores_that_are_no_numbers_are_an_error_and_no_answer():
    student = tiny_student("llama")
    with torch.no_grad():
        next(student.model.parameters()).fill_(torch.nan)
    with pytest.raises(StudentError, match="scores of question 'q0' are not a number"):
        score_options(student, student.learner(), some_questions(2))


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_in_bf16_scores_are_nearly_the_same_and_weights_stay_as_they_are(family):
    student = tiny_student(family)
    learner, questions = student.learner(), some_questions(5)
    exact = score_options(student, learner, questions)
    with arithmetic(learner, "bf16"):
        rough = score_options(student, learner, questions)
    assert rough != exact
    for one, other in zip(rough, exact, strict=True):
        assert one.mean == pytest.approx(other.mean, abs=0.05)
    with arithmetic(learner, "fp32"):
        assert score_options(student, learner, questions) == exact


ASKED = [
    replace(q, choices=choices, context="It is so. " * (3 * n % 7) or None)
    for n, (q, choices) in enumerate(
        zip(
            some_questions(8),
            [("ice", "ice cream", "a"), ("yes", "no"), ("ice", "ice", "iron"), ("a long choice " * 4, "b")] * 2,
            strict=True,
        )
    )
]


@pytest.mark.parametrize("family", MORE_FAMILIES)
@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_company_order_and_budget_change_no_score(family, data):
    """Scores agree to 1e-5 in float32. Ties of the same tokens stay exact."""
    student = tiny_student(family)
    learner = student.learner()
    if data.draw(st.booleans(), label="in the slowest way"):
        learner.take(Way(packed=False, share_prompt=False, whole_forward=True))
    alone = {q.id: score_options(student, learner, [q])[0] for q in ASKED}
    asked = data.draw(st.lists(st.sampled_from(ASKED), min_size=2, max_size=8))
    budget = data.draw(st.sampled_from([16, 200, 1000, 20_000]))
    for question, found in zip(asked, score_options(student, learner, asked, batch_tokens=budget), strict=True):
        one = alone[question.id]
        for name in ("total", "mean", "unended"):
            assert getattr(found, name) == pytest.approx(getattr(one, name), rel=1e-5, abs=1e-5)
        if question.choices[0] == question.choices[1]:
            assert found.total[0] == found.total[1]


@pytest.mark.parametrize("family", MORE_FAMILIES)
def test_company_and_budget_change_no_text(family):
    student = tiny_student(family)
    alone = [generate_answers(student, [q], max_new_tokens=3)[0] for q in ASKED]
    for budget in (16, 300, 20_000):
        assert generate_answers(student, ASKED, max_new_tokens=3, batch_tokens=budget) == alone


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_generation_in_batches_is_generation_alone(family):
    student = tiny_student(family)
    questions = some_questions(5)
    together = generate_texts(student, questions, max_new_tokens=6)
    alone = [generate_texts(student, [q], max_new_tokens=6)[0] for q in questions]
    assert together == alone
    assert generate_texts(student, questions, max_new_tokens=6, batch_tokens=16) == alone


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_what_is_done_is_told_within_a_batch(family):
    student, told = tiny_student(family), []
    questions = some_questions(8)
    generate_texts(student, questions, max_new_tokens=16, task="ada", progress=lambda done, *_: told.append(done))
    assert told == sorted(told)
    assert len(set(told)) >= 4, "texts are written side by side, and count by their share"
    told.clear()
    long = [replace(q, question=f"{q.question} " * 40) for q in questions]
    score_options(student, student.learner(), long, batch_tokens=100_000, progress=lambda done, *_: told.append(done))
    assert len(set(told)) >= 4, "a pass of a CPU is short"


def test_the_best_choice_by_total_and_by_token():
    scores = OptionScores(total=(-4.0, -3.0, -6.0), mean=(-2.0, -3.0, -0.5))
    assert (scores.best, scores.best_normalised) == (1, 2)
    assert (scores.ranking("labelled"), scores.ranking("cloze")) == (scores.total, scores.mean)


def test_the_choices_of_the_harness_leave_the_end_out_and_count_characters():
    scores = OptionScores((-1.0, -9.0), (-0.5, -3.0), unended=(-4.0, -3.0), characters=(10, 2))
    assert (scores.best, scores.acc, scores.acc_norm) == (0, 1, 0)


@settings(deadline=None)
@given(st.lists(st.sampled_from([-3.0, -2.0, -1.0, -math.inf]), min_size=2, max_size=6))
def test_the_marks_of_all_answers_add_up_to_one_whatever_ties(values):
    marks = [credit(values, answer) for answer in range(len(values))]
    assert sum(marks) == pytest.approx(1.0)
    assert [i for i, mark in enumerate(marks) if mark] == list(leaders(values))
    assert len({mark for mark in marks if mark}) == 1


CONTINUED = Question("mars", "Which are planets?", ("Mars", "Mars and Venus", "The sun"), 1)


def taught(family: str, question: Question, task: str = "answer", text: str = "") -> Student:
    """A tiny student that has learnt one answer by heart, or one rationale."""
    student = tiny_student(family, seed=1)
    learner, prefix = student.learner(), student.card.prefixes[task]
    target = Target(question.id, task, prefix, text or question.answer_text, 1.0)
    rows = student.encoder(share_prompt=learner.share_prompt).rows(question, [target])
    batch = learner.collate(MicroBatch(tuple(rows), ((1.0 / 10,),)), ())
    optimizer = torch.optim.Adam(student.model.parameters(), lr=0.02)
    for _ in range(400):
        optimizer.zero_grad()
        loss, each = learner(batch)
        if each.max() < 0.05:
            return student
        loss.backward()
        optimizer.step()
    raise AssertionError(f"it has not learnt: {each}")


@pytest.mark.parametrize("family", ["t5", "llama"])
@pytest.mark.parametrize("answer", [0, 1])
def test_a_choice_that_continues_another_wins_where_it_is_the_answer(family, answer):
    question = replace(CONTINUED, answer=answer)
    student = taught(family, question)
    (scores,) = score_options(student, student.learner(), [question])
    assert (scores.best, scores.best_normalised) == (answer, answer)
    assert scores.acc == 0, "without the end a choice is never less likely than what continues it"
    assert scores.total[0] < scores.unended[0]


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_a_rationale_ends_where_the_student_goes_on_with_the_next_prompt(family, monkeypatch):
    text = "Ice\npredict: x\nyyy"
    student = taught(family, CONTINUED, "ada", text)
    calls, forward = [], student.model.forward
    monkeypatch.setattr(student.model, "forward", lambda **given: calls.append(1) or forward(**given))
    assert generate_texts(student, [CONTINUED], task="ada", max_new_tokens=96) == ["Ice"]
    assert len(calls) == text.index("yy") + 1 + (
        family == "llama"
    )  # a letter is a token, and llama begins with a space


@pytest.mark.parametrize("family", FAMILIES)
def test_choices_of_the_same_tokens_tie_exactly_and_share_the_mark(family):
    student = tiny_student(family)
    question = Question("q", "Which?", ("ice", "water vapour", "ice", "iron"), 2)
    (scores,) = score_options(student, student.learner(), [question], batch_tokens=16)
    assert scores.total[0] == scores.total[2]
    assert scores.mean[0] == scores.mean[2]
    assert len(set(scores.total)) == 3
    alike = replace(scores, total=(-1.0, -2.0, -1.0, -3.0))
    assert credit(alike.total, 2) == 0.5


WAYS = [
    Way(),
    Way(whole_forward=True),
    *(Way(False, share, whole) for share in (True, False) for whole in (True, False)),
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("weights", ["autocast", "bf16"])
def test_the_head_is_computed_in_fp32_wherever_it_runs(family, way, weights):
    student = tiny_student(family)
    if weights == "bf16":
        student.model.bfloat16()
    learner = Learner(student.model, pad=0)
    learner.take(way)
    head = student.model.get_output_embeddings()
    encoder = student.encoder(share_prompt=way.share_prompt)
    rows = encoder.options(some_questions(1)[0], "predict: ")
    batch = learner.collate(MicroBatch(tuple(rows), tuple((1.0,) * len(r.branches) for r in rows)), ())
    with arithmetic(learner, "bf16" if weights == "autocast" else "fp32"), torch.no_grad():
        logits = learner.target_logits(batch)
        _, each = learner(batch)
    assert logits.dtype == each.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float()), "the logits were rounded to bf16"
    expected = -logits.log_softmax(-1).gather(1, batch["labels"][:, None])[:, 0]
    torch.testing.assert_close(each, expected, rtol=1e-5, atol=1e-5)
    assert "forward" not in vars(head), "the model is left as it was"


def test_single_tokens_whose_logits_are_near_each_other_do_not_tie_in_bf16():
    student, letters = tiny_student("llama"), tuple("abcdefghijklmnopqrst")
    ids = [student.tokenizer(letter).input_ids[0] for letter in letters]
    ids += student.tokenizer(" ").input_ids
    with torch.no_grad():
        head = student.model.get_output_embeddings().weight
        head[ids] = head[ids[:1]] * 40 + head[ids] * 0.02
    question = Question("q", "Which?", letters, 0)
    learner = student.learner()
    with arithmetic(learner, "bf16"):
        (scores,) = score_options(student, learner, [question])
    assert len(set(scores.unended)) == len(letters)


def test_what_is_written_is_decided_in_fp32():
    student, (question,) = tiny_student("llama"), some_questions(1)
    prompt = student.encoder().generation_prompt(question, student.card.prefixes["ada"])
    letters = [student.tokenizer(letter).input_ids[0] for letter in "abcdefghijklmnopqrst"]
    learner, head = student.learner(), student.model.get_output_embeddings().weight
    with arithmetic(learner, "bf16"), torch.no_grad():
        hidden = student.model.model(torch.tensor([prompt])).last_hidden_state[0, -1].float()
    with torch.no_grad():
        kept = head[letters] * 0.02
        head.zero_()
        head[letters] = 20 * hidden / hidden.square().sum() + kept  # near 20, in bf16 a multiple of 1/8
        best, rounded = (head @ hidden).argmax(), (head.bfloat16() @ hidden.bfloat16()).argmax()
    assert best != rounded
    with arithmetic(learner, "bf16"):
        assert generate_texts(student, [question], task="ada", max_new_tokens=1) == [student.tokenizer.decode([best])]


CHOICES = ("Ice", "ice cream", "A thermometer", "yes")


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("ice", 0),
        (" ICE. ", 0),
        ('"ice cream"', 1),
        ("a  thermometer", 2),
        ("(b)", 1),
        ("c", 2),
        ("(a) ice", 0),
        ("b. ice cream", 1),
        ("(b) ice", None),
        ("the ice", 0),
        ("ice ice", None),
        ("thermometer", 2),
        ("the", None),
        ("  ", None),
        ("...", None),
        ("z", None),
        ("", None),
        ("yes!", 3),
    ],
)
def test_generated_answers_are_matched(text, choice):
    assert match_choice(text, CHOICES).choice == choice
    assert match_choice(text, CHOICES).text == text


def test_chinese_punctuation_after_a_written_choice_is_ignored():
    assert match_choice("水银。", ("铁", "水银")).choice == 1


ALIKE = {
    ("R", "rr", "Rr"): {"R": 0, "rr": 1, "Rr": 2, "r": 0, "RR": None, "Rr.": 2},
    ("polish", "Polish"): {"polish": 0, "Polish": 1, "POLISH": None, "Polish.": 1, "a Polish": None},
    ("n", "n!", "2n"): {"n": 0, "n!": 1, "N!": 1, "n.": None, "2N": 2, "b": 1, "(b) n!": 1, "(b) n": None},
    ("CO₂", "H₂O", "O₂"): {"CO2": 0, "co2": 0, "CO₂": 0, "H2O.": 1, "the O2": 2},
    ("...", "?!"): {"...": 0, "?!": 1, "": None, ".": None},
    ("A", "B", "AB", "O"): {"A": 0, "b": 1, "O": 3, "(c)": 2, "d": 3, "a": 0},
}


@pytest.mark.parametrize("choices", ALIKE)
def test_what_choices_differ_in_is_not_forgiven(choices):
    def nfkc(text):
        return unicodedata.normalize("NFKC", text)

    found = {text: match_choice(text, choices, nfkc).choice for text in ALIKE[choices]}
    assert found == ALIKE[choices]


def test_labels_after_z_are_those_of_the_prompt():
    many = tuple(f"number {n}" for n in range(40))
    assert [match_choice(t, many).choice for t in ("(z)", "(27)", "28", "(40) number 39", "(41)")] == [
        25,
        26,
        27,
        39,
        None,
    ]
    for text in ("", " ", "|", "{", "}", "~", "(|)", "(28) number 3"):
        assert match_choice(text, many).choice is None


@settings(deadline=None)
@given(
    st.lists(
        st.text("aAbnR! .the²", min_size=1, max_size=4).filter(str.strip), min_size=2, max_size=5, unique_by=str.strip
    )
)
def test_the_text_of_a_choice_is_that_choice(choices):
    assert [match_choice(c, choices).choice for c in choices] == list(range(len(choices)))


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_greedy_whatever_the_models_own_settings_say(family):
    student = tiny_student(family)
    questions = some_questions(4)
    plain = generate_texts(student, questions, max_new_tokens=6)
    own = student.model.generation_config
    own.update(
        repetition_penalty=9.0, do_sample=True, temperature=3.0, no_repeat_ngram_size=1, min_new_tokens=5,
        forced_bos_token_id=77, forced_eos_token_id=78, suppress_tokens=[79, 80], num_beams=2, eos_token_id=99,
    )  # fmt: skip
    kept = own.to_dict()
    assert generate_texts(student, questions, max_new_tokens=6) == plain
    assert student.model.generation_config is own
    assert own.to_dict() == kept


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_the_likeliest_token_each_time(family):
    student = tiny_student(family)
    (question,) = some_questions(1)
    encoder = student.encoder()
    prompt = encoder.generation_prompt(question, student.card.prefixes["ada"])
    written: list[int] = []
    for _ in range(6):
        with torch.no_grad():
            if student.is_encoder_decoder:
                decoder = torch.tensor([[0, *written]])
                logits = student.model(input_ids=torch.tensor([prompt]), decoder_input_ids=decoder).logits
            else:
                logits = student.model(input_ids=torch.tensor([[*prompt, *written]])).logits
        written.append(int(logits[0, -1].argmax()))
        if written[-1] == encoder.end:
            break
    expected = student.tokenizer.decode(written, skip_special_tokens=True).strip()
    assert generate_texts(student, [question], task="ada", max_new_tokens=6) == [expected]


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_an_answer_may_be_as_long_as_the_longest_choice(family):
    long = Question("q", "Which?", ("a choice of quite a few words", "ice"), 0)
    student = taught(family, long)
    short = Question("other", "Which?", ("ice", "iron"), 0)
    found = generate_answers(student, [long, short], max_new_tokens=2)
    assert (found[0].text, found[0].choice) == (long.answer_text, 0)
    assert generate_answers(student, [short], max_new_tokens=2)[0] == found[1], "its own choices set its length"


def test_a_text_is_matched_with_what_the_tokenizer_writes_for_a_choice():
    question = Question("q", "Which?", ("CO₂", "H₂O", "O₂"), 0)
    student = taught("t5", replace(question, choices=("CO2", "H2O", "O2")))
    student.tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    (found,) = generate_answers(student, [question])
    assert (found.text, found.choice) == ("CO2", 0)


def test_choices_that_are_the_same_match_neither():
    assert match_choice("ICE!", ("ice", "Ice.")).choice is None
    assert match_choice("ice", ("ice", "ice")).choice is None


def test_normalise():
    assert _normalise("  “The  Moon.” ") == "the moon"


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_target_scores_are_means_of_the_plain_models_log_probabilities(family):
    student, questions = tiny_student(family), some_questions(4)
    targets = [t for t in tinyllm(questions, some_rationales(questions), SETTINGS) if t.task != "answer"]
    found = score_targets(student, student.learner(), questions, targets)
    assert found.keys() == {(t.question_id, t.task) for t in targets}
    encoder = student.encoder()
    of_id = {q.id: q for q in questions}
    for t in targets:
        prompt, target = encoder.generation_prompt(of_id[t.question_id], t.prefix), encoder.target(t.text)
        with torch.no_grad():
            if student.is_encoder_decoder:
                labels = torch.tensor([target])
                logits = student.model(input_ids=torch.tensor([prompt]), labels=labels).logits[0]
            else:
                logits = student.model(input_ids=torch.tensor([[*prompt, *target]])).logits[0, len(prompt) - 1 : -1]
        by_token = logits.log_softmax(-1)[range(len(target)), list(target)]
        assert found[t.question_id, t.task] == pytest.approx(by_token.mean().item(), rel=1e-3)
