"""A trained student as a teacher. Its opinion of a question comes from the scores that rank its choices."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence

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

    Raises:
        TeacherError: there is no student in the folder.
    """

    def __init__(self, spec: StudentTeacher, questions: Sequence[Question]) -> None:
        super().__init__(spec.name, spec.batch_size)
        self._folder = student_folder(spec.run.expanduser())
        self._questions = ById(questions)
        weights = folder_checksum(self._folder) if (self._folder / CARD_FILE).is_file() else None
        if weights is None:
            raise TeacherError(
                f"Teacher '{spec.name}': {spec.run} holds no student that TinyLLM saved. Give the folder of a trained "
                "run (`tinyllm train` trains it), or of its student."
            )
        self.identity: Mapping[str, str] = {"kind": "student", "sha256": weights}

    def check(self) -> None:
        """Check nothing: `__init__` already looked for the student."""

    def _load(self) -> Answer:
        from tinyllm.scoring.score import score_options

        student = read_student(self._folder)
        learner = student.learner(learns=False)

        def answer(requests: Sequence[Request]) -> list[Reply | RequestFailed]:
            began = time.perf_counter()
            asked = [self._question(request) for request in requests]
            known = [question for question in asked if question is not None]
            scores = iter(score_options(student, learner, known) if known else ())
            latency = time.perf_counter() - began
            # One token each: the ranking scores are already means over tokens where the layout needs means.
            return [
                RequestFailed("another question of the run has the same id", "bad_request")
                if question is None
                else Reply("", "stop", latency_s=latency, message=_message(next(scores).ranking(student.card.layout)))
                for question in asked
            ]

        return answer

    def _question(self, request: Request) -> Question | None:
        """Return the question of a request; None where another question has its id."""
        question = self._questions.get(request.question_id)
        same = question is not None and opinion_prompt(question, form="completion", letters=False) == request.prompt
        return question if same else None


def _message(ranking: Sequence[float]) -> str:
    return json.dumps({"option_logprobs": [(score, 1) for score in ranking]})
