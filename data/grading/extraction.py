r"""Extracts the final answer of a response.

The grammar has three tiers; an earlier tier wins over a later one, wherever it stands in the text:

1. Boxes and marks: `\boxed{42}`, `\boxed 42`, `\fbox{42}`, `#### 42`, `<answer>42</answer>`. The
   last one counts, or the boxes listed with it (`\boxed{5}, \boxed{6}`). If that one is empty or
   never closed, there is no answer: an earlier answer does not replace it.
2. Phrases: `Final Answer: 42`, `Answer: 42`, `The answer is 42`. The last one counts, except that
   remarks such as "the answer is correct" are passed over. If nothing follows the last one, there
   is no answer. The sentence ends outside mathematics only: `5! = 120` and `1 + 2 + ... + 9` go on.
3. The end of the response: display mathematics or a line in bold.

Markdown headings (`#### Step 2`) are no marks. A line such as `#### Explanation` with text below
counts only if nothing else is an answer. Text after an end token such as `<|im_end|>` is not
read. docs/methods.md, "Problem sets and the verifier", has the whole grammar.
"""

import re
from collections.abc import Collection
from typing import Literal, get_args

Marker = Literal[
    'boxed',
    'bare_box',
    'fbox',
    'hashes',
    'answer_tag',
    'final_answer',
    'answer',
    'the_answer_is',
    'next_line',
    'display',
    'bold',
]
"""Names of the markers in `data.answer.markers`.

`next_line` lets an answer follow its mark or phrase on a later line; the others are explained at
the top of this file.
"""
MARKERS: tuple[Marker, ...] = get_args(Marker)

WINDOW = 3000
"""Characters after a phrase or a mark that are read."""

END_TOKEN = re.compile(
    r'<\|?(?:im_end|END_OF_TURN_TOKEN|end\u2581of\u2581sentence|endoftext|end_of_text|eot_id|eom_id|end|return|end_of_turn|end_of_sentence|eos|eot'
    r'|fim_pad|pad)\|?>|</s>|<\uff5cend\u2581of\u2581sentence\uff5c>|\[(?:EOS|PAD|SEP)\]|\[/?INST\]|'
    r'(?s:(?<=.))<\|(?:im_start|start_header_id|user|assistant|system)\|>|(?s:(?<=.))<s>'
)
"""An end token, or the first token of another turn, decoded as text."""

_BEGINNING = re.compile(
    r'\A(?:\s*(?:<s>|<\|im_start\|>(?:assistant)?|<\|assistant\|>|'
    r'<\|start_header_id\|>assistant<\|end_header_id\|>))+'
)
_BETWEEN_BOXES = re.compile(
    r'(?:\s|\$|\\[()\[\]])*(?:,|;|,?\s*(?:and|or)\b|\\text\{\s*(?:and|or)\s*\})(?:\s|\$|\\[()\[\]])*'
)
_MARK = re.compile(
    r'\\(?P<box>f?box(?:ed)?)(?![A-Za-z])|(?<!#)####(?!#)|'
    r'(?m:^[ ]*)###(?=[ ]*\S*\d\S*\s*\Z)(?!#)|<answer>'
)
_VERB = r'(?:is|are|equals|would be|will be|must be|should be|comes (?:out )?to|turns out to be)'
_ADJECTIVE = (
    '(?:final|correct|right|numerical|numeric|simplified|exact|required|desired|only|best|'
    'complete|overall|approximate|resulting|full)'
)
_PHRASES = {
    'final_answer': r'\bfinal\s+answer\b\s*(?:\*\*|__)?\s*(?:[:\uff1a=]|(?=\n))',
    'answer': (
        r'(?<!final )\banswer\s*(?:\*\*|__)?\s*[:\uff1a=]|'
        r'(?m:^[#*_ ]{1,8}answer[*_ ]*(?=\n))'
    ),
    'the_answer_is': (
        r'(?<!wrong )(?<!incorrect )(?<!other )(?<!first )\b'
        rf'(?:(?:the|my|our)\s+)?(?:(?:{_ADJECTIVE}\s+){{0,3}}answers?|'
        r'(?:correct|right) (?:option|choice))'
        rf'(?:\s+(?:to|for|of|in|that)\b[^.\n:]{{0,80}}?)?\s+{_VERB}(?:\b|(?=\W))'
    ),
}
_ADVERB = re.compile(
    r'(?:[\s,:\uff1a=*_`]*\b(?:therefore|thus|then|hence|so|simply|just|indeed|clearly|given by|'
    r'equal to)\b)+(?=[\s,:*])',
    re.IGNORECASE,
)
_OPENING = re.compile(r'[\s:\uff1a=*_`>]*(?:(?<=\n)[-\u2022] +)?')
_SENTENCE_END = re.compile(r'(?<!\bMr)(?<!\bMrs)(?<!\bDr)(?<!\bSt)(?<!approx)[.!?](?=[\s*]|$)')
_MATHS_SPAN = re.compile(
    r'\\\(.{0,300}?\\\)|\\\[.{0,300}?\\\]|(?<![\\\w])\$(?=\S)[^$]{0,300}(?<=[^\s\\])\$(?!\d)|'
    r'\{[^{}]{0,300}\}'
)
_NEW_SENTENCE = re.compile(r'[.?!]\s+[A-Z]?[a-z]{2,}')
_GOES_ON = re.compile(
    r'\s*(?:[-+*/=^<>,0-9]|\\(?:cdot|times|div|frac|binom|cdots|approx|[lg]eq?)\b)'
)
_LATER_VERB = re.compile(rf'.*\b{_VERB}\s+[*_`]*(?=[-+$(\[\u20ac\u00a3]*\s*[0-9\\.])', re.DOTALL)
_CLAUSE = re.compile(
    r'(?:,|\s+and|\s+but)\s+not\b.*|,?\s+(?:because|since|which|where|so|hence|therefore|'
    r'as (?:we|required|desired|needed|shown))\b.*',
    re.DOTALL | re.IGNORECASE,
)
_HEADING = re.compile(r'[A-Za-z]{2,}|[0-9]+[.)]\s+[A-Za-z]')
_MATHS = re.compile(r'[0-9$\\^=\u00b2-\u00be\u2070-\u22ff]')
_BARE = re.compile(r'[-+]?[0-9.][^\s$]*|[A-Za-z](?![A-Za-z])|\\[A-Za-z]+')


def extract_answer(text: str, markers: Collection[Marker] = MARKERS) -> str | None:
    r"""Returns the final answer of a response; None if it has none or its last box is unfinished.

    Args:
        text: The response.
        markers: The names of the markers that count, of `MARKERS`.
    """
    # Thoughts are not part of the answer, even if they contain a box.
    text = without_end_tokens(text.rpartition('</think>')[2])
    phrases = _phrases(text, markers)
    last_phrase = phrases[-1].start() if phrases else -1
    doubtful = None
    for mark in reversed(list(_MARK.finditer(text))):
        if not _is_enabled(text, mark, markers=markers):
            continue
        if _is_heading(text, mark, has_phrase=last_phrase > mark.start()):
            continue
        if not _may_be_heading(text, mark):
            return _after_mark(text, mark, markers)
        doubtful = doubtful or _after_mark(text, mark, markers)
    if not phrases:
        return _at_the_end(text, markers) or doubtful
    last = _after_phrase(text, phrases[-1], markers)
    if last is None or not _is_remark(last):  # None: the text ends in an unfinished phrase
        return last
    earlier = (_after_phrase(text, phrase, markers) for phrase in phrases[-2::-1])
    answers = (answer for answer in earlier if answer and not _is_remark(answer))
    return next(answers, doubtful or last)


def without_end_tokens(text: str) -> str:
    """Returns the text before its first end token."""
    text = _BEGINNING.sub('', text)
    match = END_TOKEN.search(text)
    return text[: match.start()].rstrip() if match else text


def boxed(text: str) -> str | None:
    r"""Returns the content of the last `\boxed`; None if there is none or its braces are missing,
    empty or never closed.
    """
    last = text.rpartition(r'\boxed')[2].lstrip()
    return balanced(last, 1) if r'\boxed' in text and last.startswith('{') else None


def balanced(text: str, start: int) -> str | None:
    """Returns the text from `start` to the brace that closes one opened before it; None if none."""
    depth = 1
    for place in re.finditer(r'\\.|[{}]', text[start:], re.DOTALL):
        depth += {'{': 1, '}': -1}.get(place[0], 0)
        if not depth:
            return text[start : start + place.start()].strip() or None
    return None


def _is_enabled(text: str, mark: re.Match, *, markers: Collection[Marker]) -> bool:
    """Returns True if the mark is one of `markers` and the text after it has the right form."""
    if not mark['box']:
        return ('answer_tag' if mark[0] == '<answer>' else 'hashes') in markers
    if mark['box'] not in ('boxed', 'fbox'):
        return False
    if text[mark.end() :].lstrip().startswith('{'):
        return mark['box'] in markers
    return 'bare_box' in markers and bool(_BARE.match(text[mark.end() :].lstrip(' ')))


def _is_heading(text: str, mark: re.Match, *, has_phrase: bool) -> bool:
    """Returns True for `####` that is a Markdown heading instead of the mark of an answer.

    `has_phrase`: a phrase of the second tier follows.
    """
    if mark['box'] or mark[0] == '<answer>':
        return False
    line, _, later = text[mark.end() : mark.end() + WINDOW].partition('\n')
    line = line.strip(' *_')
    if not _HEADING.match(line):
        return False
    return has_phrase or line[0].isdigit() and bool(later.strip())


def _may_be_heading(text: str, mark: re.Match) -> bool:
    """Returns True for `####`, words, and more text below: a heading if there is another answer."""
    if mark['box'] or mark[0] == '<answer>':
        return False
    line, _, later = text[mark.end() : mark.end() + WINDOW].partition('\n')
    return bool(_HEADING.match(line.strip(' *_')) and later.strip())


def _after_mark(text: str, mark: re.Match, markers: Collection[Marker]) -> str | None:
    """Returns the answer after a mark of the first tier; None if it is empty or unfinished."""
    rest = text[mark.end() :]
    if mark['box']:
        rest = rest.lstrip()
        return _boxes(text, mark) if rest.startswith('{') else _bare_box(rest)
    if mark[0] == '<answer>':
        content, end, _ = rest.partition('</answer>')
        if not end:
            return None
        return extract_answer(content, markers) or _without_emphasis(content) or None
    line, _, later = rest[:WINDOW].partition('\n')
    if not line.strip() and 'next_line' in markers:
        line = later.lstrip().partition('\n')[0]
    return _without_emphasis(_CLAUSE.sub('', line)) or None


def _boxes(text: str, mark: re.Match) -> str | None:
    r"""Returns the content of a box, after those that it is listed with: `\boxed{5}, \boxed{6}`."""
    contents, start = [], len(text)
    for box in reversed(list(re.finditer(rf'\\{mark["box"]}\s*\{{', text[: mark.end()] + '{'))):
        content = balanced(text, text.index('{', box.start()) + 1)
        if content is None:
            break
        end = text.index('{', box.start()) + 1
        end += re.match(r'\s*', text[end:]).end() + len(content)
        closing = re.match(r'\s*\}', text[end:])
        if contents and not _BETWEEN_BOXES.fullmatch(text[end + closing.end() : start]):
            break
        start = box.start()
        if content not in contents:
            contents.insert(0, content)
    return ', '.join(contents) or None


def _bare_box(rest: str) -> str | None:
    r"""Returns what TeX would put into a box without braces: `2` of `\boxed 2$`."""
    match = _BARE.match(rest)
    if not match[0].startswith('\\'):
        return re.sub(r'\\[)\]].*|[.,;:!?]+$', '', match[0]) or None
    end = match.end()
    while rest[end : end + 1] == '{':
        group = re.match(r'\{(?:[^{}]|\{[^{}]*\})*\}', rest[end:])
        if not group:
            return None
        end += group.end()
    return rest[:end]


def _phrases(text: str, markers: Collection[Marker]) -> list[re.Match]:
    """Returns the places of the phrases of the second tier, in order."""
    patterns = [pattern for name, pattern in _PHRASES.items() if name in markers]
    return list(re.finditer('|'.join(patterns), text, re.IGNORECASE)) if patterns else []


def _after_phrase(text: str, phrase: re.Match, markers: Collection[Marker]) -> str | None:
    """Returns what follows a phrase; None if nothing does."""
    adverb = _ADVERB.match(text, phrase.end())
    opening = _OPENING.match(text, adverb.end() if adverb else phrase.end())
    if '\n' in opening[0] and 'next_line' not in markers:
        return None
    rest = text[opening.end() : opening.end() + WINDOW]
    if re.search(r'answers?\s+(?:to|for|of|in|that)\b', phrase[0], re.IGNORECASE):
        # `The answer to how many are left is 7`: the phrase ends at the first of the verbs.
        sentence = rest[: _sentence_end(rest.partition('\n')[0])]
        if re.match(r'[a-z]{2,}', rest) and (later := _LATER_VERB.match(sentence)):
            rest = rest[later.end() :]
    return _sentence(rest) or None


def _sentence(rest: str) -> str:
    """Returns the display mathematics that a text begins with, else its first sentence."""
    for begin, end in (('$$', '$$'), (r'\[', r'\]')):
        if rest.startswith(begin):
            content, closing, _ = rest[2:].partition(end)
            return content.strip() if closing else ''
    line = rest.partition('\n')[0]
    return _without_emphasis(_CLAUSE.sub('', line[: _sentence_end(line)]))


def _sentence_end(line: str) -> int:
    """Returns the place where the first sentence of a line ends, outside its mathematics."""
    spans = [
        match.span()
        for match in _MATHS_SPAN.finditer(line)
        if match[0][0] != '$' or not _NEW_SENTENCE.search(match[0])
    ]
    for end in _SENTENCE_END.finditer(line):
        place = end.start()
        goes_on = _GOES_ON.match(line, end.end())
        factorial = end[0] == '!' and re.match(r'[0-9)}\]]', line[place - 1 : place])
        if goes_on and (factorial or line[place - 2 : place] == '..'):
            continue
        if not any(start < place < stop for start, stop in spans):
            return place
    return len(line)


def _without_emphasis(text: str) -> str:
    """Removes Markdown's bold, code and blanks around a text."""
    text = re.sub(r'(?<![\w)\]}])\*\*|\*\*(?![\w(\[{\\])|`', '', text).strip()
    return text.strip('*').removeprefix('__').removesuffix('__').strip()


def _is_remark(text: str) -> bool:
    """Returns True for words that are probably a remark on an answer, such as "correct"."""
    if re.match(r'not\b', text, re.IGNORECASE):
        return True
    return bool(re.match(r'[a-z]{2,}', text)) and not _MATHS.search(text)


def _at_the_end(text: str, markers: Collection[Marker]) -> str | None:
    """Returns the display mathematics or the bold line at the end of a response."""
    text = text.rstrip().removesuffix('.')
    for begin, end in (('$$', '$$'), (r'\[', r'\]')):
        if 'display' in markers and text.endswith(end):
            place = text.rfind(begin, 0, len(text) - 2)
            if place >= 0:
                return text[place + 2 : -2].strip().removesuffix('.') or None
    line = text.rpartition('\n')[2].strip()
    if 'bold' in markers and (match := re.fullmatch(r'\*\*([^*]+)\*\*', line)):
        return match[1].strip() if _MATHS.search(match[1]) else None
    return None
