"""The authors' published files, made up small in their shape."""

import json
from pathlib import Path

import pytest

from tinyllm.config import DataSection
from tinyllm.errors import DataError
from tinyllm.questions import Question, import_release, load_splits

ARC = [
    {"id": 7, "question": "To join metal legs to a chair,  you can", "choices": ["Weld the metal", "Nail it"],
     "answer": "Weld the metal"},
    {"id": "b", "question": "What is\nwet?", "choices": ["sand", "water (a) pool"], "answer": "water (a) pool"},
    {"id": "c", "question": "Which is (not) a bird?", "choices": ["crow", "bat"], "answer": "bat"},
]  # fmt: skip


def string(item: dict[str, object], flan: str, llama: str | None = None) -> str:
    choices = item["choices"]
    assert isinstance(choices, list)
    k = choices.index(item["answer"])
    options = "\n".join(f"({chr(97 + i)}) {c}" for i, c in enumerate(choices))
    text = f"{flan} Thus, the answer is ({chr(97 + k)}) {item['answer']}"
    text += f"\n\nQ: {item['question']}\nAnswer Choices:\n{options}"
    return text if llama is None else f"{text} llama rationale: {llama}"


def put(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def release(root: Path, strings: list[str], name: str = "arc", items: object = None, split: str = "test") -> Path:
    put(root / "datasets" / name / f"{name}_{split}.json", ARC if items is None else items)
    put(root / "datasets" / name / "llm" / f"{split}_CoT_0.json", strings[:1])
    put(root / "datasets" / name / "llm" / f"{split}_CoT_1.json", strings[1:])
    return root


def read(path: Path) -> tuple[Question, ...]:
    section = {"train": path, "cut": {"valid": 0, "test": 0}}
    return load_splits(DataSection.model_validate(section)).train


STRINGS = [
    string(ARC[0], "Welding joins metals. You can weld.", "Let's think step by step.\nFirst, weld."),
    string(ARC[1], "Thus, the answer is (a)? No: water wets.", "  "),
    string(ARC[2], "", "A bat is a mammal."),
]


@pytest.mark.parametrize("inside", ["", "datasets"])
def test_questions_with_rationales_of_both_teachers(tmp_path: Path, inside: str) -> None:
    root = release(tmp_path / "repo", STRINGS)
    counts = import_release(root / inside, tmp_path / "out")
    assert counts == {"arc": {"test": 3, "flan-t5-xl": 2, "llama-2-7b-chat": 2}}
    first, second, third = read(tmp_path / "out" / "arc" / "test.jsonl")
    assert (first.id, first.question, first.answer) == ("7", "To join metal legs to a chair,  you can", 0)
    assert first.rationales == {
        "flan-t5-xl": "Welding joins metals. You can weld.",
        "llama-2-7b-chat": "Let's think step by step.\nFirst, weld.",
    }
    assert second.rationales == {"flan-t5-xl": "Thus, the answer is (a)? No: water wets."}
    assert third.rationales == {"llama-2-7b-chat": "A bat is a mammal."}
    assert [p.name for p in (tmp_path / "out" / "arc").iterdir()] == ["test.jsonl"]


def test_files_of_rationales_are_put_together_in_the_order_of_numbers(tmp_path: Path) -> None:
    items = [{"id": k, "question": f"question {k}", "choices": ["x", "y"], "answer": "y"} for k in range(12)]
    put(tmp_path / "arc" / "arc_train.json", items)
    for k, item in enumerate(items):
        put(tmp_path / "arc" / "llm" / f"train_CoT_{k}.json", [string(item, f"Because of {k}.")])
    import_release(tmp_path, tmp_path / "out")
    texts = [q.rationales["flan-t5-xl"] for q in read(tmp_path / "out" / "arc" / "train.jsonl")]
    assert texts == [f"Because of {k}." for k in range(12)]


def test_a_rationale_of_another_item_is_dropped_and_counted(tmp_path: Path) -> None:
    longer = string(ARC[2] | {"choices": ["crow", "bat"]}, "A bat flies.").replace("(b) bat", "(b) bat or ball")
    root = release(tmp_path, [STRINGS[1], STRINGS[1], longer, "more"])
    assert import_release(root, tmp_path / "out") == {"arc": {"test": 3, "flan-t5-xl": 1, "unaligned": 3}}
    assert [len(q.rationales) for q in read(tmp_path / "out" / "arc" / "test.jsonl")] == [0, 1, 0]


def test_white_space_is_folded_in_the_comparison(tmp_path: Path) -> None:
    squeezed = STRINGS[0].replace("chair,  you", "chair,\n you ")
    counts = import_release(release(tmp_path, [squeezed, *STRINGS[1:]]), tmp_path / "out")
    assert "unaligned" not in counts["arc"]


def test_context_is_cut_off_the_question_at_the_last_mark(tmp_path: Path) -> None:
    items = [{"id": "1", "question": "One. \n Two. \n Is it so?", "choices": ["yes", "no"], "answer": "no"}]
    put(tmp_path / "bioasq" / "bioasq_valid.json", items)
    put(tmp_path / "bioasq" / "llm" / "valid_CoT_0.json", [string(items[0], "It isn't.", "No.")])
    import_release(tmp_path, tmp_path / "out")
    (question,) = read(tmp_path / "out" / "bioasq" / "valid.jsonl")
    assert (question.context, question.question) == ("One. \n Two.", "Is it so?")
    assert question.rationales == {"flan-t5-xl": "It isn't.", "llama-2-7b-chat": "No."}


def test_a_split_without_its_own_file_is_rebuilt_from_the_echo(tmp_path: Path) -> None:
    swapped = STRINGS[2].replace("the answer is (b) bat", "the answer is (a) bat")  # letter and text disagree
    strings = [*STRINGS[:2], swapped, "no echo at all", STRINGS[2]]
    put(tmp_path / "piqa" / "llm" / "train_CoT_0.json", strings)
    counts = import_release(tmp_path, tmp_path / "out")
    assert counts["piqa"] == {"train": 3, "rebuilt": 3, "unaligned": 2, "flan-t5-xl": 2, "llama-2-7b-chat": 2}
    questions = read(tmp_path / "out" / "piqa" / "train.jsonl")
    assert [(q.id, q.choices, q.answer) for q in questions] == [
        ("train-0", ("Weld the metal", "Nail it"), 0),
        ("train-1", ("sand", "water (a) pool"), 1),
        ("train-4", ("crow", "bat"), 1),
    ]
    assert questions[1].question == "What is\nwet?"
    assert questions[0].rationales["flan-t5-xl"] == "Welding joins metals. You can weld."


def test_an_answer_that_is_no_choice_is_left_out_and_counted(tmp_path: Path) -> None:
    items = [ARC[0] | {"answer": "Glue it"}, ARC[1], ARC[2] | {"choices": ["bat", "bat"]}]
    counts = import_release(release(tmp_path, STRINGS, items=items), tmp_path / "out")
    assert (counts["arc"]["test"], counts["arc"]["without answer"]) == (1, 2)


def test_only_the_datasets_asked_for(tmp_path: Path) -> None:
    release(tmp_path, STRINGS)
    release(tmp_path, STRINGS, name="obqa")
    assert list(import_release(tmp_path, tmp_path / "out", datasets=["obqa"])) == ["obqa"]
    assert not (tmp_path / "out" / "arc").exists()
    with pytest.raises(DataError, match=r"no dataset 'obq'\. Did you mean 'obqa'\? There: arc, obqa"):
        import_release(tmp_path, tmp_path / "out", datasets=["obq"])


def test_half_a_character_is_written_as_the_sign_for_it(tmp_path: Path) -> None:
    root = release(tmp_path, [string(ARC[0], "Weld \ud83d it."), *STRINGS[1:]])
    import_release(root, tmp_path / "out")
    assert read(tmp_path / "out" / "arc" / "test.jsonl")[0].rationales["flan-t5-xl"] == "Weld \ufffd it."


@pytest.mark.parametrize("make", [True, False])
def test_a_folder_without_such_files_says_what_is_expected(tmp_path: Path, make: bool) -> None:
    if make:
        (tmp_path / "x" / "other").mkdir(parents=True)
    with pytest.raises(DataError, match=r"authors' published files are not there.*<name>/<name>_<split>\.json and"):
        import_release(tmp_path / "x", tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'[{"id": 1},\n{"id"', r"arc_test\.json, line 2: not JSON \(.*Fetch it again"),
        (b"[1]", r"arc_test\.json: expected a JSON list of objects"),
        (
            b'[{"id": 1, "question": "q", "choices": ["x", 2], "answer": "x"}]',
            r"arc_test\.json, item 1: expected an id",
        ),
        (b"[\xff]", r"arc_test\.json: not UTF-8 \(byte 1\)"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, expected: str) -> None:
    root = release(tmp_path, STRINGS)
    (root / "datasets" / "arc" / "arc_test.json").write_bytes(content)
    with pytest.raises(DataError, match=expected):
        import_release(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_file_of_rationales(tmp_path: Path) -> None:
    root = release(tmp_path, STRINGS)
    (root / "datasets" / "arc" / "llm" / "test_CoT_0.json").unlink()
    with pytest.raises(DataError, match=r"test_CoT_0\.json is missing, so the later files do not match"):
        import_release(root, tmp_path / "out")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    root = release(tmp_path, STRINGS)
    (tmp_path / "out").write_text("a file, not a folder")
    with pytest.raises(DataError, match=r"test\.jsonl cannot be written: .*give another folder"):
        import_release(root, tmp_path / "out")
