"""What English words mean to the grammar. A phrase may stand here only if it always means the same thing."""

from router.language import currencies, tongues
from router.language.lexicon import Entry, Lexicon, phrases

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_WORDS = {
    word: day
    for day, names in zip(
        DAYS,
        (
            "mon monday mondays",
            "tue tues tuesday tuesdays",
            "wed weds wednesday wednesdays",
            "thu thur thurs thursday thursdays",
            "fri friday fridays",
            "sat saturday saturdays",
            "sun sunday sundays",
        ),
        strict=True,
    )
    for word in names.split()
}

UNITS = {
    "ms": (1, "millisecond"),
    "millisecond": (1, "millisecond"),
    "s": (1, "second"),
    "sec": (1, "second"),
    "secs": (1, "second"),
    "second": (1, "second"),
    "m": (1, "minute"),
    "min": (1, "minute"),
    "mins": (1, "minute"),
    "minute": (1, "minute"),
    "h": (1, "hour"),
    "hr": (1, "hour"),
    "hrs": (1, "hour"),
    "hour": (1, "hour"),
    "day": (1, "day"),
    "week": (1, "week"),
    "fortnight": (2, "week"),
    "month": (1, "month"),
    "year": (12, "month"),
}

_TABLE: dict[str, Entry] = {}


def _add(type_: str, meaning: object, *words: str) -> None:
    _TABLE.update(phrases(type_, meaning, *words))


# Words that change nothing: politeness, articles, auxiliary verbs, and verbs that only carry the bound.
_add(
    "SKIP",
    None,
    "the|please|kindly|should|must|may|can|could|shall|will|would|might|is|are|be|been|being|was|were|do|does|has|have",
    "should|must|may|can|could|shall|will|would|might be|get|have",
    "have|has|need|needs|ought|allowed|permitted to",
    "i'd|we'd|you'd like |to",
    "we|i|you|they|i'd|we'd|i'll|we'll |want|need to",
    "we|i|you|they|i'd|we'd|i'll|we'll |want|would_like",
    "our|my|your|their|its|this|these|those|that|which|who|there|whose|someone|anyone|something|anything",
    "afford|let|make|makes|made|keep|keeps|kept|hold|holds|held|stay|stays|remain|remains|spend|cost|costs|pay|pays|get|gets",
    "set|run|runs|happen|happens|allow|allows|allowed|permit|permits|permitted|serve|serves|served|perform|receive",
    "budget|budgets|usage|use_of|usage_of|spending|spending_on|number_of|volume_of|amount_of|rate_of",
    "come|comes|coming|written|write|writes|also|just|too|so|well|altogether|if|when|while|where|whenever|as_soon_as|in_case|provided|after",
    "on|during|for|with|at|by|about_to|asks|comes|concerns",
    "while|if|when|where|whenever|provided|as_long_as|so_long_as |the budget allows|permits |it|this",
    "within|inside |the budget",
    "period|window|span|stretch|interval|timeframe|time_frame",
    "all",
    "whichever comes|is|is_reached|is_hit|happens first",
    "whichever is lower|less|smaller|stricter|tighter|sooner",
    "instead_of|rather_than |the student|teacher |model",
    "try|tries|trying|experiment|experiment_with|decide|decides|decided|by_itself",
)

# Bounds
_add("OVER", None, "more|higher|greater than", "over|above|beyond|past|exceed|exceeds|exceeding|>")
_add(
    "UNDER",
    None,
    "|for at_most|at_the_most|at_the_very_most|up_to|no_more_than|not_more_than|maximally",
    "under|below|beneath|tops|<|<=|≤|=<",
    "less|fewer|lower than",
    "never|no|not|nothing more|higher|greater|longer|later|over|above|beyond than",
    "never|no|not over|above|beyond",
    "never|not|not_to exceed|exceeds|exceeding",
    "without exceeding|going_over|going_above",
    "|a|the maximum|max|max.|ceiling|limit|cap |of|is",
    "limit|limits|limited|restrict|restricted|cap|caps|capped|confine|confined |to|at",
    "or|and less|fewer|below|under",
    "as many|much|often as",
    "hard|strict|absolute|upper limit|cap|maximum|bound |of|is",
)
_add("UNDER", None, "|a|the|our budget of|is")
_add("WITHIN", None, "within|inside")
_add("ONLY", None, "only|solely|exclusively")
_add(
    "FLOOR",
    None,
    "exactly|precisely|at_least|at_the_least|a_minimum_of|minimum|min|minimum_of|or_more|>=|≥|no_fewer_than",
)
_add("FLOOR", None, "no|not|never|nothing less|fewer|lower than", "never|not below|under")
_add("TARGET", None, "around|roughly|approximately|approx|approx.|circa|somewhere_around|more_or_less|ideally|~|≈")
_add("TARGET", None, "|a|the|our aim|target|goal |is |of|for|at", "aiming|shoot|shooting|targeting |for|at")
_add("TARGET", None, "on|in the_order_of", "close|near to", "near|nearly")
_add(
    "ABOUT",
    None,
    "about|regarding|concerning|related_to|relating_to|dealing_with|to_do_with",
    "on the topic|subject of",
)
_add("COMPARED", (True, 0), "longer|bigger|larger than")
_add("COMPARED", (False, 0), "shorter|smaller than")
_add("LONG", None, "long|longer|short|shorter|big")

# Yes and no
_add("NEVER", None, "never|not|no|don't|cannot|can't|mustn't|shouldn't|won't|isn't|aren't|doesn't|at_no_time")
_add("NEVER", None, "do|does|must|may|should|can|shall|will|could|is|are not |be", "must|may|should|will never |be")
_add("ALWAYS", None, "always|every_time|each_time|without_exception|in_any_case|in_every_case")

# Counting
_add("PERCENT", None, "%|percent|per_cent|pct")
_add("TIMES", 1, "once")
_add("TIMES", 2, "twice")
_add("TIMES", 3, "thrice")
_add("CALL", None, "call|calls|time|times|uses|invocation|invocations|escalation|escalations")
_add(
    "REQUEST",
    None,
    "request|requests|req|reqs|question|questions|query|queries|prompt|prompts|message|messages|traffic",
)
_add("REQUEST", None, "input|inputs|conversation|conversations|texts")
_add("OF", None, "of |all|the|our|all_the|all_our|my|these|any|its|their")
_add("OF_REQUESTS", None, "of the_time|the_traffic|all_traffic|cases|all_cases")
_add("PER", None, "out_of", "out_of|of|in|from every|each")
_add("SHARE", None, "share|portion|fraction|percentage|proportion")
_add("TOKENS", None, "token|tokens", "answer|output|generated|completion|response|all tokens")
_add("ANSWER", None, "answer|answers|answered|response|responses|reply|replies|replied|respond|responds|answering")
_add("LATENCY", None, "latency|latencies|latency_of_answers", "response|answer|answering|waiting time|times")
_add("CONCURRENT", None, "concurrent|concurrently|simultaneous|simultaneously|parallel|in_parallel|in_flight|in-flight")
_add("CONCURRENT", None, "at |any a|one|any|one_given|any_one|any_given|the_same time|moment", "at_once|side_by_side")
_add("CONCURRENT", None, "concurrency|concurrency_of")
_add("AVERAGE", None, "average|averaged|mean|on_average|on_the_average|in_the_mean|an_average_of")
_add("TOTAL", None, "total|overall|in_total|in_all|all_told|all_in_all|for_good|ever|a_total_of|as_a_whole")
_add("TOTAL", None, "over|in|for|during the|its|the_budget's |whole|entire life|lifetime")
_add("PERCENTILE", None, "percentile|th_percentile")
_add("MEDIAN", None, "median|the_median")

# Windows
for _name, (_n, _unit) in UNITS.items():
    _add("UNIT", (_n, _unit), _name, *([f"{_name}s"] if len(_name) > 2 and not _name.endswith("s") else []))
_add("PER_UNIT", (1, "hour"), "hourly")
_add("PER_UNIT", (1, "day"), "daily")
_add("PER_UNIT", (1, "week"), "weekly")
_add("PER_UNIT", (2, "week"), "fortnightly")
_add("PER_UNIT", (1, "month"), "monthly")
_add("PER_UNIT", (3, "month"), "quarterly", "per|every|each|in_a|in_each |calendar quarter", "a calendar quarter")
_add("PER_UNIT", (12, "month"), "yearly|annually|per_annum")
_add("PER", None, "per|/|each|every|for_every|for_each|for_any", "in|within|during|over each|every|a|an|one")
_add("IN", None, "in")
_add("A", None, "a|an")
_add(
    "MARK", "rolling", "rolling|sliding|moving|trailing|running|consecutive|continuous", "any |one|given|single|rolling"
)
_add(
    "MARK", "rolling", "in|within|over|during|for|per any |one|given|single|rolling", "|in|over |the last|past|previous"
)
_TABLE.pop("past")
_add("OVER", None, "past")
_add("MARK", "calendar", "calendar")
_add(
    "EVERYBODY", "all", "across all|everything|everyone|everybody", "for|by|from everyone|everybody |together|combined"
)
_add("EVERYBODY", "all", "across|over|for|by all |api keys|users|tenants|models |together|combined", "globally")
_add("EVERYBODY", "all", "everyone|everybody|all_users|all_keys|all_tenants|all_models together")

# Hours; days, clock times and zones are read by the lexer
_add("BETWEEN", None, "between")
_add("FROM", None, "from")
_add("TO", None, "to|until|till|through|up_until|towards")
_add("RANGE", None, "-")
_add("AFTER", None, "after|since")
_TABLE["after"] = Entry("AFTER")
_add("BEFORE", None, "before")
_add(
    "OTHERWISE", None, "otherwise|else|on_other_days|on_all_other_days|the_rest_of_the", "the_rest_of_the time|day|week"
)
_add("OTHERWISE", None, "at|in|during |all other times|hours", "outside |of |those|these|that|this hours|times|time")
_add(
    "OUTSIDE", None, "outside |of", "except|other_than|apart_from |on|at|for|during", "not|but_not on|at|during|between"
)
for _word in ("not between", "but not between", "the rest of the"):
    _TABLE.pop(_word)
_add("ZONE_NOUN", None, "timezone|time_zone|all_times|all_times_are|all_windows", "timezone|time_zone |is|:")
_add(
    "ZONE_NOUN",
    None,
    "days|times|hours|windows are|is |counted|measured|reckoned |in|by",
    "count days|times|windows in",
)

# Whose
_add("SCOPE", "key", "|api key|keys", "api-key|api-keys|apikey")
_add("SCOPE", "user", "user|users|person|people|end_user|end-user")
_add("SCOPE", "tenant", "tenant|tenants|organisation|organisations|organization|organizations|org")
_add("SCOPE", "model", "model|models|requested_model|model_name")
for _scope, _noun in {"key": "key|api_key", "user": "user", "tenant": "tenant", "model": "model"}.items():
    _add("EACH", _scope, f"by|per_each|for_each_and_every {_noun}")

# Models and where requests go
_add("TEACHER", None, "teacher |model|llm|model's|'s", "big|large|larger|bigger|strong|stronger model|llm")
_add("STUDENT", None, "student |model|llm|model's|'s", "small|smaller|little|cheap|cheaper model|llm")
_add("TEACHER", None, "teacher's|teacher's_model")
_add("STUDENT", None, "student's", "fall|falls|falling back |to|on |the |student |model")
_add("IT", None, "it|them")
_add("VERB", None, "->|→")
_add(
    "REST",
    None,
    "everything|all|anything else",
    "the_rest|all_others|any_others",
    "all|any|the other requests|questions|prompts",
)
_add("VERB", None, "use|uses|used|using|ask|asked|asking|consult|consulted|send|sends|sent|sending|query_the")
_add(
    "VERB",
    None,
    "route|routes|routed|routing|go|goes|going|forward|forwards|forwarded|direct|directed|hand|handed|take",
)
_add(
    "VERB",
    None,
    "handle|handles|handled|pass|passed|calling|called|escalate|escalated|invoke|invoked|belong|give|given",
)

# Rules
_add("CODE", None, "code |requests|prompts|snippets|snippet|blocks", "source_code|program_code|some_code")
_add(
    "CODE",
    None,
    "contain|contains|containing|include|includes|including|with |source|some|any code |in_it|in_them|inside",
)

# When the budget is exhausted; whole phrases are read by `fate`
_add("EXHAUSTED", None, "exhausted|depleted|exhaustion|used_up|over_budget|over_quota|over_the_limit|nothing_left|then")
_add("EXHAUSTED", None, "beyond_that|past_that|after_that|after_which")
_add(
    "REJECT",
    None,
    "reject|rejects|rejected|refuse|refuses|refused|deny|denied|decline|declined|block|blocked|fail|fails",
)
_add("REJECT", None, "error|errors|too_many_requests")
_add("QUEUE", None, "queue|queues|queued|queueing|wait|waits|waiting|delay|delayed|wait_for|waits_for|queue_for")
_add(
    "RANDOM",
    None,
    "at_random|randomly|random|by_chance|by_a_coin|by_coin|by_a_coin_flip|decided_at_random|explore|explores",
)
_add(
    "RANDOM",
    None,
    "flip|toss|throw a coin |for",
    "exploration|exploring|a_coin_decides|a_coin_decides_for|are_decided_at_random",
)
_add(
    "NO_LIMIT",
    None,
    "no limit|limits|cap|caps|restriction|restrictions |on|for|to",
    "without |any limit|limits|restriction",
)
_add(
    "NO_LIMIT",
    None,
    "unlimited|unrestricted|limitless|not_limited",
    "as often|much as |it|you|we likes|like|wants|want",
)

# Wishes that do not say how much.
_add(
    "VAGUE",
    None,
    "sometimes|often|seldom|rarely|occasionally|frequently|usually|mostly|normally|generally|hardly_ever|now_and_then",
    "a_lot|lots|a_lot_of|lots_of|much|little|a_little|a_bit|few|a_few|several|many|some|plenty|tons|loads|a_couple|a_couple_of",
    "most|almost|enough|too_much|too_often|too_many|reasonable|reasonably|sensible|sensibly|sparingly|very_often|not_often",
    "not_too_much|not_too_often|not_too_many|not_much|once_in_a_while|from_time_to_time|every_so_often|every_now_and_then",
    "as|when|if|where needed|necessary|required|possible|appropriate|sensible",
    "cheap|cheaply|expensive|low|high|fast|quick|quickly|slow|soon|affordable|moderate|moderately",
)
_add(
    "VAGUE_REQUEST",
    None,
    "|really|very|more hard|difficult|tricky|complex|complicated|important|easy|simple|urgent",
)
_add(
    "VAGUE_TIME",
    None,
    "at_night|by_day|by_night|during_the_day|during_the_night|at_lunch",
    "in the morning|afternoon|evening",
    "|in|during|at|within|outside |the |normal office|business|working|peak|opening|off-peak hours|times",
)

# Punctuation
_add("COMMA", None, ",", "(", ")", "、")
_add("AND", None, "and|but|plus|;|&|as_well_as", "and also|then", ", and|but")
_add("OR", None, "or", ", or", "or else")
_TABLE.pop("and then")
_add("COLON", None, ":")
_add("STOP", None, ".|!|?|。")
_TABLE["\n"] = Entry("STOP")

# Money
for _sign, _code in (currencies.SIGNS | currencies.ENGLISH).items():
    _add("CURRENCY", (_code, 1), _sign.replace(" ", "_"))
for _code in currencies.CODES:
    _add("CURRENCY", (_code, 1), _code.lower())
_add("CURRENCY", ("USD", 100), "cent|cents|¢")
_add("CURRENCY", ("GBP", 100), "pence")

# Languages of requests
for _code, _name in tongues.ENGLISH.items():
    _add("TONGUE", _code, f"|in|written_in|asked_in {_name.lower()}")

LEXICON = Lexicon(_TABLE)
