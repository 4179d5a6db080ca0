"""Where the splits come from, how they are cut, and what happens to rows that are no questions."""

from pathlib import Path

import pytest

from questions.made import NO_CUT, load, rows, write
from tinyllm.errors import DataError
from tinyllm.questions import Question
from tinyllm.questions._cut import cut

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def ids(questions: tuple[Question, ...]) -> list[str]:
    return [q.id for q in questions]


# --- the cut ---


def test_default_cut_is_deterministic_disjoint_and_in_file_order(tmp_path: Path) -> None:
    path = write(tmp_path / "all.jsonl", *rows(100))
    splits = load(train=path)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (70, 10, 20)
    everything = ids(splits.train) + ids(splits.valid) + ids(splits.test)
    assert sorted(everything) == sorted(f"q{i}" for i in range(100))
    for part in (splits.train, splits.valid, splits.test):
        assert ids(part) == sorted(ids(part), key=lambda name: int(name[1:]))
    assert load(train=path) == splits
    assert load(train=path, cut={"seed": 1}).test != splits.test


def test_the_cut_is_the_same_for_ever() -> None:
    questions = [Question(f"q{i}", f"q {i}?", ("x", "y"), 0) for i in range(10)]
    assert ids(cut(questions, {"test": 3}, seed=0)["test"]) == ["q0", "q4", "q7"]


def test_a_question_that_comes_later_moves_few_others(tmp_path: Path) -> None:
    before = load(train=write(tmp_path / "a.jsonl", *rows(200))).test
    after = load(train=write(tmp_path / "b.jsonl", *rows(201))).test
    assert len(set(ids(before)) ^ set(ids(after))) <= 2


def test_repeated_questions_stay_on_one_side_and_count_once_in_validation_and_test(tmp_path: Path) -> None:
    twins = [r | {"id": f"{r['id']}-{copy}"} for r in rows(30) for copy in "ab"]
    splits = load(train=write(tmp_path / "t.jsonl", *twins), cut={"valid": 0.05, "test": 0.25})  # 3 and 15 of 60
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (40, 2, 8)
    assert {name[-1] for part in (splits.valid, splits.test) for name in ids(part)} == {"a"}
    assert len({name[:-2] for part in (splits.train, splits.valid, splits.test) for name in ids(part)}) == 30
    first = splits.valid[0].id
    assert [d.reason for d in splits.dropped if d.where == f"question '{first[:-1]}b'"] == [f"a copy of '{first}'"]
    assert len(splits.dropped) == splits.warnings["copy of a validation or test question, left out"] == 10


def test_a_question_with_other_punctuation_is_repeated_and_one_with_other_signs_is_not(tmp_path: Path) -> None:
    texts = [
        "What is the capital of Peru?",
        "what is, the capital of Peru ?!",
        "What is 5 + 3?",
        "What is 5 - 3?",
        "1.5?",
        "15?",
    ]
    made = [
        {"question": t, "choices": ["Lima.", "Quito"] if i else ["lima", "Quito"], "answer": 0}
        for i, t in enumerate(texts)
    ]
    path = write(tmp_path / "t.jsonl", *made, made[0] | {"answer": 1})
    assert load(train=path, cut=NO_CUT).warnings == {
        f"question that is there more than once ({path}, lines 1, 2, 7)": 1,
        f"question that is there more than once with different answers; correct them ({path}, lines 1, 2, 7)": 1,
    }


def test_repeated_questions_and_their_different_answers_are_told_by_their_lines(tmp_path: Path) -> None:
    again = [
        {"question": f"q {i}?", "choices": ["y", "x"], "answer": answer}
        for i, answer in ((0, 1), (1, 1), (2, 1), (0, 0))
    ]
    path = write(tmp_path / "t.jsonl", *rows(9), *again, {"question": "q 5?", "choices": ["x", "y"], "context": "But"})
    for in_memory in (0, 99):
        assert load(train=path, cut=NO_CUT, in_memory=in_memory).warnings == {
            f"question that is there more than once ({path}, lines 1, 10, 13; 2, 11; 3, 12)": 3,
            f"question that is there more than once with different answers; correct them ({path}, lines 1, 10, 13; "
            "2, 11)": 2,
            "no answer": 1,
        }


def test_of_the_copies_of_a_test_question_the_first_with_an_answer_counts(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", *rows(4))
    test = write(tmp_path / "b.jsonl", *({**r, "id": f"{r['id']}{k}", "answer": a}
                                         for k, a in ((1, None), (2, 1), (3, 0)) for r in rows(6, 4)))  # fmt: skip
    assert ids(load(train=train, test=test).test) == ["q42", "q52"]


def test_one_missing_split_is_cut_unless_its_share_is_zero(tmp_path: Path) -> None:
    train, test = write(tmp_path / "a.jsonl", *rows(40)), write(tmp_path / "b.jsonl", *rows(45, 40))
    splits = load(train=train, test=test)
    assert (len(splits.train), len(splits.valid), ids(splits.test)) == (36, 4, [f"q{i}" for i in range(40, 45)])
    splits = load(train=train, test=test, cut={"valid": 0})
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (40, 0, 5)


def test_too_few_questions_to_cut(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.cut: 2 questions are too few to cut \(1 for test, 1 for valid, and"):
        load(train=write(tmp_path / "t.jsonl", *rows(2)))


def test_questions_without_an_answer_are_trained_on_and_never_cut(tmp_path: Path) -> None:
    some = [row | {"answer": row["answer"] if n % 4 == 0 else None} for n, row in enumerate(rows(80))]
    splits = load(train=write(tmp_path / "t.jsonl", *some))
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (74, 2, 4)  # of the 20 with an answer
    assert all(q.answer is not None for q in (*splits.valid, *splits.test))
    with pytest.raises(DataError, match=r"data\.cut: 2 questions with an answer are too few to cut"):
        load(train=write(tmp_path / "t.jsonl", *some[:8]), cut={"valid": 0.9, "test": 0.9})


def test_limit_takes_the_first_of_each_split_after_the_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", *rows(100))
    whole, limited = load(train=path), load(train=path, limit=5)
    assert (limited.train, limited.valid, limited.test) == (whole.train[:5], whole.valid[:5], whole.test[:5])
    few = load(train=path, limit={"train": 5})
    assert (few.train, few.valid, few.test) == (whole.train[:5], whole.valid, whole.test)


# --- bad rows ---


def test_all_problems_of_all_splits_in_one_message_up_to_twenty(tmp_path: Path) -> None:
    bad = [r | {"answer": 9} for r in rows(15)]
    paths = {s: write(tmp_path / f"{s}.jsonl", *bad, *rows(20, 15)) for s in ("train", "valid")}
    with pytest.raises(DataError) as caught:
        load(**paths, test=tmp_path / "none.jsonl")
    lines = str(caught.value).splitlines()
    assert lines[0] == "questions: 31 problems"
    assert "none.jsonl: no such file" in lines[1]
    assert f"{paths['train']}, line 1: answer 9 is out of range" in lines[2]
    assert f"{paths['valid']}, line 4: " in lines[20]
    assert lines[21] == "  and 11 more"
    assert "data.on_invalid: drop" in lines[22]
    assert len(lines) == 23


def test_drop_leaves_bad_rows_out_and_names_them(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", *rows(10), {"id": "bad", "question": "", "choices": ["x"], "answer": 0})
    path.write_text(path.read_text() + '{"id": "half"')
    splits = load(train=path, cut=NO_CUT, on_invalid="drop")
    assert len(splits.train) == 10
    half, bad = sorted(splits.dropped, key=lambda d: "empty" in d.reason)
    assert (half.split, half.where) == ("train", f"{path}, line 12")
    assert bad.where == f"{path}, line 11"
    assert "empty question" in bad.reason
    assert "1 choice" in bad.reason


def test_drop_keeps_the_first_of_two_with_one_id(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", *rows(3), *rows(1))
    splits = load(train=path, cut=NO_CUT, on_invalid="drop")
    assert ids(splits.train) == ["q0", "q1", "q2"]
    assert [d.where for d in splits.dropped] == [f"{path}, line 4"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_of_which_nothing_is_left_is_an_error(tmp_path: Path, split: str) -> None:
    paths = {s: write(tmp_path / f"{s}.jsonl", *rows(5)) for s in ("train", "valid", "test")}
    write(paths[split], *(r | {"answer": 9} for r in rows(5)))
    with pytest.raises(
        DataError, match=f"no question is left for the split '{split}' after leaving out 5 rows"
    ) as caught:
        load(**paths, on_invalid="drop")
    assert "the first problem: answer 9 is out of range" in str(caught.value)


def test_a_split_without_a_good_row_is_told_by_its_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", *(r | {"answer": 5} for r in rows(3)))
    with pytest.raises(DataError, match=r"^questions: 3 problems\n"):
        load(train=path)


def test_a_missing_file_is_an_error_even_with_drop(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load(train=write(tmp_path / "t.jsonl", *rows(9)), test=tmp_path / "x.jsonl", on_invalid="drop")


# --- folders ---


@pytest.mark.parametrize("name", ["valid", "validation", "dev"])
def test_folder_with_any_name_of_valid(tmp_path: Path, name: str) -> None:
    for split, count in (("train", 5), (name, 2), ("test", 3)):
        write(tmp_path / f"{split}.jsonl", *rows(count))
    splits = load(folder=tmp_path)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (5, 2, 3)


def test_folder_may_be_the_parent_of_the_dataset(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        write(tmp_path / "arc" / f"{split}.jsonl", *rows(4))
    assert load(folder=tmp_path, dataset="arc") == load(folder=tmp_path / "arc", dataset="arc")


def test_folder_with_two_files_for_a_split(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", *rows(4))
    (tmp_path / "train.csv").write_text("question,A,B,answer\n")
    with pytest.raises(DataError, match=r"several files for the split 'train': train\.csv, train\.jsonl; keep one"):
        load(folder=tmp_path)


def test_folder_without_training_questions(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", *rows(4))
    with pytest.raises(DataError, match=r"no training questions in .*one of train\.jsonl, .*it holds: test\.jsonl"):
        load(folder=tmp_path)
    with pytest.raises(DataError, match=r"data\.folder: no folder"):
        load(folder=tmp_path / "gone")


def test_nothing_to_read() -> None:
    with pytest.raises(DataError, match=r"data\.train: missing"):
        load()


# --- the real thing ---

TWICE = "question that is there more than once"
REAL = {
    "arc": (1117, 295, 1165, {TWICE: 1}),
    "obqa": (4957, 500, 500, {"choice twice": 3, TWICE: 43, f"{TWICE} with different answers; correct them": 1}),
    "piqa": (16113, 919, 919, {"choice twice": 1, TWICE: 6}),  # two choices that differ in white space alone
    "riddle": (3510, 511, 510, {}),
    "pubmedqa": (500, 100, 400, {}),
    "bioasq": (976, 109, 123, {}),
}


@pytest.mark.parametrize("name", REAL)
def test_the_papers_datasets_from_a_folder(name: str) -> None:
    if not DATA.is_dir():
        pytest.skip(f"the paper's data is not at {DATA}")
    splits = load(dataset=name, folder=DATA)
    train, valid, test, warnings = REAL[name]
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (train, valid, test)
    assert {text.partition(" (")[0]: count for text, count in splits.warnings.items()} == warnings
    assert splits.dropped == ()
    assert all("flan-t5-xl" in q.rationales for q in splits.test)
    assert all((q.context is not None) == (name in ("pubmedqa", "bioasq")) for q in splits.train)
