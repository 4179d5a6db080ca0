"""Detects refusals. They are recognised in English, by their first words.

Explanations contain "I cannot" as well: riddles are written in the first person, and some choices are numbered I and
II. So the pattern requires that the refused action is an assistant's task (to answer this question, to provide an
explanation), unless the text begins with an apology or "As an AI".
"""

from __future__ import annotations

import re

_START = 400  # characters that are searched

_PLAIN = {"’": "'", "can not": "cannot", "can't": "cannot", "i am ": "i'm ", "will not": "won't", "do not": "don't"}
"""Replacements, so that the patterns need one spelling only."""

_UNABLE = (
    r"i(?: cannot|'m (?:\w+ly )?unable to|'m (?:\w+ly )?not (?:able|allowed|permitted) to| won't(?: be able to)?)"
    r"(?: (?:and|or) won't)?(?: \w+ly| in good conscience)?"
)
_ENDS = r"(?: ?[.!,;]|$)"
_NOUN = r"(?:question|request|prompt|query|topic|task|instruction|conversation|answer)s?\b"
_GIFT = (
    r"(?:explanation|answer|response|rationale|justification|information|advice|guidance|assistance|content|"
    r"instruction)s?\b"
)
_ANSWER = r"(?:answer|explain|respond to|address|discuss|engage (?:in|with)|fulfill?|satisfy|comply with)"
_HELP = "|".join(
    [
        rf"(?:help|assist)(?: you)?(?: (?:with|in|to|answer|explain)\b|{_ENDS})",
        rf"(?:provide|give|offer|generate|create|write|produce|share) (?:[\w-]+ ){{0,4}}?{_GIFT}",
        rf"{_ANSWER} (?:why\b|(?:this|that)(?={_ENDS}))",
        rf"{_ANSWER} (?:this|that|your|the|these|such) (?:[\w-]+ ){{0,2}}?{_NOUN}",
        r"comply\b",
    ]
)
_WORK = r"(?:answer|explain|provid|discuss|giv|help|assist|respond)(?:e|ing)?\b"
_AI = r"an? (?:[\w-]+ ){0,3}?(?:ai|artificial intelligence|language model|chatbot|llm)\b"
_SORRY = (
    r"(?:(?:i'm )?(?:\w+ly |so )?(?:sorry|afraid)|i (?:\w+ly )?apologi[sz]e|(?:my )?apologies)"
    rf"(?: for [^.!?,]{{1,40}})?[,.!;: –—-]+(?:but |that |however,? )?(?:as {_AI},? )?"
)
_DECLINE = r"i (?:must|have to) (?:\w+ly )?decline\b"
_LACKING = r"(?:cannot|unable to|not (?:able|allowed|permitted) to|i don't have (?:access|the ability)|not within my)\b"
_NO_BUT = r"(?![^.!?]*\b(?:but|however)\b)"  # "As an AI I cannot feel heat, but warm air melts ice" does explain
_REFUSALS = [
    rf"{_SORRY}(?:{_UNABLE} (?!be\b)|{_DECLINE}|i don't have (?:access|enough|the)\b)",
    rf"{_SORRY}it(?: is|'s) not (?:appropriate|ethical|possible) for me\b",
    rf"(?:unfortunately,? )?{_UNABLE} (?:{_HELP})",
    rf"{_DECLINE}|i (?:\w+ly )?decline to {_WORK}",
    rf"i(?:'m not| don't feel) comfortable {_WORK}",
    rf"(?:as (?:\w+, )?|i'm (?:just |only )?){_AI}[^.!?]{{0,60}}?\b{_LACKING}{_NO_BUT}",
]
_LEAD = r"[\s\"'“‘*]*(?:(?:explanation|answer|response): )?(?:(?:thanks|thank you)\b[^.!?]{0,80}[.!?] )?"
_REFUSAL = re.compile(f"{_LEAD}(?:{'|'.join(_REFUSALS)})")


def is_refusal(text: str) -> bool:
    """Return whether a text begins with a refusal to answer."""
    plain = " ".join(text[:_START].casefold().split())
    for spelling, known in _PLAIN.items():
        plain = plain.replace(spelling, known)
    return _REFUSAL.match(plain) is not None
