"""A trained student as a teacher. Its opinion of a question comes from the scores that rank its choices."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence

from tinyllm.config import StudentTeacher
from tinyllm.errors import TeacherError
from tinyllm.prompts import opinion_prompt
from tinyllm.questions import ById, Question
from tinyllm.student.model import CARD_FILE, read_student, student_folder
from tinyllm.system.packaged import folder_checksum
from tinyllm.teachers.base import Reply, Request, RequestFailed
from tinyllm.teachers.batching import Answer, BatchingTeacher


class StudentAsTeacher(BatchingTeacher):
    """Rates the choices of the questions in `questions`. It writes no rationales.

    Args:
        out_of_fold: from a question that the student learnt from to the scores of a student that did not; empty where
            there are none yet, and None for any other question. With `folds: 0` nobody asks it.

    Raises:
        TeacherError: there is no student in the folder.
    """

    def __init__(
        self,
        spec: StudentTeacher,
        questions: Sequence[Question],
        out_of_fold: Callable[[Question], Sequence[float] | None],
    ) -> None:
        super().__init__(spec.name, spec.batch_size)
        self._folder = student_folder(spec.run.expanduser())
        self._questions = ById(questions)
        weights = folder_checksum(self._folder) if (self._folder / CARD_FILE).is_file() else None
        if weights is None:
            raise TeacherError(
                f"Teacher '{spec.name}': {spec.run} holds no student that TinyLLM saved. Give the folder of a trained "
                "run (`tinyllm train` trains it), or of its student."
            )
        self._out_of_fold = out_of_fold if spec.folds else lambda _: None
        # The students of the folds follow from the student: they are trained as it was.
        folds = {"folds": str(spec.folds)} if spec.folds else {}
        self.identity: Mapping[str, str] = {"kind": "student", "sha256": weights, **folds}

    def check(self) -> None:
        """Check nothing: `__init__` already looked for the student."""

    def _load(self) -> Answer:
        from tinyllm.scoring.score import score_options

        student = read_student(self._folder)
        learner = student.learner(learns=False)

        def answer(requests: Sequence[Request]) -> list[Reply | RequestFailed]:
            began = time.perf_counter()
            asked = [self._question(request) for request in requests]
            others = [None if question is None else self._out_of_fold(question) for question in asked]
            own = [q for q, other in zip(asked, others, strict=True) if q is not None and other is None]
            # The scores that it ranks choices by are means over tokens already, where they should be.
            scored = score_options(student, learner, own) if own else ()
            card = student.card
            scores = iter([[r / card.temperature for r in s.ranking(card.layout)] for s in scored])
            latency = time.perf_counter() - began
            return [
                RequestFailed("another question of the run has the same id", "bad_request")
                if question is None
                else _reply(next(scores) if other is None else other, latency)
                for question, other in zip(asked, others, strict=True)
            ]

        return answer

    def _question(self, request: Request) -> Question | None:
        """Return the question of a request; None where another question has its id."""
        question = self._questions.get(request.question_id)
        same = question is not None and opinion_prompt(question, form="completion", letters=False) == request.prompt
        return question if same else None


def _reply(ranking: Sequence[float], latency_s: float) -> Reply | RequestFailed:
    if not ranking:
        return RequestFailed("no student that did not learn from this question has scored it", "failed")
    message = json.dumps({"option_logprobs": [(score, 1) for score in ranking]})
    return Reply("", "stop", latency_s=latency_s, message=message)
