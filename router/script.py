"""The language of a text: by its script, and in Latin script by its commonest words. Simple, and honest about doubt."""

import re
from collections import Counter
from itertools import islice

_SCRIPTS = (
    ("ja", re.compile("[\u3041-\u30fa\uff66-\uff9d]")),
    ("han", re.compile("[\u3400-\u9fff]")),
    ("ko", re.compile("[\uac00-\ud7a3\u1100-\u11ff]")),
    ("th", re.compile("[\u0e00-\u0e7f]")),
    ("hi", re.compile("[\u0900-\u097f]")),
    ("bn", re.compile("[\u0980-\u09ff]")),
    ("he", re.compile("[\u0590-\u05ff]")),
    ("arabic", re.compile("[\u0600-\u06ff]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("cyrillic", re.compile("[\u0400-\u04ff]")),
    ("latin", re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")),
)
# One character of these says as much as several letters.
_DENSE = frozenset({"ja", "han", "ko"})
_COMMONEST = {
    "en": "the of and to in is that it for with what how are you this can on not be my i do does",
    "fr": "le la les de des un une et est que qui dans pour pas je vous nous ce sur avec quel quelle comment",
    "de": "der die das und ist nicht ein eine ich sie wir zu mit von auf den wie was für dem im wird kann",
    "es": "el la los las de que y en un una es por para con no se del cómo qué como su está",
    "it": "il lo la gli di che e un una è per con non sono come cosa del della si in quale",
    "pt": "o a os as de que e em um uma é para com não se do da como por qual está você",
    "nl": "de het een en van is dat niet op te zijn met voor ik wat hoe die er aan kan",
    "sv": "och att det som en är på för av med inte jag den till hur vad ett kan",
    "da": "og at det er en på for af med ikke jeg den til hvad hvordan et kan der",
    "no": "og å det er en på for av med ikke jeg den til hva hvordan et kan som",
    "fi": "ja on ei se että en mitä kuinka miten ovat tämä voi minä oli mikä",
    "pl": "i w na nie jest to się z do że jak co czy dla po jestem są",
    "cs": "a je na se v že to jak co pro do s ne jsem jsou si",
    "tr": "ve bir bu için ne mi nasıl ile da de var değil çok olarak",
    "vi": "là của và có không cho một các tôi được trong như thế nào",
    "id": "yang dan di ke dari ini itu untuk dengan apa bagaimana tidak adalah saya",
    "ro": "și de la în nu este un o care pentru cu ce cum sunt mai din",
    "hu": "a az és nem hogy egy van is mi mit hogyan de ez meg",
}
_BY_WORD: dict[str, tuple[str, ...]] = {}
for _language, _words in _COMMONEST.items():
    for _word in _words.split():
        _BY_WORD[_word] = (*_BY_WORD.get(_word, ()), _language)
_WORDS = re.compile(r"[^\W\d_]+")
# A language shows itself soon.
_MOST_WORDS = 150
_MOST_CHARACTERS = 1500


def language_of(text: str) -> str | None:
    """ISO 639-1 code, or None where nothing tells (no letters, or Latin words of no language listed)."""
    if text.isascii():
        return _latin(text)
    text = text[:_MOST_CHARACTERS]
    counts = {name: len(pattern.findall(text)) * (3 if name in _DENSE else 1) for name, pattern in _SCRIPTS}
    if counts["ja"] and counts["ja"] * 8 >= counts["han"]:
        counts["ja"] += counts.pop("han")  # Japanese mixes both; Chinese has no kana
    script = max(counts, key=lambda name: counts[name])
    if not counts[script]:
        return None
    match script:
        case "han":
            return "zh"
        case "arabic":
            return "fa" if re.search("[پچژگ]", text) else "ur" if re.search("[ٹڈڑے]", text) else "ar"
        case "cyrillic":
            return "uk" if re.search("[іїєґІЇЄҐ]", text) else "ru"
        case "latin":
            return _latin(text)
        case _:
            return script


def _latin(text: str) -> str | None:
    tally: Counter[str] = Counter()
    for match in islice(_WORDS.finditer(text), _MOST_WORDS):
        # A word that several languages share speaks for each of them, but less.
        languages = _BY_WORD.get(match[0].lower(), ())
        for language in languages:
            tally[language] += 12 // len(languages)
    if not tally:
        return None
    return max(sorted(tally), key=lambda language: tally[language])
