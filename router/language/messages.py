"""Errors by code, said in the language of the text they are about."""

from router.language.unreadable import Unreadable


def unreadable(language: str, code: str, source: str, at: tuple[int, int], **values: object) -> Unreadable:
    """The error `code` about source[at[0]:at[1]], said in `language`. `what` names a measure."""
    # Imported here: a text is read without the tables of the other language.
    if language == "ja":
        from router.language.japanese.messages import JAPANESE as SAID
        from router.language.japanese.messages import NAMES
    else:
        from router.language.english.messages import ENGLISH as SAID
        from router.language.english.messages import NAMES

    message, hint = SAID[code]
    if "what" in values:
        values["what"] = NAMES[str(values["what"])]
    return Unreadable(source[at[0] : at[1]], at, message.format(**values), hint.format(**values))
