"""The words of a text, and their numbers as a model takes them: the same in training and in use.

A saved model carries this file along, so it imports nothing of this project.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# What keras.preprocessing.text.text_to_word_sequence takes for the end of a word.
_BETWEEN_WORDS = re.compile(r"[\s!\"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~]+")
_TAG = re.compile(r"<[/!]?[A-Za-z][^<>]*>|<!--|-->")

# First and last letters of scripts that are written without spaces: Thai to Tibetan, Burmese, Khmer, Kana,
# and Chinese characters.
_WITHOUT_SPACES = (
    (0x0E00, 0x0FFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


def words(text: str, rule: str) -> list[str]:
    """A text's words in order.

    rule: `keras`, lower-case and without punctuation, as Keras's `text_to_word_sequence` makes them; or
    `any`, for texts of any language: tags of HTML are left out, and its `&amp;` and the like read; letters
    are lower-case in their usual form (NFKC); a word is letters, digits, and apostrophes between them; an
    emoji, a sign of money, and a letter of a script without spaces each is a word of its own.
    """
    return _RULES[rule](text)


def number(found: Sequence[Any], numbers: Mapping[Any, int], start: int, rare: int, out: Any) -> None:
    """Writes words as numbers into an array of zeros: the last ones in order, zeros in front.

    numbers: of the words that are known, by what stands for them; others are `rare`. start: opens a text.
    out: (length,).
    """
    whole = [start, *(numbers.get(word, rare) for word in found[-len(out) :])]
    # Of a long text the opening is not there.
    end = whole if len(found) < len(out) else whole[1:]
    out[len(out) - len(end) :] = end


def multi_hot(found: Sequence[Any], numbers: Mapping[Any, int], start: int, rare: int, out: Any) -> None:
    """As `number`; out: (words,) gets a 1 for each number that is there."""
    out[[start, *(numbers.get(word, rare) for word in found)]] = 1


def _of_keras(text: str) -> list[str]:
    return list(filter(None, _BETWEEN_WORDS.split(text.lower())))


def _of_any(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", html.unescape(_TAG.sub(" ", text))).lower()
    return [word for part in plain.translate(_PARTS).split() if (word := part.strip("'"))]


class _Parts(dict[int, str]):
    """By a character's number, what it becomes before the text is parted at its spaces."""

    def __missing__(self, number: int) -> str:
        self[number] = made = _part(chr(number))
        return made


def _part(character: str) -> str:
    kind, number = unicodedata.category(character), ord(character)
    if character in "'’":
        return "'"
    if kind == "Cf" or 0xFE00 <= number <= 0xFE0F:
        # Joins emoji, or chooses between their pictures.
        return ""
    alone = kind in ("So", "Sc") or any(first <= number <= last for first, last in _WITHOUT_SPACES)
    if alone and kind[0] in "LMNS":
        return f" {character} "
    return character if kind[0] in "LMN" else " "


_PARTS = _Parts()
_RULES: Mapping[str, Callable[[str], list[str]]] = {"keras": _of_keras, "any": _of_any}
