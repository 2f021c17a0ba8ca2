"""What is said in English about a text that cannot be read: for each code a message, and a hint with a sentence."""

ENGLISH = {
    "empty": ("The text says nothing.", "Say for example: At most 20% of requests to the teacher."),
    "too_long": (
        "The text has {length} characters; a budget may have {most}.",
        "Say the limits in a few sentences.",
    ),
    "unknown": (
        "This says nothing about the budget that can be read.",
        "Leave it out, or say it as a limit: At most 200 teacher calls per day.",
    ),
    "unclear": (
        "The words are known, but not what they say together.",
        "Say one thing at a time, for example: At most 200 teacher calls per day.",
    ),
    "vague": (
        "This is a wish without a number.",
        "Say how much: Aim for 20% of requests to the teacher.",
    ),
    "vague_time": (
        "This names no hours.",
        "Name them: On weekdays between 09:00 and 18:00 at most 50 teacher calls per hour.",
    ),
    "vague_request": (
        "This does not say by what a request is known.",
        "Name a topic, a length or a tag: Requests longer than 2,000 tokens always ask the teacher.",
    ),
    "share_high": ("A share cannot be more than 100%.", "Say a share between 0% and 100%: At most 20% of requests."),
    "token_share": (
        "A share of tokens holds for all answers together and at all times.",
        "Say it without window, hours or scope: At most 20% of the tokens from the teacher.",
    ),
    "negative": ("A limit cannot be negative.", "Say zero or more: At most 0 teacher calls in total."),
    "not_whole": ("{what} come in whole numbers.", "Say a whole number: At most 3 teacher calls per minute."),
    "too_big": ("The number is too large to be a limit.", "Leave the limit out, or say: No limit on the teacher."),
    "malformed": (
        "This is no number that can be read for certain.",
        "Write thousands and decimals so: At most 1,000 teacher calls per day, at most 0.5 of requests.",
    ),
    "floor": (
        "A budget bounds from above; it cannot promise a least amount.",
        "Say the most that is allowed, or what to aim for: Aim for 20% of requests to the teacher.",
    ),
    "over_target": ("The words say both a goal and its opposite.", "Say one: Aim for 20% of requests to the teacher."),
    "two_amounts": (
        "There are two amounts in one clause.",
        "Separate them: Aim for 20% of requests, at most 200 teacher calls per day.",
    ),
    "two_windows": (
        "There are two windows for one limit.",
        "Say two limits: At most 10 teacher calls per hour, at most 100 per day.",
    ),
    "two_scopes": (
        "There are two scopes for one limit.",
        "Say two sentences: At most 10 teacher calls per API key per day. At most 5 teacher calls per user per day.",
    ),
    "two_times": ("There are two times for one limit.", "Say two sentences, one for each time."),
    "two_conditions": (
        "There are two fates for one request.",
        "Say one: When the budget is exhausted the student answers.",
    ),
    "which_limit": (
        "It cannot be told which of its neighbours this belongs to.",
        "Say it in the sentence of its limit: At most 200 teacher calls per API key per day.",
    ),
    "which_scope": (
        "It is not said whether this is for each of them or for all together.",
        "Say per: At most 5 teacher calls per user per day.",
    ),
    "rest": (
        "A rule speaks of requests that it can name; all others go where the policy sends them.",
        "Leave it out, or name the requests: Requests about small talk never ask the teacher.",
    ),
    "no_amount": ("A limit needs a number.", "Say how much: At most 200 teacher calls per day."),
    "no_measure": (
        "It is not said what is counted.",
        "Say calls, tokens, money or a share: At most 200 teacher calls per day.",
    ),
    "no_noun_unit": (
        "A length of time is no amount of the teacher.",
        "Say calls per time, or a latency: 95% of answers within 2 seconds.",
    ),
    "contradiction": (
        "The target is above the cap: {first}; {second}.",
        "Lower the target to the cap or below, or raise the cap.",
    ),
    "two_limits": ("Two limits for the same thing: {first}; {second}.", "Keep one of them."),
    "unlimited_and_limit": ('"No limit" contradicts the limits beside it.', "Leave out one of the two."),
    "unlimited_part": (
        '"No limit" can only be said of everything.',
        "Leave this part out; what is not limited is free.",
    ),
    "currency": (
        "There is no rate for {currency}.",
        "Configure a rate from {currency} to USD, or say it in dollars: At most $5 per day.",
    ),
    "zone": (
        "No time zone has this name.",
        "Name it as the time zone database does: At most 200 teacher calls per day in Asia/Tokyo time.",
    ),
    "time": (
        "No clock shows these hours.",
        "Say hours from 00:00 to 24:00: Between 09:00 and 18:00 at most 50 teacher calls per hour.",
    ),
    "window": (
        "This is no window that can be counted over.",
        "Say a whole number of seconds, minutes, hours, days, weeks or months.",
    ),
    "calendar": (
        "Seconds, minutes and hours always roll; only days, weeks and months follow the calendar.",
        "Say: At most 50 teacher calls per hour.",
    ),
    "request_only": (
        "Only money and tokens can be said per request.",
        "Say a share instead: At most 20% of requests to the teacher.",
    ),
    "per_call": (
        "Amounts are counted per request, not per teacher call.",
        "Say: At most $0.003 per request on average.",
    ),
    "quantile": ("A share of answers lies between 0% and 100%.", "Say: 95% of answers within 2 seconds."),
    "latency": ("It is not said which share of the answers this holds for.", "Say: 95% of answers within 2 seconds."),
    "latency_zero": ("No answer takes no time.", "Say: 95% of answers within 2 seconds."),
    "rule_limit": (
        "A limit cannot be narrowed to some requests by what they say; a rule can only send them to one model.",
        "Say two sentences: At most 200 teacher calls per day. Requests about legal questions always ask the teacher.",
    ),
    "rule_time": ("A rule holds at all times and for everybody.", "Leave the time or the scope out of the rule."),
    "rule_route": (
        "It is not said which model these requests go to.",
        "Say it: Requests about legal questions always ask the teacher.",
    ),
    "only": (
        '"Only" also speaks of all other requests, and a rule cannot.',
        "Say what goes where: Requests about small talk never ask the teacher.",
    ),
    "length": (
        "A length is a whole number of tokens.",
        "Say: Requests longer than 2,000 tokens always ask the teacher.",
    ),
    "explore": (
        "How many requests a coin decides is a share of requests.",
        "Say: 1% of requests are decided at random.",
    ),
    "otherwise": (
        "There is no time before this that it could be the rest of.",
        "Say first: On weekdays at most 50 teacher calls per hour, otherwise 10.",
    ),
    "exhausted": ("It is not said what happens then.", "Say: When the budget is exhausted the student answers."),
    "exhausted_teacher": (
        "The teacher cannot answer when its budget is exhausted.",
        "Say: When the budget is exhausted requests are refused with error 429.",
    ),
    "queue": (
        "A wait needs a length of time above zero.",
        "Say: When the budget is exhausted requests wait in a queue for up to 30 seconds.",
    ),
    "zone_alone": (
        "Nothing here is counted by the calendar of a time zone.",
        "Say it of a day, a week or hours: At most 200 teacher calls per calendar day in Asia/Tokyo time.",
    ),
    "alone": ("This belongs to a limit, and there is none.", "Say the limit too: At most 200 teacher calls per day."),
    "average": (
        "Only amounts per request are held on average; a window holds its limit at every moment.",
        "Say: At most $0.003 on the teacher per request on average.",
    ),
    "student_limit": (
        "A budget limits the teacher; the student is free.",
        "Say what the teacher may do: At most 20% of requests to the teacher.",
    ),
    "or": (
        'A budget holds all of its limits; it cannot choose with "or".',
        "Say one of them, or join them with and: At most 20% of requests and at most 200 teacher calls per day.",
    ),
    "half_day": (
        "It is not said whether this is before or after noon.",
        "Say hours from 00:00 to 24:00: From 09:00 to 17:00 at most 50 teacher calls per hour.",
    ),
    "range": ("A range is not one limit.", "Say the most that is allowed: At most 20% of requests to the teacher."),
}
NAMES = {"calls": "Calls", "tokens": "Tokens", "concurrent": "Calls at a time"}
