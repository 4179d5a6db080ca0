"""What the names of columns say. A name is only a hint: the cells are the proof."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


def plain(name: str) -> str:
    """Return a name in lower case, without accents, with blanks between its words: `answerKey` → `answer key`."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", str(name))
    letters = unicodedata.normalize("NFKD", name).casefold()
    letters = unicodedata.normalize(
        "NFC", "".join(c for c in letters if not unicodedata.combining(c) or c in "\u3099\u309a")
    )
    letters = letters.replace("ł", "l").replace("ø", "o").replace("ß", "ss").replace("ı", "i").replace("đ", "d")
    return " ".join(re.sub(r"[\W_]+", " ", letters).split())


_WORDS: Mapping[str, str] = {
    "question": """
        question|question text|question stem|stem|question title|prompt|query|goal|sentence|problem|ques|q|item|task|
        statement|claim|hypothesis|startphrase|ctx|input|sent2|puzzle|riddle|
        frage|fragetext|fragestellung|aufgabe|enonce|intitule|pregunta|enunciado|domanda|quesito|pytanie|tresc pytania|
        tresc|vraag|pergunta|questao|otazka|kerdes|soru|fraga|sporgsmal|sporsmal|kysymys|intrebare|ερωτηση|вопрос|питання|
        въпрос|问题|題目|题目|题干|題干|設問|問題|問|质问|질문|문제|سؤال|السؤال|שאלה|प्रश्न|cau hoi|pertanyaan|soal|คำถาม""",
    "text": """
        text|content|review|comment|message|tweet|title|headline|utterance|document|body|post|email|description|
        nachricht|texte|commentaire|texto|mensaje|testo|tekst|tresc|текст|文本|内容|テキスト|텍스트""",
    "context": """
        context|passage|article|support|premise|paragraph|abstract|story|background|excerpt|reading|case|vignette|
        document|text|body|scenario|situation|dialogue|conversation|
        kontext|lesetext|abschnitt|textpassage|contexte|passage du texte|texte|contexto|pasaje|texto|contesto|brano|testo|
        kontekst|tekst|fragment|contexto|trecho|kontextus|szoveg|baglam|metin|parca|контекст|текст|отрывок|
        上下文|文章|段落|材料|背景|短文|本文|文脈|지문|문맥|본문""",
    "answer": """
        answer|answer key|answerkey|key answer|label|labels|correct|correct answer|correct option|correct choice|right|
        right answer|right option|gold|gold label|gold answer|answer idx|answer index|answer id|answer letter|answer label|
        answer text|answer number|answer num|correct idx|correct index|correct letter|correct answer index|
        correct option index|correct answer key|correct answer letter|correct num|correct number|ans|cop|best answer|
        final decision|final answer|is correct|ground truth|truth|solution letter|
        antwort|losung|richtig|richtige antwort|richtige losung|korrekt|korrekte antwort|antwortbuchstabe|loesung|
        reponse|bonne reponse|reponse correcte|reponse juste|correcte|respuesta|respuesta correcta|correcta|
        risposta|risposta corretta|risposta giusta|corretta|giusta|odpowiedz|poprawna odpowiedz|prawidlowa odpowiedz|
        poprawna|prawidlowa|antwoord|juiste antwoord|goede antwoord|correct antwoord|resposta|resposta correta|correta|
        resposta certa|gabarito|odpoved|spravna odpoved|spravne|helyes|helyes valasz|valasz|megoldas|cevap|dogru cevap|
        dogru|svar|ratt svar|korrekt svar|riktig svar|rigtigt svar|vastaus|oikea vastaus|raspuns|raspuns corect|
        απαντηση|σωστη απαντηση|ответ|правильный ответ|верный ответ|відповідь|правильна відповідь|отговор|
        答案|正确答案|正確答案|标准答案|参考答案|正解|答え|解答|答|정답|답|답안|الإجابة|الاجابة|תשובה|उत्तर|dap an|jawaban|kunci jawaban""",
    # These names have other meanings, too. They count only if the cells fit.
    "maybe answer": "solution|target|key|class|output|response|result|option|choice|value|category|index|idx|number",
    "class": """
        label|class|category|sentiment|topic|intent|target|emotion|tag|genre|type|label text|label name|stance|polarity|
        klasse|kategorie|etiquette|classe|categorie|clase|categoria|etiqueta|klasa|kategoria|etykieta|категория|класс|метка|
        标签|类别|分类|ラベル|カテゴリ|레이블""",
    "id": """
        id|qid|uid|uuid|question id|questionid|example id|item id|record id|row id|idx|index|ind|no|nr|num|number|#|source id|
        lfd nr|nummer|numero|numer|cislo|sorszam|номер|编号|序号|番号|번호|题号|題號|fragenummer|unnamed 0""",
    "explanation": """
        explanation|explanations|rationale|rationales|reason|reasoning|cot|cot content|feedback|hint|evidence|long answer|exp|
        justification|commentary|notes|note|solution|worked solution|remark|correct answer explanation|
        erklarung|begrundung|hinweis|losungsweg|explication|justificacion|explicacion|spiegazione|wyjasnienie|uzasadnienie|
        toelichting|uitleg|explicacao|vysvetleni|magyarazat|aciklama|forklaring|объяснение|пояснение|解释|解析|説明|解説|해설|설명""",
    "about": """
        category|subject|topic|source|src|difficulty|level|grade|split|split type|url|link|date|author|type|question type|
        time|time limit|points|score|year|tag|tags|language|lang|dataset|domain|subdomain|high level domain|title|name|
        subject name|topic name|activity label|choice type|question concept|meta info|metamap phrases|humanscore|clarity|
        turkidanonymized|version|set|group|section|chapter|skill|status|created|updated|image|formatted question|
        fach|thema|schwierigkeit|punkte|quelle|niveau|matiere|tema|fuente|materia|dificultad|przedmiot|kategoria|
        предмет|тема|сложность|难度|学科|科目|来源|分野|難易度|과목""",
    "wrong": """
        incorrect|wrong|distractor|distractors|false|falsch|falsche|faux|fausse|mauvaise|incorrecta|incorrecto|errata|sbagliata|
        bledna|niepoprawna|onjuist|fout|incorreta|errada|spatna|rossz|hibas|yanlis|feil|fel|неправильный|неверный|
        错误|干扰项|誤答|不正解|오답""",
    "correct": "correct|right|true|best|gold|richtig|richtige|correcta|correcte|juste|corretta|poprawna|correta|spravna|helyes|dogru|правильный|верный|正确|正解|정답",
    "choice": """
        choice|option|opt|op|answer|ans|ending|sol|solution|alternative|alt|candidate|response|possible answer|mc|
        antwort|antwortmoglichkeit|auswahl|wahl|choix|reponse|opcion|respuesta|opzione|risposta|odpowiedz|opcja|wariant|optie|antwoord|
        alternativa|opcao|resposta|moznost|odpoved|valasz|lehetoseg|secenek|sik|cevap|svar|alternativ|svarsalternativ|vaihtoehto|
        varianta|raspuns|επιλογη|απαντηση|вариант|вариант ответа|ответ|варіант|选项|選項|选择|答案|選択肢|肢|선택지|보기|선택|
        lua chon|dap an|pilihan|opsi|jawaban""",
    "choices": """
        choices|options|answers|endings|candidates|alternatives|answer choices|answer options|choice list|optionen|antworten|
        auswahl|choix|reponses|opciones|respuestas|opzioni|odpowiedzi|opcje|alternativas|варианты|选项|選択肢|선택지|보기""",
}  # fmt: skip
_ORDER: Mapping[str, tuple[str, ...]] = {
    role: tuple(filter(None, map(plain, words.split("|")))) for role, words in _WORDS.items()
}
_ROLES: Mapping[str, frozenset[str]] = {role: frozenset(words) for role, words in _ORDER.items()}
_RIGHT_WORDS = {"answer", "correct", "right", "gold"}
_ANSWER_WORDS = _RIGHT_WORDS | {
    "key", "label", "idx", "index", "id", "letter", "option", "choice", "number", "num", "no", "text", "value", "the", "best",
    "final", "true", "is", "of", "position",
}  # fmt: skip
_NUMBER_WORDS = {"id", "no", "nr", "num", "number", "nummer", "numero", "#", "№", "n°", "nº"}
_SERIAL_WORDS = {"s", "sl", "sr", "serial", "lfd", "row", "quiz", "mcq"}
_MARK_ROWS = ("abcdefghijklmnopqrstuvwxyz", "αβγδεζηθ", "абвгдежз", "甲乙丙丁戊己庚辛", "①②③④⑤⑥⑦⑧", "ㄱㄴㄷㄹㅁㅂ")
_PLACES = {mark: (row, place) for row, marks in enumerate(_MARK_ROWS) for place, mark in enumerate(marks)}
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii")


def has_role(column: str, role: str) -> bool:
    """Tell whether a name fits a `role`: the whole name, its last part after a dot, or its first words."""
    if role == "id" and _is_number_of_question(column):
        return True
    last = column.rpartition(".")[2] or column
    short = re.split(r"\s[-–—:]\s|[(\[（【:]", column, maxsplit=1)[0]
    named = {plain(column), plain(last), plain(short)}
    named |= {n.removesuffix("s") for n in named}
    if role == "answer" and any((w := set(n.split())) <= _ANSWER_WORDS and w & _RIGHT_WORDS for n in named):
        return True  # `correct_answer_id`, `gold idx`
    return not named.isdisjoint(_ROLES[role])


def _is_number_of_question(column: str) -> bool:
    """Tell whether a name is a word for a number, alone or after a word for a question: `Question No.`, `Q#`, `Sl. No`."""
    *before, last = re.findall(r"[#№]|n[°º]|[^\W_]+", column.casefold()) or [""]
    if last not in _NUMBER_WORDS:
        return False
    what = plain(" ".join(before))
    return not what or what in _SERIAL_WORDS or what in _ROLES["question"]


def rank(column: str, role: str) -> int:
    """Return the place of a column's name in the list of names for a role. The usual names come first."""
    order = _ORDER[role]
    names = [plain(column), plain(column.rpartition(".")[2] or column)]
    return min((order.index(n) for n in names if n in order), default=len(order))


def words_of(column: str) -> frozenset[str]:
    """Return the words of a name."""
    return frozenset(re.findall(r"\d+|[^\W\d]+", plain(column)))


def is_wrong(column: str) -> bool:
    """Tell whether a column's name sounds like a wrong choice."""
    return _has_word(column, "wrong")


def is_correct(column: str) -> bool:
    """Tell whether a name says that the content is right."""
    return not is_wrong(column) and _has_word(column, "correct")


def _has_word(column: str, role: str) -> bool:
    inside = (w for w in _ROLES[role] if not w.isascii())  # some languages put no blanks between words
    return not words_of(column).isdisjoint(_ROLES[role]) or any(w in plain(column) for w in inside)


def place_of_mark(mark: str) -> tuple[int, int] | None:
    """Return the series of a mark (Latin letters, Greek letters, …) and its 0-based place in it."""
    return _PLACES.get(mark.strip().casefold())


@dataclass(frozen=True, slots=True)
class Group:
    """Columns whose names differ only in a mark: `option_a`, `option_b`.

    Attributes:
        marks: the marks as they are in the names.
        bare: the mark is the whole name, so it is the label of the choice.
    """

    columns: tuple[str, ...]
    marks: tuple[str, ...]
    stem: str
    bare: bool


def groups(columns: Sequence[str]) -> list[Group]:
    """Return the groups of two or more columns with consecutive marks, starting with the first mark."""
    found: dict[tuple[str, object], list[tuple[int, str, str]]] = {}
    for column in columns:
        for stem, mark, kind, place in () if has_role(column, "id") else _marked(column):
            found.setdefault((stem, kind), []).append((place, mark, column))
    result = []
    for (stem, kind), members in found.items():
        first_of_each = {member[0]: member for member in reversed(members)}
        members = [first_of_each[place] for place in sorted(first_of_each)]
        run = [member for k, member in enumerate(members) if member[0] == members[0][0] + k]
        if stem == "•" and kind != "number" and all(m[0] > 2 * len(run) for m in members[len(run) :]):
            members = run  # beside A, B, C, a column Q holds the question
        places = [place for place, _, _ in members]
        if len(members) < 2 or places != list(range(places[0], places[0] + len(members))):
            continue
        if places[0] > (1 if kind == "number" else 0):
            continue
        names, marks = tuple(c for _, _, c in members), tuple(m for _, m, _ in members)
        result.append(Group(names, marks, stem, bare="•" in stem.split(". ")))
    # A column may be in several groups. Keep the longest.
    result.sort(key=lambda g: (-len(g.columns), len(g.stem)))
    kept: list[Group] = []
    for group in result:
        if not any(set(group.columns) <= set(other.columns) for other in kept):
            kept.append(group)
    return kept


def _marked(column: str) -> Iterable[tuple[str, str, object, int]]:
    """Yield each way to split a name into a stem and a mark, with the kind of the mark and its place."""
    if len(column) > 100:
        return  # a text, not a name
    head, dot, last = column.rpartition(".")
    before = f"{plain(head)}. " if dot else ""
    inside = head.split(".") if dot else []
    for k, part in enumerate(inside):  # `options.A.text`
        stem = ". ".join("•" if j == k else plain(p) for j, p in enumerate([*inside, last]))
        if found := _kind_of(part):
            yield stem, part, *found
    spaced = re.sub(r"(?<=[^\W\d_])(?=\d)|(?<=[a-z])(?=[A-Z])", " ", last)
    tokens = re.findall(r"\d+|[^\W\d_]+|[①-⑧]", spaced)
    for k, token in enumerate(tokens):
        stem = before + " ".join("•" if j == k else plain(t) for j, t in enumerate(tokens))
        if found := _kind_of(token):
            yield stem, token, *found
        elif token.casefold() in _ROMAN and len(tokens) > 1:
            yield stem, token, "roman", _ROMAN.index(token.casefold())
    # `opa`, `opb`: the mark follows its word directly. Such a group must begin with a.
    glued = re.fullmatch(r"([a-z]{2,}?)([a-j])", last)
    if glued and len(tokens) == 1:
        yield f"{before}{glued[1]}•", glued[2], "glued", ord(glued[2]) - ord("a")
    cjk = re.fullmatch(r"(\D*[^\x00-\x7f])([A-Za-z])", last)
    if cjk and len(tokens) == 1 and (where := place_of_mark(cjk[2])) is not None:
        yield f"{before}{plain(cjk[1])}•", cjk[2], where[0], where[1]


def _kind_of(mark: str) -> tuple[object, int] | None:
    """Return the kind of a mark and its place; None: it is not a mark."""
    return ("number", int(mark)) if mark.isdecimal() and len(mark) <= 2 else place_of_mark(mark)
