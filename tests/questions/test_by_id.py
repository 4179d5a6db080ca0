"""Finding by id asks hashes first, and the questions themselves in the end."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from tinyllm.questions import Question
from tinyllm.questions._by_id import ById, repeated_ids
from tinyllm.questions._spool import gather


class Alike(str):
    """A text whose hash is that of any other."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 7


def made(ids: list[str]) -> list[Question]:
    return [Question(name, "?", ("x", "y"), place % 2) for place, name in enumerate(ids)]


@given(st.lists(st.text(max_size=2), max_size=8), st.text(max_size=2), st.booleans(), st.booleans())
def test_the_first_question_with_an_id_is_found(ids: list[str], other: str, alike: bool, on_disk: bool) -> None:
    asked = [Alike(i) for i in (*ids, other)] if alike else [*ids, other]
    questions = made([Alike(i) for i in ids] if alike and not on_disk else ids)
    found = ById(gather(questions, in_memory=0 if on_disk else 9))
    for name in asked:
        if not (alike and on_disk):  # what is read from the disk has its own hash again
            assert found.get(name) == next((q for q in questions if q.id == name), None)


@given(st.lists(st.text(max_size=1), max_size=8), st.booleans())
def test_every_id_that_came_before_is_found_whatever_the_hashes(ids: list[str], alike: bool) -> None:
    hashes = array("q", (7 if alike else hash(i) for i in ids))
    expected = [(k, ids.index(name)) for k, name in enumerate(ids) if name in ids[:k]]
    assert list(repeated_ids(hashes, made(ids))) == expected
