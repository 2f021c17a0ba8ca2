"""Time zones as people name them: "Tokyo time", "Asia/Tokyo", "JST"."""

import re
from functools import lru_cache
from zoneinfo import ZoneInfo

# Only abbreviations that mean one place; "IST" or "CST" mean several, and nothing is guessed.
NAMES = {
    "utc": "UTC",
    "gmt": "UTC",
    "universal": "UTC",
    "z": "UTC",
    "jst": "Asia/Tokyo",
    "japan": "Asia/Tokyo",
    "japanese": "Asia/Tokyo",
    "kst": "Asia/Seoul",
    "korea": "Asia/Seoul",
    "korean": "Asia/Seoul",
    "india": "Asia/Kolkata",
    "indian": "Asia/Kolkata",
    "china": "Asia/Shanghai",
    "beijing": "Asia/Shanghai",
    "et": "America/New_York",
    "est": "America/New_York",
    "edt": "America/New_York",
    "eastern": "America/New_York",
    "central": "America/Chicago",
    "mountain": "America/Denver",
    "pt": "America/Los_Angeles",
    "pst": "America/Los_Angeles",
    "pdt": "America/Los_Angeles",
    "pacific": "America/Los_Angeles",
    "san francisco": "America/Los_Angeles",
    "cet": "Europe/Paris",
    "cest": "Europe/Paris",
    "central european": "Europe/Paris",
    "uk": "Europe/London",
    "british": "Europe/London",
    "bst": "Europe/London",
    "german": "Europe/Berlin",
    "aest": "Australia/Sydney",
}
JAPANESE = {
    "日本": "Asia/Tokyo",
    "東京": "Asia/Tokyo",
    "大阪": "Asia/Tokyo",
    "協定世界": "UTC",
    "世界標準": "UTC",
    "世界": "UTC",
    "グリニッジ": "UTC",
    "ニューヨーク": "America/New_York",
    "米国東部": "America/New_York",
    "米国西部": "America/Los_Angeles",
    "ロサンゼルス": "America/Los_Angeles",
    "シカゴ": "America/Chicago",
    "ロンドン": "Europe/London",
    "パリ": "Europe/Paris",
    "ベルリン": "Europe/Berlin",
    "ソウル": "Asia/Seoul",
    "上海": "Asia/Shanghai",
    "北京": "Asia/Shanghai",
    "シンガポール": "Asia/Singapore",
    "インド": "Asia/Kolkata",
    "シドニー": "Australia/Sydney",
}
# What the database's names begin with; anything else with a slash is no name of a zone.
_AREAS_WORDS = (
    "africa america antarctica arctic asia atlantic australia brazil canada chile etc europe indian mexico pacific us"
)
AREAS = frozenset(_AREAS_WORDS.split())
_REGIONS = ("Europe", "America", "Asia", "Australia", "Africa", "Pacific", "Atlantic", "Indian")


_WELL_FORMED = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{1,30}(?:/[A-Za-z0-9_+-]{1,30}){0,2}")


@lru_cache(maxsize=256)
def exists(name: str) -> bool:
    """True for a name that the time zone database knows. Only what looks like one is looked up: a name is a path."""
    if not _WELL_FORMED.fullmatch(name) or ("/" in name and name.partition("/")[0].lower() not in AREAS):
        return False
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError; a directory is an OSError
        return False
    return True


@lru_cache(maxsize=256)
def zone(name: str) -> str | None:
    """The database's name for `name`: itself, an abbreviation, a country's adjective or a city. None: not known."""
    lowered = name.lower().strip()
    if lowered in NAMES:
        return NAMES[lowered]
    if lowered in JAPANESE:
        return JAPANESE[lowered]
    if not lowered.isascii():
        return None
    title = "/".join(
        "_".join(_capital(word) for word in part.replace("_", " ").split()) for part in lowered.split("/") if part
    )
    if "/" in lowered:
        return next((found for found in (name, title, _upper_region(title)) if exists(found)), None)
    return next((f"{region}/{title}" for region in _REGIONS if title and exists(f"{region}/{title}")), None)


def _capital(word: str) -> str:
    return word if word in ("of", "au", "es") else "-".join(part.capitalize() for part in word.split("-"))


def _upper_region(title: str) -> str:
    region, _, rest = title.partition("/")
    return f"{region}/{rest.upper()}"
