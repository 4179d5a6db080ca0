"""The named datasets, on made-up rows in the shape that the hub has; the hub itself is not asked."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from questions.made import load
from tinyllm.config import DataSection
from tinyllm.errors import DataError
from tinyllm.questions._named import _HUB_DATASETS, _NAMES, _HubRows


class Hub:
    """A hub of made-up datasets, which remembers what it was asked."""

    def __init__(self, splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        self.splits = splits
        self.asked: list[tuple[str, str | None, str | None]] = []

    def __call__(self, repository: str, subset: str | None, revision: str | None) -> _HubRows:
        self.asked.append((repository, subset, revision))
        return self.splits


def lettered(k: int, stem: str, count: int, answer: str, labels: str = "ABCDE") -> dict[str, Any]:
    return {
        "id": f"id-{k}",
        stem: f"question {k}",
        "choices": {"text": [f"choice {c} of {k}" for c in range(count)], "label": list(labels[:count])},
        "answerKey": answer,
    }


def test_obqa() -> None:
    hub = Hub({s: [lettered(k, "question_stem", 4, "C") for k in range(3)] for s in ("train", "validation", "test")})
    splits = load(hub, dataset="obqa")
    assert hub.asked == [("allenai/openbookqa", "main", None)]
    question = splits.valid[1]
    assert (question.id, question.question, question.answer_text) == ("id-1", "question 1", "choice 2 of 1")


def test_arc_keeps_questions_with_four_choices_and_reads_numbered_ones() -> None:
    rows = [
        lettered(0, "question", 4, "D"),
        lettered(1, "question", 3, "A"),
        lettered(2, "question", 4, "2", labels="1234"),
        lettered(3, "question", 5, "E"),
    ]
    splits = load(Hub({"train": rows, "validation": rows, "test": rows}), dataset="arc")
    assert [(q.id, q.answer) for q in splits.train] == [("id-0", 3), ("id-2", 1)]


def test_piqa_cuts_the_development_set_in_halves_and_never_reads_the_unlabelled_test() -> None:
    def row(k: int, label: int) -> dict[str, Any]:
        return {"goal": f"goal {k}", "sol1": f"first {k}", "sol2": f"second {k}", "label": label}

    labelled = [row(k, k % 2) for k in range(1838)]
    splits = load(Hub({"train": labelled[:3], "validation": labelled, "test": [row(9, -1)]}), dataset="piqa")
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (3, 919, 919)
    assert {q.id for q in splits.valid}.isdisjoint(q.id for q in splits.test)
    assert splits.train[1].choices == ("first 1", "second 1")
    assert splits.train[1].answer == 1


def test_riddle_comes_from_the_parquet_copy() -> None:
    rows = [{k: v for k, v in lettered(k, "question", 5, "E").items() if k != "id"} for k in range(1021)]
    hub = Hub({"train": rows[:4], "validation": rows, "test": [rows[0] | {"answerKey": ""}]})
    splits = load(hub, dataset="riddle")
    assert hub.asked == [("INK-USC/riddle_sense", None, "refs/convert/parquet")]
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (4, 511, 510)
    assert splits.train[0].id == "train-1"


def test_pubmedqa_is_cut_500_100_400_and_keeps_the_context_apart() -> None:
    answers = ("yes", "no", "maybe")
    rows = [
        {
            "pubid": 1000 + k,
            "question": f"question {k}?",
            "context": {"contexts": ["One.", f"Two of {k}."], "labels": ["BACKGROUND", "RESULTS"], "meshes": []},
            "long_answer": "It is.",
            "final_decision": answers[k % 3],
        }
        for k in range(1000)
    ]
    hub = Hub({"train": rows})
    splits = load(hub, dataset="pubmedqa")
    assert hub.asked == [("qiaojin/PubMedQA", "pqa_labeled", None)]
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (500, 100, 400)
    everything = {q.id: q for part in (splits.train, splits.valid, splits.test) for q in part}
    assert len(everything) == 1000
    question = everything["1002"]
    assert (question.context, question.answer_text) == ("One.\nTwo of 2.", "maybe")
    assert load(hub, dataset="pubmedqa") == splits


def test_bioasq_says_where_it_can_be_had() -> None:
    with pytest.raises(DataError, match=r"no open copy on the hub.*Give `data\.folder`.*`tinyllm import-release DIR`"):
        load(Hub({}), dataset="bioasq")


def test_unknown_name() -> None:
    with pytest.raises(DataError, match=r"no dataset 'piqaa'\. Did you mean 'piqa'\? Known: starter, obqa, .*bioasq"):
        load(Hub({}), dataset="piqaa")


@pytest.mark.parametrize("error", [ConnectionError("offline\nand more"), FileNotFoundError("gone"), RuntimeError()])
def test_any_failure_of_the_hub_says_how_to_give_a_folder(error: Exception) -> None:
    def broken(repository: str, subset: str | None, revision: str | None) -> _HubRows:
        raise error

    with pytest.raises(DataError) as caught:
        load(broken, dataset="arc")
    text = str(caught.value)
    assert "arc could not be read from the Hugging Face hub (allenai/ai2_arc): " in text
    assert "`data.folder: DIR`" in text
    assert "\n" not in text
    assert caught.value.__cause__ is error


def test_a_dataset_that_changed_on_the_hub() -> None:
    with pytest.raises(DataError, match=r"allenai/openbookqa, split train, row 1: not in the known format"):
        load(Hub({s: [{"stem": "q"}] for s in ("train", "validation", "test")}), dataset="obqa")
    with pytest.raises(DataError, match=r"no split 'validation' \(splits: train\)"):
        load(Hub({"train": []}), dataset="obqa")


def test_any_dataset_of_the_hub_with_a_field_map() -> None:
    rows = [{"q": f"q {k}", "options": ["x", "y", "z"], "gold": "B"} for k in range(10)]
    hub = Hub({"train": rows, "dev": rows[:2]})
    fields = {"question": "q", "choices": "options", "answer": "gold", "answer_as": "letter"}
    splits = load(hub, dataset="owner/name", subset="easy", fields=fields)
    assert hub.asked == [("owner/name", "easy", None)]
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (8, 2, 2)  # a fifth is cut for the test
    assert splits.train[0].answer_text == "y"


def test_a_dataset_of_the_hub_with_bad_rows_names_split_and_row() -> None:
    rows = [{"question": "q", "choices": ["x", "y"], "answer": -1}]
    with pytest.raises(DataError, match=r"owner/name, split train, row 1: answer -1 is out of range"):
        load(Hub({"train": rows}), dataset="owner/name")


def test_a_dataset_of_the_hub_without_a_training_split() -> None:
    with pytest.raises(DataError, match=r"owner/name has no split 'train' \(splits: test\)"):
        load(Hub({"test": []}), dataset="owner/name")


def test_the_table_names_what_the_configuration_documents() -> None:
    documented = DataSection.model_fields["dataset"].description or ""
    assert all(name in documented for name in _NAMES)
    assert all("/" in known.repository for known in _HUB_DATASETS.values())


# One row of each, in the layout that the hub has, and what has to come out: question, choices, right choice, context.
LETTERED = {
    "id": "x",
    "question": "Which?",
    "choices": {"text": ["a", "b", "c"], "label": ["A", "B", "C"]},
    "answerKey": "B",
}
ROWS: dict[str, tuple[dict[str, Any], tuple[str, set[str], str, str | None]]] = {
    "arc-easy": (LETTERED, ("Which?", {"a", "b", "c"}, "b", None)),
    "arc-challenge": (LETTERED, ("Which?", {"a", "b", "c"}, "b", None)),
    "obqa": ({**LETTERED, "question_stem": "Which?"}, ("Which?", {"a", "b", "c"}, "b", None)),
    "csqa": ({**LETTERED, "question_concept": "it"}, ("Which?", {"a", "b", "c"}, "b", None)),
    "qasc": ({**LETTERED, "fact1": "f", "fact2": "g", "combinedfact": "h", "formatted_question": "Which? (A) a"}, ("Which?", {"a", "b", "c"}, "b", None)),
    "riddlesense": (LETTERED, ("Which?", {"a", "b", "c"}, "b", None)),
    "mmlu": ({"question": "Which?", "subject": "law", "choices": ["a", "b", "c", "d"], "answer": 3}, ("Which?", set("abcd"), "d", None)),
    "mmlu-pro": ({"question_id": 7, "question": "Which?", "options": list("abcdefghij"), "answer": "I", "answer_index": 8, "cot_content": "", "category": "law", "src": "s"}, ("Which?", set("abcdefghij"), "i", None)),
    "race": ({"example_id": "high1.txt", "article": "A text.", "answer": "C", "question": "Which?", "options": ["a", "b", "c", "d"]}, ("Which?", set("abcd"), "c", "A text.")),
    "siqa": ({"context": "Jo sang.", "question": "Which?", "answerA": "a", "answerB": "b", "answerC": "c", "label": "3"}, ("Which?", set("abc"), "c", "Jo sang.")),
    "piqa": ({"goal": "open it", "sol1": "a", "sol2": "b", "label": 1}, ("open it", set("ab"), "b", None)),
    "winogrande": ({"sentence": "The _ fell.", "option1": "a", "option2": "b", "answer": "2"}, ("The _ fell.", set("ab"), "b", None)),
    "hellaswag": ({"ind": 4, "activity_label": "x", "ctx_a": "He", "ctx_b": "", "ctx": "He runs and", "endings": ["a", "b", "c", "d"], "source_id": "s", "split": "train", "split_type": "indomain", "label": "2"}, ("He runs and", set("abcd"), "c", None)),
    "boolq": ({"question": "is it so", "answer": False, "passage": "It is not."}, ("is it so", {"yes", "no"}, "no", "It is not.")),
    "sciq": ({"question": "Which?", "distractor1": "a", "distractor2": "b", "distractor3": "c", "correct_answer": "d", "support": "So."}, ("Which?", set("abcd"), "d", "So.")),
    "medmcqa": ({"id": "u", "question": "Which?", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": 2, "choice_type": "single", "exp": "e", "subject_name": "s", "topic_name": None}, ("Which?", set("abcd"), "c", None)),
    "medqa": ({"question": "Which?", "answer": "b", "options": {"A": "a", "B": "b", "C": "c", "D": "d"}, "meta_info": "step1", "answer_idx": "B", "metamap_phrases": []}, ("Which?", set("abcd"), "b", None)),
    "pubmedqa": ({"pubid": 3, "question": "Which?", "context": {"contexts": ["A."], "labels": ["X"], "meshes": []}, "long_answer": "l", "final_decision": "maybe"}, ("Which?", {"yes", "no", "maybe"}, "maybe", "A.")),
    "truthfulqa-mc1": ({"question": "Which?", "mc1_targets": {"choices": ["a", "b", "c"], "labels": [1, 0, 0]}, "mc2_targets": {"choices": ["a", "b"], "labels": [1, 1]}}, ("Which?", set("abc"), "a", None)),
    "logiqa": ({"context": "A text.", "query": "Which?", "options": ["a", "b", "c", "d"], "correct_option": 1}, ("Which?", set("abcd"), "b", "A text.")),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_each_named_dataset(name: str) -> None:
    row, (text, choices, right, context) = ROWS[name]
    known = _HUB_DATASETS[name]

    def numbered(k: int) -> dict[str, Any]:
        made = {key: f"{value} {k}" if value == text else value for key, value in row.items()}
        return made | {key: f"{k}" for key in ("id", "question_id", "pubid") if key in row}

    hub = Hub({theirs: [numbered(k) for k in range(8000 if known.cut else 3)] for theirs in known.splits.values()})
    splits = load(hub, dataset=name, limit=2, cut={"valid": 0, "test": 0})
    assert hub.asked == [(known.repository, known.subset, known.revision)]
    first = splits.train[0]
    assert first.question.rpartition(" ")[0] == text
    assert (set(first.choices), first.answer_text, first.context) == (choices, right, context)


@pytest.mark.parametrize(
    ("name", "withheld"),
    [
        ("csqa", {"answerKey": ""}),
        ("winogrande", {"answer": ""}),
        ("hellaswag", {"label": ""}),
        ("medmcqa", {"cop": -1}),
    ],
)
def test_a_withheld_answer_is_none(name: str, withheld: dict[str, Any]) -> None:
    known = _HUB_DATASETS[name]
    assert known.convert({**ROWS[name][0], **withheld})["answer"] in (None, "")


def test_where_the_right_choice_always_came_first_its_place_is_drawn() -> None:
    places = [
        _HUB_DATASETS["truthfulqa-mc1"].convert(
            {"question": f"Which {k}?", "mc1_targets": {"choices": ["a", "b", "c"], "labels": [1, 0, 0]}}
        )["answer"]
        for k in range(90)
    ]
    assert all(places.count(k) > 15 for k in range(3))
