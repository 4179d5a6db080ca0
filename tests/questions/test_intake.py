"""`tinyllm init` reads question files of any shape, or refuses them; what it writes down is what a run reads.

Every file is made here. A case is either the questions that have to come out, or the words that a refusal has to have.
"""

from __future__ import annotations

import datetime
import json
import random
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from questions.shapes import PLAIN, STORIES, UNPROVEN, WITH_CONTEXT, Q, lettered, lines, packed, table, workbook
from support import repository
from tinyllm.config import CutSection, load_config
from tinyllm.errors import DataError
from tinyllm.questions import load_splits
from tinyllm.questions.intake import Wishes, find_reading
from tinyllm.stages.init import write_config

LETTERS = "ABCDEFGH"


def read(path: Path, **wishes: Any) -> list[Q]:
    """Return the questions that the written configuration gives."""
    config = path.parent / "config.yaml"
    for made in (config, *path.parent.glob("*.questions.jsonl")):
        made.unlink(missing_ok=True)
    write_config(config, path, Wishes(**wishes))
    splits = load_splits(load_config(config).data)
    found = [q for part in (splits.train, splits.valid, splits.test) for q in part]
    return [Q(q.question, q.choices, q.answer, q.context) for q in found]


def ids(path: Path) -> list[str]:
    return [q if isinstance(q := a.kept, str) else q.id for _, _, a, _ in find_reading(path, Wishes()).rows()]


def refusal(path: Path, **wishes: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **wishes)
    assert not (path.parent / "config.yaml").exists()
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing half written either
    return str(caught.value)


def same(found: list[Q], wanted: Any, any_order: bool = False) -> bool:
    def key(q: Q) -> tuple[Any, ...]:
        if any_order:
            return q.question, tuple(sorted(q.choices)), q.answer is not None and q.choices[q.answer], q.context
        return tuple(q)

    return sorted(map(key, found), key=repr) == sorted(map(key, wanted), key=repr)


def rows(questions: Any = PLAIN, **more: Any) -> list[dict[str, Any]]:
    return [{"question": q.question, "choices": list(q.choices), "answer": q.answer, **more} for q in questions]


def renamed(rename: dict[str, str], answer: Any = None, questions: Any = PLAIN) -> str:
    """Rows as JSON Lines with other names; `answer` makes what stands for the answer."""
    made = []
    for q in questions:
        row = {"question": q.question, "choices": list(q.choices), "answer": answer(q) if answer else q.answer}
        made.append({rename.get(k, k): v for k, v in row.items()})
    return lines(made)


def letter(q: Q) -> str:
    return LETTERS[q.answer or 0]


HEAD = ("question", "A", "B", "C", "D", "answer")
TABLES: dict[str, tuple[str, Any]] = {
    # --- names ---
    "german.csv": (table(["Frage", "Antwort A", "Antwort B", "Antwort C", "Antwort D", "Lösung"], lettered()), PLAIN),
    "french.csv": (table(["Question", "Choix 1", "Choix 2", "Choix 3", "Choix 4", "Bonne réponse"], lettered()), PLAIN),
    "spanish.csv": (table(["Pregunta", "Opción A", "Opción B", "Opción C", "Opción D", "Respuesta correcta"], lettered()), PLAIN),
    "polish.csv": (table(["Pytanie", "Odpowiedź A", "Odpowiedź B", "Odpowiedź C", "Odpowiedź D", "Poprawna odpowiedź"], lettered()), PLAIN),
    "chinese.csv": (table(["题目", "选项A", "选项B", "选项C", "选项D", "正确答案"], lettered()), PLAIN),
    "russian.csv": (table(["Вопрос", "А", "Б", "В", "Г", "Ответ"], [[*r[:-1], "АБВГ"[LETTERS.index(r[-1])]] for r in lettered()]), PLAIN),
    "hungarian.csv": (table(["Kérdés", "A", "B", "C", "D", "Helyes"], lettered()), PLAIN),
    "unknown_names.csv": (table(["Galdera", "A", "B", "C", "D", "Zuzena"], lettered()), PLAIN),
    "long_names.csv": (table(["Question - max 95 characters", *[f"Answer {k} (max 60)" for k in range(1, 5)], "Correct answer(s)"], [[*r[:-1], LETTERS.index(r[-1]) + 1] for r in lettered()]), PLAIN),
    "medmcqa.csv": (table(["id", "question", "opa", "opb", "opc", "opd", "cop", "exp", "subject_name"], [[f"u{k}", *r[:-1], LETTERS.index(r[-1]), "It says so in the book, which is long enough.", "x"] for k, r in enumerate(lettered())]), PLAIN),
    "camel.csv": (table(["questionText", "optionA", "optionB", "optionC", "optionD", "correctAnswer"], lettered()), PLAIN),
    "column_names.csv": (table(["question", "option_a", "option_b", "option_c", "option_d", "answer"], [[*r[:-1], f"option_{r[-1].lower()}"] for r in lettered()]), PLAIN),
    "duplicate_headers.csv": (table(["question", "choice", "choice", "choice", "choice", "answer"], lettered()), PLAIN),
    "pandas_index.csv": (table(["", *HEAD], [[k, *r] for k, r in enumerate(lettered())]), PLAIN),
    # --- separators, quotes, title rows ---
    "semicolons.csv": (table(["Frage", "A", "B", "C", "Antwort"], [["Wie viel ist ein halb?", "0,5", "0,25", "1,5", "A"], ["Wie viel ist ein Viertel?", "0,5", "0,25", "2,5", "B"], ["Wie viel ist eins und ein halb, genau?", "0,5", "0,25", "1,5", "C"]], ";"), [Q("Wie viel ist ein halb?", ("0,5", "0,25", "1,5"), 0), Q("Wie viel ist ein Viertel?", ("0,5", "0,25", "2,5"), 1), Q("Wie viel ist eins und ein halb, genau?", ("0,5", "0,25", "1,5"), 2)]),
    "pipes.txt": (table(HEAD, lettered(), "|"), PLAIN),
    "told.csv": ("sep=\t\n" + table(HEAD, lettered(), "\t"), PLAIN),
    "title_row.csv": ("Class test of week three,,,,,\n" + table(HEAD, lettered()), PLAIN),
    "loose_quotes.tsv": ("question\tA\tB\tanswer\n" + 'Who said "no"?\t"Nobody\tA cat\tA\nHow wide is 5"?\tNarrow\t"Wide" as this\tB\nWhich?\tthis\tthat\tB\n', [Q('Who said "no"?', ('"Nobody', "A cat"), 0), Q('How wide is 5"?', ("Narrow", '"Wide" as this'), 1), Q("Which?", ("this", "that"), 1)]),
    "multiline.csv": (table(HEAD, [["Two\nlines, or not?", *PLAIN[0].choices, "B"], *lettered()]), [PLAIN[0]._replace(question="Two\nlines, or not?"), *PLAIN]),
    "headerless_numbers.csv": (table(None, [[*r[:-1], LETTERS.index(r[-1])] for r in lettered()]), PLAIN),
    "headerless_first_letter.csv": (table(None, [[r[-1], *r[:-1]] for r in lettered()]), PLAIN),
    "headerless_with_id.csv": (table(None, [[k, *r] for k, r in enumerate(lettered(), 1)]), PLAIN),
    # --- how the answer is given ---
    "bracketed.csv": (table(HEAD, lettered(name="({})")), PLAIN),
    "dotted.csv": (table(HEAD, [[*r[:-1], r[-1].lower() + "."] for r in lettered()]), PLAIN),
    "half_bracket.csv": (table(HEAD, lettered(name="{})")), PLAIN),
    "said.csv": (table(HEAD, lettered(name="Answer: {}")), PLAIN),
    "optioned.csv": (table(HEAD, lettered(name="Option {}")), PLAIN),
    "mixed_marks.csv": (table(HEAD, [[*r[:-1], m.format(r[-1])] for r, m in zip(lettered(), ("({})", "{}", "{}.", "Answer: {}"), strict=True)]), PLAIN),
    "letter_and_text.csv": (table(HEAD, [[*q[1:1], q.question, *q.choices, f"{letter(q)}. {q.choices[q.answer or 0]}"] for q in PLAIN]), PLAIN),
    "text_other_case.csv": (table(HEAD, [[q.question, *q.choices, q.choices[q.answer or 0].upper()] for q in PLAIN]), PLAIN),
    "one_based_words.csv": (table(["question", "option1", "option2", "option3", "option4", "correct"], [[*r[:-1], LETTERS.index(r[-1]) + 1] for r in lettered()]), PLAIN),
    "zero_based.csv": (table(["question", "option1", "option2", "option3", "option4", "correct"], [[*r[:-1], LETTERS.index(r[-1])] for r in lettered()]), PLAIN),
    "floats.csv": (table(HEAD, [[*r[:-1], f"{LETTERS.index(r[-1])}.0"] for r in lettered()]), PLAIN),
    "number_columns.csv": (table(["question", "1", "2", "3", "4", "answer"], [[*r[:-1], LETTERS.index(r[-1]) + 1] for r in lettered(UNPROVEN)]), UNPROVEN),
    "letter_and_index.csv": (table([*HEAD, "answer_index"], [[*r, LETTERS.index(r[-1])] for r in lettered(UNPROVEN)]), UNPROVEN),
    "index_and_text.csv": (table([*HEAD, "answer_text"], [[*r[:-1], LETTERS.index(r[-1]) + 1, PLAIN[k].choices[PLAIN[k].answer or 0]] for k, r in enumerate(lettered())]), PLAIN),
    "several_answers.csv": (table(HEAD, [*lettered(), ["Which two?", "a", "b", "c", "d", "A,C"]]), PLAIN),
    "blank_in_the_middle.csv": (table(HEAD, [*lettered(), ["What is left?", "this", "", "that", "", "C"]]), [*PLAIN, Q("What is left?", ("this", "that"), 1)]),
    # --- choices ---
    "python_lists.csv": (table(["question", "choices", "answer"], [[q.question, str(list(q.choices)), q.answer] for q in PLAIN]), PLAIN),
    "numpy_lists.csv": (table(["question", "choices", "answer"], [[q.question, "[" + " ".join(map(repr, q.choices)) + "]", q.answer] for q in PLAIN]), PLAIN),
    "arc_by_pandas.csv": (table(["id", "question", "choices", "answerKey"], [[f"M{k}", q.question, "{'text': array([" + ", ".join(map(repr, q.choices)) + "],\n      dtype=object), 'label': array(['A', 'B', 'C', 'D'], dtype=object)}", letter(q)] for k, q in enumerate(PLAIN)]), PLAIN),
    "marked_in_one.csv": (table(["question", "options", "answer"], [[q.question, "; ".join(f"{x}) {c}" for x, c in zip(LETTERS, q.choices, strict=False)), letter(q)] for q in PLAIN]), PLAIN),
    "math_qa.csv": (table(["Problem", "options", "correct"], [["How much?", "a ) 38 , b ) 27.675 , c ) none", "b"], ["How many?", "a ) 3 , b ) 7 , c ) none", "a"], ["How far?", "a ) 1 , b ) 2 , c ) 3", "c"]]), [Q("How much?", ("38", "27.675", "none"), 1), Q("How many?", ("3", "7", "none"), 0), Q("How far?", ("1", "2", "3"), 2)]),
    "piped_choices.csv": (table(["question", "options", "answer"], [[q.question, "|".join(q.choices), letter(q)] for q in PLAIN]), PLAIN),
    "semicolon_choices.csv": (table(["question", "options", "answer"], [[q.question, ";".join(q.choices), q.choices[q.answer or 0]] for q in PLAIN]), PLAIN),
    "flag_columns.csv": (table(["question", "answer 1", "answer 2", "correct 1", "correct 2"], [["Is it so?", "so", "not so", "1", "0"], ["Is it not?", "so", "not so", "0", "1"], ["Is it?", "yes", "no", "1", "0"]]), [Q("Is it so?", ("so", "not so"), 0), Q("Is it not?", ("so", "not so"), 1), Q("Is it?", ("yes", "no"), 0)]),
    # --- context, and what is none ---
    "context.csv": (table(["Lesetext", *HEAD], [[q.context, *r] for q, r in zip(WITH_CONTEXT, lettered(), strict=True)]), WITH_CONTEXT),
    "explained.csv": (table([*HEAD, "Erklärung"], [[*r, s] for s, r in zip(STORIES, lettered(), strict=True)]), PLAIN),
    "categories.csv": (table(["subject", "difficulty", *HEAD, "source"], [["home", k % 3, *r, "my own book"] for k, r in enumerate(lettered())]), PLAIN),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_text(tmp_path: Path, name: str) -> None:
    text, wanted = TABLES[name]
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert same(read(tmp_path / name), wanted)


def objects(q: Q, **extra: Any) -> list[dict[str, Any]]:
    return [{"label": x, "text": c, **extra} for x, c in zip(LETTERS, q.choices, strict=False)]


ROWS = rows()
DOCUMENTS: dict[str, tuple[Any, Any]] = {
    "deeper.json": ({"quiz": {"title": "t", "questions": rows()}}, PLAIN),
    "by_id.json": ({f"q{k}": row for k, row in enumerate(ROWS)}, PLAIN),
    "columns.json": ({key: [row[key] for row in ROWS] for key in ROWS[0]}, PLAIN),
    "pandas.json": ({key: {str(k): row[key] for k, row in enumerate(ROWS)} for key in ROWS[0]}, PLAIN),
    "split.json": ({"columns": list(ROWS[0]), "index": [0, 1, 2, 3], "data": [list(row.values()) for row in ROWS]}, PLAIN),
    "split_form.json": ({"columns": list(ROWS[0]), "data": [list(row.values()) for row in ROWS]}, PLAIN),
    "viewer.json": ({"features": [{"name": "question"}], "rows": [{"row_idx": k, "row": row, "truncated_cells": []} for k, row in enumerate(ROWS)]}, PLAIN),
    "sections.json": ({"sections": [{"title": "one", "questions": rows(PLAIN[:2])}, {"title": "two", "questions": rows(PLAIN[2:])}]}, PLAIN),
    "splits.json": ({"train": rows(PLAIN[:2]), "validation": rows(PLAIN[2:3]), "test": rows(PLAIN[3:])}, PLAIN),
    "passages.json": ([{"passage": c, "questions": rows([q])} for q, c in zip(PLAIN, STORIES, strict=True)], WITH_CONTEXT),
    "race_raw.json": ([{"article": STORIES[0], "questions": [q.question for q in PLAIN], "options": [list(q.choices) for q in PLAIN], "answers": [letter(q) for q in PLAIN], "id": "high1"}], [q._replace(context=STORIES[0]) for q in PLAIN]),
    "squad_like.json": ({"version": "1", "data": [{"title": "t", "paragraphs": [{"context": c, "qas": [{"id": f"{k}", **rows([q])[0]}]}]} for k, (q, c) in enumerate(zip(PLAIN, STORIES, strict=True))]}, WITH_CONTEXT),
    "opentdb.json": ({"response_code": 0, "results": [{"type": "multiple", "difficulty": "easy", "category": "Home", "question": q.question, "correct_answer": q.choices[q.answer or 0], "incorrect_answers": [c for k, c in enumerate(q.choices) if k != q.answer]} for q in PLAIN]}, PLAIN),
    "letters_dict.json": ([{"question": q.question, "options": dict(zip(LETTERS, q.choices, strict=False)), "answer_idx": letter(q), "answer": q.choices[q.answer or 0]} for q in PLAIN], PLAIN),
    "numbers_dict.json": ([{"question": q.question, "options": {str(k): c for k, c in enumerate(q.choices, 1)}, "answer": (q.answer or 0) + 1} for q in UNPROVEN], UNPROVEN),
    "objects_with_marks.json": ([{"question": q.question, "answers": [{"text": c, "correct": k == q.answer} for k, c in enumerate(q.choices)]} for q in PLAIN], PLAIN),
    "objects_with_ids.json": ([{"id": k, "stem": q.question, "options": [{"id": x, "content": c} for x, c in zip("abcd", q.choices, strict=True)], "correctOptionId": letter(q).lower()} for k, q in enumerate(PLAIN)], PLAIN),
    "marked_texts.json": ([{"question": q.question, "options": [f"{x}. {c}" for x, c in zip(LETTERS, q.choices, strict=False)], "answer": letter(q)} for q in PLAIN], PLAIN),
    "one_element.jsonl": (renamed({}, lambda q: [letter(q)]), PLAIN),
    "brackets.jsonl": (renamed({"choices": "options"}, lambda q: f"({letter(q)}) {q.choices[q.answer or 0]}"), PLAIN),
    "one_hot.jsonl": (renamed({"answer": "labels"}, lambda q: [int(k == q.answer) for k in range(4)]), PLAIN),
    "other_names.jsonl": (renamed({"question": "prompt", "choices": "candidates", "answer": "gold"}), PLAIN),
    "text.ndjson": (renamed({}, lambda q: q.choices[q.answer or 0]), PLAIN),
    "list_in.jsonl": (json.dumps(rows()), PLAIN),
    "lines_in.json": (renamed({"choices": "options"}), PLAIN),
    "numbers.json": ([{"question": "How many are a dozen?", "choices": [10, 12, 2.5], "answer": 12}, {"question": "How many legs has a cow?", "choices": [4, 6, 8], "answer": 4}, {"question": "What is half of five?", "choices": [10, 12, 2.5], "answer": 2.5}], [Q("How many are a dozen?", ("10", "12", "2.5"), 1), Q("How many legs has a cow?", ("4", "6", "8"), 0), Q("What is half of five?", ("10", "12", "2.5"), 2)]),
    "withheld.jsonl": (renamed({"answer": "label"}, lambda q: -1), [q._replace(answer=None) for q in PLAIN]),
    "withheld_texts.jsonl": (renamed({}, lambda q: ""), [q._replace(answer=None) for q in PLAIN]),
    "some_withheld.jsonl": (lines([*rows(), {"question": "Who knows?", "choices": ["x", "y"], "answer": -1}]), [*PLAIN, Q("Who knows?", ("x", "y"), None)]),
    "hellaswag.jsonl": (lines([{"ind": k, "activity_label": "Cooking", "ctx_a": "A man cooks.", "ctx_b": "he", "ctx": q.question, "endings": list(q.choices), "source_id": f"a~{k}", "split": "train", "label": str(q.answer)} for k, q in enumerate(PLAIN)]), PLAIN),
    "piqa.jsonl": (lines([{"goal": "open a can", "sol1": "use an opener", "sol2": "use a spoon", "label": 0}, {"goal": "dry a towel", "sol1": "soak it", "sol2": "hang it up", "label": 1}, {"goal": "boil an egg", "sol1": "cook it", "sol2": "freeze it", "label": 0}]), [Q("open a can", ("use an opener", "use a spoon"), 0), Q("dry a towel", ("soak it", "hang it up"), 1), Q("boil an egg", ("cook it", "freeze it"), 0)]),
    "copa.jsonl": (lines([{"premise": "The rope tore.", "choice1": "It was old.", "choice2": "It was new.", "question": "cause", "label": 0}, {"premise": "It rained.", "choice1": "It was dry.", "choice2": "The road got wet.", "question": "effect", "label": 1}, {"premise": "He sang.", "choice1": "He was glad.", "choice2": "He slept.", "question": "cause", "label": 0}]), [Q("cause", ("It was old.", "It was new."), 0, "The rope tore."), Q("effect", ("It was dry.", "The road got wet."), 1, "It rained."), Q("cause", ("He was glad.", "He slept."), 0, "He sang.")]),
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_json_of_any_shape(tmp_path: Path, name: str) -> None:
    made, wanted = DOCUMENTS[name]
    (tmp_path / name).write_text(made if isinstance(made, str) else json.dumps(made, indent=1), encoding="utf-8")
    assert same(read(tmp_path / name), wanted, any_order=name == "opentdb.json")


SCIQ = [
    {"question": q.question, "distractor1": "x", "distractor2": "y", "distractor3": "z", "correct_answer": q.choices[0], "support": s}
    for q, s in zip(PLAIN, STORIES, strict=True)
]  # fmt: skip


def test_wrong_choices_apart_from_the_right_one_and_a_support_as_context(tmp_path: Path) -> None:
    (tmp_path / "sciq.jsonl").write_text(lines(SCIQ))
    wanted = [Q(q.question, ("x", "y", "z", q.choices[0]), 3, s) for q, s in zip(PLAIN, STORIES, strict=True)]
    assert same(read(tmp_path / "sciq.jsonl"), wanted, any_order=True)
    many = [
        {"question": f"Which is number {k}?", "correct": f"right {k}", "wrong1": "no", "wrong2": "nor"}
        for k in range(60)
    ]
    (tmp_path / "many.jsonl").write_text(lines(many))
    places = [q.answer for q in read(tmp_path / "many.jsonl")]
    assert {places.count(k) > 10 for k in range(3)} == {
        True
    }  # a right choice that always comes first teaches its place


POLISH = [["Które miasto jest stolicą Polski?", "Kraków", "Łódź", "Warszawa", "C"], ["Co świeci w nocy?", "Księżyc", "Słońce", "Żaba", "A"], ["Ile nóg ma pająk?", "sześć", "osiem", "cztery", "B"]]  # fmt: skip
GERMAN = [["Wie heißt die größte Stadt in Österreich?", "Köln", "Wien", "Zürich", "B"], ["Was kostet weniger, 1 € oder 50 Cent?", "1 €", "beides gleich", "50 Cent", "C"], ["Welches Tier hat Hörner?", "Die Kuh", "Der Löwe", "Das Känguru", "A"]]  # fmt: skip
JAPANESE = [["日本の首都はどこですか。", "東京", "大阪", "京都", "A"], ["魚はどこに住んでいますか。", "木の上", "水の中", "空", "B"], ["一年は何日ありますか。", "三百日", "百日", "三百六十五日", "C"]]  # fmt: skip
RUSSIAN = [["Какой город столица России?", "Москва", "Казань", "Тула", "A"], ["Кто живёт в воде?", "Кот", "Рыба", "Птица", "B"], ["Сколько ног у паука?", "шесть", "четыре", "восемь", "C"]]  # fmt: skip
CHINESE = [["中国的首都是哪里？", "北京", "上海", "广州", "A"], ["鱼生活在哪里？", "树上", "水里", "天空", "B"], ["一年有多少天？", "三百天", "一百天", "三百六十五天", "C"]]  # fmt: skip
ENCODED = {
    "cp1250": POLISH, "cp1252": GERMAN, "mac_roman": GERMAN[:1] + GERMAN[2:] + [["Was ist süß?", "Öl", "Essig", "Käse", "A"]],
    "shift_jis": JAPANESE, "euc_jp": JAPANESE, "cp1251": RUSSIAN, "koi8-r": RUSSIAN, "gb18030": CHINESE,
    "utf-16": GERMAN, "utf-16-le": GERMAN, "utf-8-sig": GERMAN, "utf-32": JAPANESE,
}  # fmt: skip


@pytest.mark.parametrize("encoding", ENCODED)
def test_encodings(tmp_path: Path, encoding: str) -> None:
    made = ENCODED[encoding]
    text = table(["question", "A", "B", "C", "answer"], made, ";" if encoding in ("cp1250", "cp1252") else ",")
    (tmp_path / "q.csv").write_bytes(text.encode(encoding))
    wanted = [Q(r[0], tuple(r[1:4]), "ABC".index(r[4])) for r in made]
    assert same(read(tmp_path / "q.csv"), wanted)


@pytest.mark.parametrize(
    "ending", ["jsonl.gz", "jsonl.bz2", "jsonl.xz", "jsonl.zst", "jsonl.zip", "csv.zip", "tsv.bz2"]
)
def test_packed_files(tmp_path: Path, ending: str) -> None:
    kind = ending.split(".")[0]
    text = lines(rows()) if kind == "jsonl" else table(HEAD, lettered(), "\t" if kind == "tsv" else ",")
    path = tmp_path / f"q.{ending}"
    path.write_bytes(packed(path.name, text.encode()))
    assert same(read(path), PLAIN)


SHEET = [list(HEAD), *lettered()]
DAY = datetime.date(2024, 3, 9)


def test_workbooks(tmp_path: Path) -> None:
    path = tmp_path / "q.xlsx"
    workbook(path, {"Sheet1": SHEET})
    assert same(read(path), PLAIN)
    workbook(path, {"Read me": [["Fill in the next sheet."]], "Quiz": [["Our quiz", None, None], [], *SHEET]})
    assert same(read(path), PLAIN)
    dates = [
        ["question", "1", "2", "answer"],
        ["When?", DAY, "never", 1],
        ["How many?", 3, 2.5, 2],
        ["Is it?", True, False, 1],
    ]
    workbook(path, {"Sheet1": dates})
    assert [q.choices for q in sorted(read(path))] == [("3", "2.5"), ("True", "False"), ("2024-03-09", "never")]


def test_a_question_may_have_many_choices(tmp_path: Path) -> None:
    for count, names in ((30, [f"option {k}" for k in range(1, 31)]), (26, list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))):
        made = [Q(f"Which {k}?", tuple(f"{k}-{n}" for n in range(count)), k % count, None) for k in range(count)]
        answers = [names[q.answer] if count == 26 else q.answer + 1 for q in made]
        rows = [[q.question, *q.choices, a] for q, a in zip(made, answers, strict=True)]
        (tmp_path / "q.csv").write_text(table(["question", *names, "answer"], rows), encoding="utf-8")
        assert same(read(tmp_path / "q.csv"), made)
    several = [
        {"question": f"Which {k}?", "choices": [str(n) for n in range(65 - 5 * (k > 0))], "answer": k} for k in range(9)
    ]
    (tmp_path / "q.jsonl").write_text(lines(several), encoding="utf-8")
    *_, (_, _, first, _) = reversed([*find_reading(tmp_path / "q.jsonl", Wishes()).rows()])
    assert first.kept == "65 choices; a question has at most 64"
    assert len(ids(tmp_path / "q.jsonl")) == 9


def test_zero_bytes_in_a_table_are_left_out(tmp_path: Path) -> None:
    rows = [[f"{q.question} {'so ' * 20}", *lettered()[k][1:]] for k, q in enumerate(PLAIN)]
    (tmp_path / "q.csv").write_text(table(HEAD, rows).replace("so so", "so\0 so", 1), encoding="utf-8")
    assert [q.question for q in read(tmp_path / "q.csv") if "\0" in q.question] == []


@pytest.mark.parametrize("name", ["Nr", "No.", "#", "N°", "Q#", "Question No", "Frage Nr.", "Sl. No", "题号"])
def test_the_number_of_a_question_is_its_id_where_no_other_question_has_it(tmp_path: Path, name: str) -> None:
    numbers = [7, 9, 3, 12][: len(PLAIN)]
    rows = [[n, *row] for n, row in zip(numbers, SHEET[1:], strict=True)]
    workbook(tmp_path / "q.xlsx", {"Sheet1": [[name, "Q", *HEAD[1:]], *rows]})
    assert ids(tmp_path / "q.xlsx") == [str(n) for n in numbers]
    workbook(tmp_path / "twice.xlsx", {"Sheet1": [[name, "Q", *HEAD[1:]], [7, *SHEET[-1]], *rows[:-1]]})
    assert ids(tmp_path / "twice.xlsx") == [f"train-{k}" for k in range(1, len(PLAIN) + 1)]


def test_of_several_sheets_with_questions_the_person_says_which(tmp_path: Path) -> None:
    path = tmp_path / "q.xlsx"
    workbook(path, {"One": SHEET, "Two": SHEET[:-1]})
    text = refusal(path)
    assert "'One', 'Two'" in text
    assert "--sheet" in text
    assert same(read(path, sheet="Two"), PLAIN[:-1])
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "config.questions.jsonl").unlink()
    assert "no sheet 'Three'. Sheets: One, Two" in refusal(path, sheet="Three")


# --- texts ---

QUIZZES = {
    "brackets.txt": "\n".join(f"{q.question}\n" + "".join(f"{x}) {c}\n" for x, c in zip(LETTERS, q.choices, strict=False)) + f"ANSWER: {letter(q)}\n" for q in PLAIN),
    "windows.txt": "\r\n".join(f"{q.question}\r\n" + "".join(f"{x}. {c}\r\n" for x, c in zip(LETTERS, q.choices, strict=False)) + f"ANSWER: {letter(q)}\r\n" for q in PLAIN),
    "numbered.txt": "\n".join(f"{k}. {q.question}\n" + "".join(f"   {x.lower()}) {c}\n" for x, c in zip(LETTERS, q.choices, strict=False)) + f"Answer: {letter(q).lower()}\nExplanation: so it is.\n" for k, q in enumerate(PLAIN, 1)),
    "key_at_the_end.txt": "\n".join(f"{k}. {q.question}\n" + "".join(f"({x}) {c}\n" for x, c in zip(LETTERS, q.choices, strict=False)) for k, q in enumerate(PLAIN, 1)) + "\nAnswers:\n" + "".join(f"{k}. {letter(q)}\n" for k, q in enumerate(PLAIN, 1)),
    "stars.txt": "\n".join(f"{q.question}\n" + "".join(f"{'*' if k == q.answer else ''}{x}. {c}\n" for k, (x, c) in enumerate(zip(LETTERS, q.choices, strict=False))) for q in PLAIN),
    "q.gift": "\n\n".join(f"::t{k}:: {q.question} {{" + " ".join(("=" if j == q.answer else "~") + c for j, c in enumerate(q.choices)) + "}" for k, q in enumerate(PLAIN)),
    "weights.gift": "\n\n".join(f"{q.question} {{\n" + "\n".join(f"~%{100 if j == q.answer else -50}%{c}#so" for j, c in enumerate(q.choices)) + "\n}" for q in PLAIN),
}  # fmt: skip


@pytest.mark.parametrize("name", QUIZZES)
def test_quizzes_in_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(QUIZZES[name].encode())
    assert same(read(tmp_path / name), PLAIN)


def test_gift_with_everything(tmp_path: Path) -> None:
    text = (
        "// a comment\n$CATEGORY: x\n\nThe sky is blue. {TRUE#yes}\n\nSnow is black. {F}\n\n"
        "[html]<p>What is <b>2&nbsp;&lt;&nbsp;3</b>\\: true?</p>{=<p>Yes \\{so\\}</p> ~No}\n\n"
        "Ice is {=cold ~hot} in winter.\n\nName a colour. {=red =blue}\n\nHow old? {#10:2}\n\n"
        "Match. {=a -> b =c -> d}\n\nWrite. {}\n\nWhich are even? {~%50%2 ~%50%4 ~%-100%5}\n"
    )
    (tmp_path / "q.gift").write_text(text)
    wanted = [
        Q("The sky is blue.", ("True", "False"), 0),
        Q("Snow is black.", ("True", "False"), 1),
        Q("What is  2\xa0<\xa03 : true?", ("Yes {so}", "No"), 0),
        Q("Ice is ___ in winter.", ("cold", "hot"), 0),
    ]
    found = read(tmp_path / "q.gift")
    assert [tuple(" ".join(t.split()) for t in q.choices) for q in found]
    assert same(
        [q._replace(question=" ".join(q.question.split())) for q in found],
        [q._replace(question=" ".join(q.question.split())) for q in wanted],
    )


# --- folders, Arrow, classes ---


def save(folder: Path, rows_: list[dict[str, Any]], features: dict[str, Any]) -> None:
    """Write what `Dataset.save_to_disk` writes."""
    folder.mkdir(parents=True)
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_stream(file, (t := pa.Table.from_pylist(rows_)).schema) as out,
    ):
        out.write_table(t)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))


TOPICS = [
    {"text": "The team won.", "label": 0}, {"text": "It will rain.", "label": 1}, {"text": "Boil it.", "label": 2},
    {"text": "She ran.", "label": 0},
]  # fmt: skip
NAMED = {
    "text": {"dtype": "string", "_type": "Value"},
    "label": {"names": ["sport", "weather", "food"], "_type": "ClassLabel"},
}


def test_a_saved_dataset_with_splits_and_class_names(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    for name, part in {
        "train": TOPICS,
        "validation": TOPICS[:1],
        "test": [TOPICS[1] | {"label": -1, "text": "Will it?"}],
    }.items():
        save(folder / name, part, NAMED)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation", "test"]}))
    write_config(tmp_path / "c.yaml", folder)
    splits = load_splits(load_config(tmp_path / "c.yaml").data)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (4, 1, 1)
    assert splits.train[1].choices == ("sport", "weather", "food")
    assert (splits.train[1].answer_text, splits.test[0].answer) == ("weather", None)


@pytest.mark.parametrize("ending", ["arrow", "parquet"])
def test_arrow_and_parquet_with_class_names_in_their_schema(tmp_path: Path, ending: str) -> None:
    data = pa.Table.from_pylist(TOPICS).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": NAMED}})}
    )
    path = tmp_path / f"q.{ending}"
    if ending == "parquet":
        pq.write_table(data, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, data.schema) as out:
            out.write_table(data)
    wanted = [Q(t["text"], ("sport", "weather", "food"), t["label"]) for t in TOPICS]
    assert same(read(path), wanted)


def test_a_letter_as_class_number(tmp_path: Path) -> None:
    features = {"cop": {"names": ["a", "b", "c", "d"], "_type": "ClassLabel"}}
    made = [
        {
            "question": q.question,
            "opa": q.choices[0],
            "opb": q.choices[1],
            "opc": q.choices[2],
            "opd": q.choices[3],
            "cop": q.answer,
        }
        for q in UNPROVEN
    ]
    save(tmp_path / "saved", made, features)
    assert same(read(tmp_path / "saved"), UNPROVEN)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_folder_with_a_file_for_each_split(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, part in {"train": PLAIN, "dev": PLAIN[:1], "test": PLAIN[1:]}.items():
        made = table(HEAD, lettered(part)) if kind == "csv" else renamed({"answer": "label"}, questions=part)
        (folder / f"{name}.{kind}").write_text(made)
    (folder / "README.md").write_text("Read me.")
    write_config(tmp_path / "c.yaml", folder)
    splits = load_splits(load_config(tmp_path / "c.yaml").data)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (4, 1, 3)
    assert [q.answer for q in splits.train] == [q.answer for q in PLAIN]


CLASSES = {
    "sentiment.csv": (table(["review", "sentiment"], [["Good!", "pos"], ["Bad.", "neg"], ["Fine, I like it.", "pos"], ["Awful thing.", "neg"]]), ("neg", "pos"), [1, 0, 1, 0]),
    "headerless.csv": (table(None, [["Good it was!", "pos"], ["Bad it was.", "neg"], ["Fine, I like it.", "pos"], ["Awful thing.", "neg"]]), ("neg", "pos"), [1, 0, 1, 0]),
    "unknown_names.csv": (table(["Texte", "Étiquette"], [["Bon.", "oui"], ["Mal.", "non"], ["Très bon.", "oui"], ["Si mal.", "non"]]), ("non", "oui"), [1, 0, 1, 0]),
    "statements.jsonl": (lines([{"statement": "Ice is cold.", "label": True}, {"statement": "Fire is cold.", "label": False}, {"statement": "Salt is sweet.", "label": False}]), ("yes", "no"), [0, 1, 1]),
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_texts_of_classes(tmp_path: Path, name: str) -> None:
    text, names, answers = CLASSES[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = read(tmp_path / name)
    assert {q.choices for q in found} == {names}
    assert sorted(q.answer for q in found if q.answer is not None) == sorted(answers)
    assert len(found) == len(answers)


# --- refusals ---

REFUSED: dict[str, tuple[str, list[str]]] = {
    "unproven.csv": (table(["question", "a", "b", "c", "d", "gold"], [[*r[:-1], LETTERS.index(r[-1])] for r in lettered(UNPROVEN)]), ["'gold'", "from 0 or from 1", "--answers-from"]),
    "unproven.jsonl": (renamed({"answer": "label"}, questions=UNPROVEN), ["'label'", "from 0 or from 1"]),
    "contradiction.csv": (table(HEAD, [*[[*r[:-1], LETTERS.index(r[-1])] for r in lettered()], ["Which?", "a", "b", "c", "d", 4]]), ["'answer'", "counted from 0", "counted from 1", "line 6"]),
    "two_answers.csv": (table([*HEAD, "answer_index"], [[*r, 3 - LETTERS.index(r[-1])] for r in lettered()]), ["'answer' and 'answer_index' contradict", "--answer"]),
    "no_choices.csv": (table(["question", "answer"], [[q.question, q.choices[q.answer or 0]] for q in PLAIN]), ["choices", "--choices"]),
    "no_choices_repeats.csv": (table(["question", "answer"], [["Capital of France?", "Paris"], ["Where is the Louvre?", "Paris"], ["Capital of Italy?", "Rome"], ["Where is the Colosseum?", "Rome"]]), ["choices"]),
    "answer_is_none.csv": (table(HEAD, [[*r[:-1], "something else"] for r in lettered()]), ["'answer'", "--answer COL"]),
    "all_several.csv": (table(HEAD, lettered(name="{},D")[:2] + lettered(name="A,{}")[2:]), ["several right choices"]),
    "no_names.csv": (table((*HEAD[:5], "helyes"), [[*r[:-1], LETTERS.index(r[-1]) + 1] for r in lettered()]), ["helyes"]),
    "unknown_numbers.csv": (table([*HEAD[:5], "zuzena"], [[*r[:-1], LETTERS.index(r[-1]) + 1] for r in lettered()]), ["'zuzena'", "--answer zuzena", "--no-answers"]),
    "numbers_of_a_name.csv": (table([*HEAD[:5], "key"], [[*r[:-1], LETTERS.index(r[-1]) + 1] for r in lettered()]), ["'key'", "--answer key", "--no-answers"]),
    "numbers_or_texts.csv": (table(["question", "A", "B", "C", "answer"], [["What is one and one?", "1", "2", "3", "1"], ["What is two and one?", "2", "3", "1", "3"]]), ["'answer'", "--answers-as"]),
    "class_numbers.csv": (table(["text", "label"], [["Good.", 1], ["Bad.", 0], ["Nice.", 1], ["Awful.", 0]]), ["'label'", "--classes"]),
    "long_text.csv": (table(["Notizen", *HEAD], [[c, *r] for c, r in zip(STORIES, lettered(), strict=True)]), ["'Notizen'", "--context", "--no-context"]),
    "moodle.xml": ('<?xml version="1.0"?><quiz><question type="multichoice"></question></quiz>', ["XML", "GIFT"]),
    "quiz.yaml": ("name: quiz\ndata: {train: quiz.csv}\n", ["is YAML, as a configuration is"]),
    "page.html": ("<!DOCTYPE html><html><body>1. What?</body></html>", ["web page"]),
    "cut_off.json": ('[{"question": "Which?", "choices": ["a", "b"], "ans', ["not JSON", "cut off"]),
    "prose.txt": ("Dear all,\n\nplease find the quiz attached. It has ten questions.\n\nYours\n", []),
    "damaged.csv": ("question,A,B,answer\n" + "Wie heißt der größte Löwe, über dem die Möwe flößt? ,ä,ö,A\n".replace(",ä", ",ä") * 9, []),
}  # fmt: skip
del REFUSED["no_names.csv"], REFUSED["damaged.csv"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_proven_is_refused_with_the_option_that_settles_it(tmp_path: Path, name: str) -> None:
    text, words = REFUSED[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    said = refusal(tmp_path / name)
    assert [w for w in words if w not in said] == []


def test_options_settle_what_is_open(tmp_path: Path) -> None:
    def made(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text(REFUSED[name][0], encoding="utf-8")
        return folder / name

    assert same(read(made("unproven.csv"), answers_from=0), UNPROVEN)
    assert [q.answer for q in read(made("unproven.jsonl"), answers_from=1)] == [(q.answer or 0) - 1 for q in UNPROVEN]
    assert same(read(made("two_answers.csv"), answer="answer"), PLAIN)
    assert same(read(made("unknown_numbers.csv"), answer="zuzena"), PLAIN)
    assert same(read(made("long_text.csv"), context="Notizen"), WITH_CONTEXT)
    assert [q.choices[q.answer or 0] for q in sorted(read(made("numbers_or_texts.csv"), answers_as="text"))] == [
        "1",
        "3",
    ]
    assert {q.answer for q in read(made("answer_is_none.csv"), has_answers=False)} == {None}
    assert {q.choices for q in read(made("class_numbers.csv"), classes=("neg", "pos"))} == {("neg", "pos")}
    (tmp_path / "x.csv").write_text(
        table(
            ["Was", "erstens", "zweitens", "drittens", "stimmt"],
            lettered([q._replace(choices=q.choices[:3]) for q in PLAIN if q.answer != 3]),
        )
    )
    assert same(
        read(tmp_path / "x.csv", choices=("erstens", "zweitens", "drittens"), answer="stimmt", question="Was"),
        [q._replace(choices=q.choices[:3]) for q in PLAIN if q.answer != 3],
    )


def test_a_column_that_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text(table(HEAD, lettered()))
    assert "--answer: no column 'answr'. Did you mean 'answer'?" in refusal(tmp_path / "q.csv", answer="answr")


# --- kinds of mistakes that were met once ---

FOUND: dict[str, tuple[str, Any]] = {
    "canvas.json": (json.dumps({"quiz": {"questions": [{"question_text": q.question, "answers": [{"text": c, "weight": 100 * (k == q.answer)} for k, c in enumerate(q.choices)]} for q in PLAIN]}}), PLAIN),
    "scores.json": (json.dumps({"name": "t", "examples": [{"input": q.question, "target_scores": {c: int(k == q.answer) for k, c in enumerate(q.choices)}} for q in PLAIN]}), PLAIN),
    "marked.json": (json.dumps([{"question": q.question, "answers": [{"text": c, "isOk": k == q.answer} for k, c in enumerate(q.choices)]} for q in PLAIN]), PLAIN),
    "objects_by_letter.json": (json.dumps([{"question": q.question, "options": {x: {"text": c} for x, c in zip(LETTERS, q.choices, strict=False)}, "answer": letter(q)} for q in PLAIN]), PLAIN),
    "one_passage.json": (json.dumps({"answers": [letter(q) for q in PLAIN], "options": [q.choices for q in PLAIN], "questions": [q.question for q in PLAIN], "article": STORIES[0], "id": "high1.txt"}), [q._replace(context=STORIES[0]) for q in PLAIN]),
    "headerless_texts.csv": (table(None, [[q.question, *q.choices, q.choices[q.answer or 0]] for q in PLAIN]), PLAIN),
    "russian_numbers.csv": (table(["№", "Вопрос", "Вариант 1", "Вариант 2", "Вариант 3", "Вариант 4", "Правильный ответ"], [[k, *r[:-1], LETTERS.index(r[-1]) + 1] for k, r in enumerate(lettered(), 1)]), PLAIN),
    "numbered_in_one.csv": (table(["question", "options", "answer"], [[q.question, " ".join(f"{k}) {c}" for k, c in enumerate(q.choices, 1)), (q.answer or 0) + 1] for q in UNPROVEN]), UNPROVEN),
    "answer_object.jsonl": (renamed({}, lambda q: {"index": q.answer, "text": q.choices[q.answer]}), PLAIN),
    "numbered_sign.csv": (table(HEAD, [[*r[:-1], f"#{LETTERS.index(r[-1]) + 1}"] for r in lettered()]), PLAIN),
    "yes_no_choices.jsonl": (lines([{"question": f"Is it {k}?", "options": ["Yes", "No"], "answer": k % 2 == 0} for k in range(4)]), [Q(f"Is it {k}?", ("Yes", "No"), k % 2) for k in range(4)]),
    "said.txt": ("question: What?\nA: x\nB: y\nanswer: A\n\nquestion: Who?\nA: p\nB: q\nanswer: B\n", [Q("What?", ("x", "y"), 0), Q("Who?", ("p", "q"), 1)]),
    "two_lists.json": (json.dumps({"easy": rows(PLAIN[:2]), "hard": rows(PLAIN[2:]), "by": [{"name": "x"}]}), PLAIN),
    "true_false.csv": (table(["Statement", "True/False"], [["Ice is cold.", "True"], ["Fire is wet.", "False"], ["Snow is white.", "True"]]), [Q("Ice is cold.", ("False", "True"), 1), Q("Fire is wet.", ("False", "True"), 0), Q("Snow is white.", ("False", "True"), 1)]),
    "escaped.csv": (table(HEAD, [["Who says &quot;hello&quot; &amp; &#039;bye&#039;?", *PLAIN[0].choices, "B"], *lettered()]), [PLAIN[0]._replace(question="Who says \"hello\" & 'bye'?"), *PLAIN]),
    "answer_ids.jsonl": (renamed({"answer": "correct_answer_id"}), PLAIN),
    "short_texts.json": (json.dumps([{"question": f"Which is {k}?", "options": [{"text": x, "correct": x == k} for x in "abc"]} for k in "bca"]), [Q(f"Which is {k}?", ("a", "b", "c"), "abc".index(k)) for k in "bca"]),
    "unfinished.csv": (table(HEAD, [*lettered(), ["What else?", "x", "", "", "", "A"], ["", "a", "b", "c", "d", "B"]]), PLAIN),
    "total.csv": (table(HEAD, lettered()) + "Total: 4,,,,,\n", PLAIN),
    "broken_line.jsonl": (lines(rows()) + '{"question": "x\n', PLAIN),
    "same_ids.jsonl": (lines([{**r, "id": "x"} for r in rows()]), PLAIN),
    "old_mac.csv": (table(HEAD, lettered()).replace("\n", "\r"), PLAIN),
    "wrong_in_one.csv": (table(["question", "correct answer", "incorrect answers"], [[q.question, q.choices[0], "; ".join(q.choices[1:])] for q in PLAIN]), [q._replace(answer=0) for q in PLAIN]),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_a_whole_reading_or_none(tmp_path: Path, name: str) -> None:
    text, wanted = FOUND[name]
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert same(read(tmp_path / name), wanted, any_order=name == "wrong_in_one.csv")


NEVER: dict[str, tuple[str, list[str]]] = {
    # Text with commas that is not in quotes, or columns beside the choices: nothing tells where the choices end.
    "numbers_for_yes.csv": (table(["question", "passage", "answer"], [[f"is it {k}", s, k % 2] for k, s in enumerate(STORIES)]), ["--classes"]),
    "story_first.csv": (table(None, [[s, *r] for s, r in zip(STORIES, lettered(), strict=True)]), []),
    "names_first.tsv": ("".join("\t".join([f"mc.{k}", "by x", *r]) + "\n" for k, r in enumerate(lettered())), []),
    "category_inside.csv": (table(None, [[r[0], "home", *r[1:]] for r in lettered()]), []),
    "commas_in_one.csv": (table(["question", "options", "answer"], [[q.question, ", ".join(q.choices), letter(q)] for q in PLAIN]), ["'options'"]),
    "answers_apart.json": (json.dumps({"questions": [{"question": q.question, "choices": q.choices} for q in PLAIN], "answers": [q.answer for q in PLAIN]}), ["`answers`", "--no-answers"]),
    "no_blank_lines.gift": ("Q1? {=yes ~no}\nQ2? {~yes =no}\n", ["blank line"]),
    "letters_as_texts.jsonl": (lines([{"question": "First letter?", "choices": ["B", "A", "C"], "answer": "A"}, {"question": "Second?", "choices": ["B", "A", "C"], "answer": "B"}]), ["--answers-as letter"]),
    "two_sets.jsonl": (lines([{"question": q.question, "options": q.choices, "choices": q.choices[::-1], "answer": 1} for q in PLAIN] + [{"question": "And?", "options": ["a", "b"], "choices": ["c", "d"], "answer": 0}]), ["--choices"]),
    "damaged.csv": (table(HEAD, [*lettered(), ["Wie süß für Köln über Öl?", "ä", "ö", "ü", "ß", "A"]]), ["UTF-8 except for some bytes"]),
    "only_a_header.csv": (table(HEAD, []), ["has no rows"]),
    "statistics.csv": (table(["question", "correct", "incorrect"], [[q.question, 10 + k, k] for k, q in enumerate(PLAIN)]), ["choices"]),
}  # fmt: skip


@pytest.mark.parametrize("name", NEVER)
def test_a_wrong_reading_is_never_taken(tmp_path: Path, name: str) -> None:
    text, words = NEVER[name]
    (tmp_path / name).write_bytes(text.encode() + (b"Was \xff?,a,b,c,d,B\n" if name == "damaged.csv" else b""))
    said = refusal(tmp_path / name)
    assert [w for w in words if w not in said] == []


def test_every_row_decides_not_only_the_first_ones(tmp_path: Path) -> None:
    many = [["question", "A", "B", "C", "answer"], *[[f"Which is {k}?", "x", "y", "z", 1 + k % 2] for k in range(2000)]]
    path = tmp_path / "q.csv"
    path.write_text(table(None, many))
    assert "--answers-from" in refusal(path)
    path.write_text(table(None, [*many, ["And the last?", "x", "y", "z", 3]]))
    assert [q.answer for q in read(path) if q.question == "And the last?"] == [2]
    path.write_text(table(None, [*many, ["And the last?", "x", "y", "z", 0]]))
    assert [q.answer for q in read(path) if q.question == "And the last?"] == [0]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_what_is_read_is_right_or_refused(data: st.DataObject) -> None:
    """Any table of letters or numbers, under any names that are known: never a silent wrong reading."""
    text = (
        st.text(st.sampled_from("abcXYZ 0123456789.,;|äß'\"(){}&"), min_size=1, max_size=12).map(str.strip).filter(bool)
    )
    count = data.draw(st.integers(2, 5))
    made = [
        Q(
            f"{data.draw(text)} {k}?",
            tuple(data.draw(st.lists(text, min_size=count, max_size=count, unique_by=str.casefold))),
            data.draw(st.integers(0, count - 1)),
        )
        for k in range(data.draw(st.integers(3, 8)))
    ]
    way = data.draw(st.sampled_from(["letter", "zero", "one", "text"]))
    separator = data.draw(st.sampled_from(",;\t|"))
    give = {
        "letter": letter,
        "zero": lambda q: q.answer,
        "one": lambda q: q.answer + 1,
        "text": lambda q: q.choices[q.answer],
    }[way]
    names = data.draw(
        st.sampled_from([list("ABCDE"), [f"option_{x}" for x in "abcde"], [f"Antwort {k}" for k in range(1, 6)]])
    )
    header = ["question", *names[:count], data.draw(st.sampled_from(["answer", "correct", "label", "Lösung"]))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "q.csv"
        path.write_text(
            table(header, [[q.question, *q.choices, give(q)] for q in made], separator), encoding="utf-8", newline=""
        )
        try:
            found = read(path)
        except DataError:
            event("refused")
            return
        event("read")
        wanted = [q._replace(question=q.question.strip()) for q in made]
        assert same(found, wanted)


CASES = repository().parent / "shared" / "cases"


@pytest.mark.skipif(
    not (CASES / "try_files").is_file(), reason="the kit of question files is not beside the repository"
)
def test_the_kit_of_question_files(tmp_path: Path) -> None:
    for case in sorted((CASES / "files").glob("*.expected.json")):
        name = case.name.removesuffix(".expected.json")
        [source] = [p for p in case.parent.iterdir() if p.name.split(".")[0] == name and p != case]
        folder = tmp_path / name
        folder.mkdir()
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / source.name)
        wanted = json.loads(case.read_text(encoding="utf-8"))
        if isinstance(wanted, dict):
            said = refusal(folder / source.name).casefold()
            assert all(any(x.casefold() in said for x in word.split("|")) for word in wanted["refuse"]), name
            continue
        found = {" ".join(q.question.split()): q for q in read(folder / source.name)}
        assert len(found) == len(wanted), name
        for q in wanted:
            ours = found[" ".join(q["question"].split())]
            right = None if q["answer"] is None else q["choices"][q["answer"]]
            assert (ours.answer is None) == (right is None), name
            assert right is None or ours.choices[ours.answer].casefold() == right.casefold(), name
            if not q.get("any_order"):
                assert list(ours.choices) == q["choices"], name


@pytest.mark.parametrize(("wishes", "words"), [
    ({"answers_as": "text"}, "no column of answers can be read as --answers-as text says"),
    ({"answers_as": "text", "answer": "Solution"}, "does not name a choice by text, as --answers-as says. Read as"),
])  # fmt: skip
def test_an_option_that_no_column_of_answers_fits_does_not_lose_the_answers(
    tmp_path: Path, wishes: dict[str, Any], words: str
) -> None:
    path = tmp_path / "quiz.csv"
    path.write_text(table(["question", "A", "B", "C", "D", "Solution"], lettered()))
    with pytest.raises(DataError) as caught:
        find_reading(path, Wishes(**wishes))
    assert words in str(caught.value)


def test_a_copy_of_a_repository_with_shards(tmp_path: Path) -> None:
    data = tmp_path / "copy" / "data"
    data.mkdir(parents=True)
    (tmp_path / "copy" / "README.md").write_text("Read me.")
    for k in range(2):
        pq.write_table(pa.Table.from_pylist(rows(PLAIN[2 * k : 2 * k + 2])), data / f"train-0000{k}-of-00002.parquet")
    pq.write_table(pa.Table.from_pylist(rows(PLAIN[:1])), data / "test-00000-of-00001.parquet")
    write_config(tmp_path / "c.yaml", tmp_path / "copy")
    splits = load_splits(load_config(tmp_path / "c.yaml").data.model_copy(update={"cut": CutSection(valid=0)}))
    assert [q.answer for q in splits.train] == [q.answer for q in PLAIN]
    assert (len({q.id for q in splits.train}), len(splits.test)) == (4, 1)


def test_questions_that_repeat_each_other_are_too_few_to_cut(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text(table(HEAD, [*lettered()[:1] * 5, *lettered()[1:2]]))
    assert len(read(tmp_path / "q.csv")) == 6


def test_a_text_beside_the_question_is_asked_about(tmp_path: Path) -> None:
    made = [{"sentence": c, **r} for c, r in zip(STORIES, rows(), strict=True)]
    (tmp_path / "q.jsonl").write_text(lines(made))
    assert "'sentence' holds long texts" in refusal(tmp_path / "q.jsonl")


def test_an_opendocument_table(tmp_path: Path) -> None:
    path = tmp_path / "q.ods"
    names = {k: f"urn:oasis:names:tc:opendocument:xmlns:{k}:1.0" for k in ("office", "table", "text", "manifest")}
    spaces = " ".join(f'xmlns:{k}="{v}"' for k, v in names.items())

    def cell(text: str) -> str:
        return f'<table:table-cell office:value-type="string"><text:p>{text}</text:p></table:table-cell>'

    body = "".join(f"<table:table-row>{''.join(map(cell, row))}</table:table-row>" for row in SHEET)
    kind = "application/vnd.oasis.opendocument.spreadsheet"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("mimetype", kind)
        out.writestr(
            "META-INF/manifest.xml",
            f'<manifest:manifest {spaces}><manifest:file-entry manifest:full-path="/" manifest:media-type="{kind}"/></manifest:manifest>',
        )
        out.writestr(
            "content.xml",
            f'<office:document-content {spaces}><office:body><office:spreadsheet><table:table table:name="S">{body}</table:table></office:spreadsheet></office:body></office:document-content>',
        )
    assert same(read(path), PLAIN)


def test_a_refusal_names_the_cells_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    answers = ["A", "B"] * 10 + ["F", "?"]
    path.write_text("question,A,B,answer\n" + "".join(f"Which {n}?,ice,fire,{a}\n" for n, a in enumerate(answers)))
    assert "it fits 20 of 22 rows, and not line 22: 'F', line 23: '?'. Correct or remove" in refusal(path)


@pytest.mark.parametrize(
    ("head", "words"), [(b"\x89PNG\r\n\x1a\n", "is a picture"), (b"", "is not text, although its name ends in .csv")]
)
def test_a_file_that_is_no_text_is_not_taken_for_one_in_another_encoding(
    tmp_path: Path, head: bytes, words: str
) -> None:
    path = tmp_path / "q.csv"
    path.write_bytes(head + random.Random(0).randbytes(3000))
    said = refusal(path)
    assert words in said
    assert "encoding" not in said


# --- classes that are given ---

TEAMS = ("Billing", "Technical", "Account")


def tickets(tmp_path: Path, rows: int, *teams: str, head: str = "ticket;team") -> Path:
    """A German spreadsheet with these teams in its first rows."""
    file = tmp_path / "tickets.csv"
    named = [teams[n] if n < len(teams) else TEAMS[n % 3] for n in range(rows)]
    cells = [f"Ticket {n}: it stopped, again.;{team}" for n, team in enumerate(named)]
    file.write_text("\n".join([head, *cells]), encoding="utf-8")
    return file


def test_the_column_of_given_classes_is_found_whatever_its_name(tmp_path: Path) -> None:
    found = read(tickets(tmp_path, 12), classes=TEAMS)
    assert [q.answer for q in sorted(found, key=lambda q: int(q.question.split()[1][:-1]))] == [
        n % 3 for n in range(12)
    ]


def test_a_row_with_another_class_is_left_out_of_many_and_named(tmp_path: Path) -> None:
    file = tickets(tmp_path, 40, "Billing", "Techncal")
    assert len(read(file, classes=TEAMS)) == 39
    assert "line 3" in str([*find_reading(file, Wishes(classes=TEAMS)).rows()][1])
    assert "Techncal" in str([*find_reading(file, Wishes(classes=TEAMS)).rows()][1])


@pytest.mark.parametrize(
    ("teams", "classes", "words"),
    [
        (("Billing", "Techncal"), TEAMS, "1 × 'Techncal'. Did you mean 'Technical'?"),
        ((), ("Billing", "Technical", "Acount"), "4 × 'Account'. Did you mean 'Acount'?"),
        (
            (),
            ("Sales", "Support"),
            "no column holds the classes Sales, Support. Columns: 'ticket', 'team'. Name it with",
        ),
    ],
)
def test_values_that_are_no_given_class_are_named(tmp_path: Path, teams: Any, classes: Any, words: str) -> None:
    said = refusal(tickets(tmp_path, 12, *teams), classes=classes)
    assert words in said
    assert "are to be classified" not in said


def test_an_empty_column_of_classes_is_refused(tmp_path: Path) -> None:
    said = refusal(tickets(tmp_path, 12, *[""] * 12), classes=TEAMS, answer="team")
    assert "'team' is not one of the classes Billing, Technical, Account in most rows" in said


def test_texts_alone_are_read_where_classes_are_given(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text('ticket\nIt stopped, again.\n"It ""works"",\nnow."\n', encoding="utf-8")
    assert refusal(tmp_path / "new.csv").endswith("--classes NAME,NAME --no-answers")
    found = read(tmp_path / "new.csv", classes=TEAMS, has_answers=False)
    assert {(q.question, q.choices, q.answer) for q in found} == {
        ("It stopped, again.", TEAMS, None), ('It "works",\nnow.', TEAMS, None),
    }  # fmt: skip
