"""Teachers without a model: given rationales and scripts. Also the table of kinds."""

import asyncio
import subprocess
import sys

import pytest

from tinyllm import config
from tinyllm.errors import TeacherError
from tinyllm.prompts import Prompt
from tinyllm.questions import Question
from tinyllm.questions._spool import gather
from tinyllm.teachers import Prompted, make_teacher
from tinyllm.teachers._scripted import ScriptedTeacher
from tinyllm.teachers.base import Reply, Request, Sampling

QUESTIONS = [
    Question("a", "Why {answer}?", ("up {question}", "down"), 0, rationales={"ada": "For a reason.", "bob": " "}),
    Question("b", "How?", ("so", "not so"), 1),
]
SAMPLING = Sampling(8, 0.7, 0.9, 0)


def ask(teacher, question_id: str):
    async def run():
        async with teacher as entered:
            return await entered.ask(Request(question_id, Prompt(text="one two"), SAMPLING))

    return asyncio.run(run())


def test_given_rationales_are_replies_whose_end_is_unknown():
    teacher = make_teacher(config.GivenTeacher(name="ada", kind="given"), QUESTIONS)
    assert ask(teacher, "a") == Reply("For a reason.", "unknown")
    assert ask(teacher, "b") is None
    assert (teacher.stored, teacher.local) == (False, False)
    assert not isinstance(teacher, Prompted)


def test_given_rationales_may_have_another_key_and_blank_ones_are_none():
    teacher = make_teacher(config.GivenTeacher(name="x", kind="given", source="ada"), QUESTIONS)
    assert ask(teacher, "a").text == "For a reason."
    assert ask(make_teacher(config.GivenTeacher(name="bob", kind="given"), QUESTIONS), "a") is None


def test_a_given_rationale_is_read_from_its_question_as_it_would_be_asked_for():
    for name in ("ada", "bob", "cleo"):
        teacher = make_teacher(config.GivenTeacher(name=name, kind="given"), QUESTIONS)
        assert [teacher.reply(q) for q in QUESTIONS] == [ask(teacher, q.id) for q in QUESTIONS]
    assert ask(teacher, "nobody's") is None


def test_an_unknown_key_of_given_rationales_lists_the_known_ones():
    make_teacher(config.GivenTeacher(name="bob", kind="given"), QUESTIONS).check()
    with pytest.raises(TeacherError, match=r"under 'adda'\. Did you mean 'ada'\? Keys in .*: ada, bob\. Correct"):
        make_teacher(config.GivenTeacher(name="adda", kind="given"), QUESTIONS).check()
    with pytest.raises(TeacherError, match=r"under 'ada'\. Keys in the questions' `rationales`: none\."):
        make_teacher(config.GivenTeacher(name="ada", kind="given"), QUESTIONS[1:]).check()


def test_questions_on_disk_are_answered_as_those_in_memory():
    asked = gather(QUESTIONS, in_memory=0)
    given = make_teacher(config.GivenTeacher(name="ada", kind="given"), asked)
    given.check()
    assert ask(given, "a") == Reply("For a reason.", "unknown")
    assert ask(ScriptedTeacher("s", asked, "{answer}"), "b").text == "not so"


def test_a_template_is_filled_in_once():
    teacher = make_teacher(
        config.ScriptedTeacher(name="s", kind="scripted", template="{answer}! {question} {x}"), QUESTIONS
    )
    reply = ask(teacher, "a")
    assert reply.text == "up {question}! Why {answer}? {x}"
    assert reply.finish_reason == "stop"
    assert isinstance(teacher, Prompted)


def test_identity_changes_with_the_template_only():
    def identity(name: str, template: str):
        return make_teacher(config.ScriptedTeacher(name=name, kind="scripted", template=template), []).identity

    assert identity("s", "a") == identity("t", "a") != identity("s", "b")


def test_a_script_may_be_a_function_that_waits_or_has_nothing():
    async def later(question, request):
        await asyncio.sleep(0)
        return Reply(question.id, "length") if question.id == "a" else None

    teacher = ScriptedTeacher("s", QUESTIONS, later)
    assert ask(teacher, "a") == Reply("a", "length")
    assert ask(teacher, "b") is None
    assert ask(ScriptedTeacher("s", QUESTIONS, lambda q, r: r.prompt.text), "a").text == "one two"


@pytest.mark.parametrize("kind", ["given", "scripted", "openai"])
def test_making_a_teacher_loads_no_torch(kind):
    more = ", model='m'" if kind == "openai" else ""
    code = (
        "import sys, pydantic\nfrom tinyllm import config\nfrom tinyllm.teachers import make_teacher\n"
        f"spec = pydantic.TypeAdapter(config.TeacherConfig).validate_python(dict(name='t', kind='{kind}'{more}))\n"
        "make_teacher(spec, [])\nassert not {'torch', 'transformers', 'pyarrow', 'xllamacpp'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
