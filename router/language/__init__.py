"""Plain words <-> Budget, in English and Japanese.

>>> from router.language import parse
>>> parse("At most 20% of requests to the teacher.").budget.limits[0].at_most
0.2
"""

from router.language.canonical import canonical, describe_limit
from router.language.reading import Parsed, parse
from router.language.unreadable import Unreadable

__all__ = ["Parsed", "Unreadable", "canonical", "describe_limit", "parse"]
