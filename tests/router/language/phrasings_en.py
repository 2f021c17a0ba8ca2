"""English phrasings and the whole budget that each of them says."""

from router.budget import Budget, During, Limit, Rule, When, Window

SECOND = Window(1, "second")
MINUTE = Window(1, "minute")
HOUR = Window(1, "hour")
DAY = Window(1, "day")
WEEK = Window(1, "week")
MONTH = Window(1, "month")
REQUEST = Window(1, "request")
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri")
WEEKEND = ("sat", "sun")
EVERY_DAY = (*WEEKDAYS, *WEEKEND)


def only(*limits: Limit) -> Budget:
    return Budget(limits)


def share(at_most: float, per: Window | None = None, scope: str = "all", kind: str = "cap") -> Limit:
    return Limit(kind, "share", at_most, per, scope)  # type: ignore[arg-type]


def calls(at_most: float, per: Window | None = None, scope: str = "all", kind: str = "cap") -> Limit:
    return Limit(kind, "calls", at_most, per, scope)  # type: ignore[arg-type]


def tokens(at_most: float, per: Window | None = None, scope: str = "all") -> Limit:
    return Limit("cap", "tokens", at_most, per, scope)  # type: ignore[arg-type]


def usd(at_most: float, per: Window | None = None, scope: str = "all") -> Limit:
    return Limit("cap", "usd", at_most, per, scope)  # type: ignore[arg-type]


def at_a_time(at_most: float, scope: str = "all") -> Limit:
    return Limit("cap", "concurrent", at_most, None, scope)  # type: ignore[arg-type]


def latency(at_most: float, quantile: float, kind: str = "cap") -> Limit:
    return Limit(kind, "latency_s", at_most, quantile=quantile)  # type: ignore[arg-type]


def rules(*pairs: tuple[str, When]) -> Budget:
    return Budget(rules=tuple(Rule(route, when) for route, when in pairs))  # type: ignore[arg-type]


TARGET = "target"
OFFICE = During(WEEKDAYS, "09:00", "18:00", "Asia/Tokyo")

PHRASINGS: dict[str, Budget] = {
    # shares
    "At most 20% of requests.": only(share(0.2)),
    "no more than 15 percent of requests to the teacher": only(share(0.15)),
    "Use the teacher for 0.15 of requests at most": only(share(0.15)),
    "Use the teacher for at most one in ten requests.": only(share(0.1)),
    "Never ask the teacher for more than a fifth of the questions": only(share(0.2)),
    "Ask the teacher about half of the time.": only(share(0.5, kind=TARGET)),
    "up to three quarters of all requests": only(share(0.75)),
    "aim for 1/3 of requests": only(share(1 / 3, kind=TARGET)),
    "roughly two thirds of our traffic": only(share(2 / 3, kind=TARGET)),
    "The teacher should answer around 12.5% of requests, never more than 20%.": only(
        share(0.125, kind=TARGET), share(0.2)
    ),
    "<= 5%": only(share(0.05)),
    "Keep the teacher below 30 per cent.": only(share(0.3)),
    "one out of every twenty requests": only(share(0.05)),
    "3 teacher calls per 100 requests": only(share(0.03)),
    "Each day at most 10% of requests.": only(share(0.1, DAY)),
    "At most a quarter of requests per user": only(share(0.25, None, "user")),
    "½ of requests": only(share(0.5)),
    "at most ２０％ of requests": only(share(0.2)),
    "Please limit the share of requests to the teacher to 20%.": only(share(0.2)),
    "one of ten requests": only(share(0.1)),
    # calls and windows
    "Never more than 200 calls a day per key.": only(calls(200, DAY, "key")),
    "max 1,000 calls per month": only(calls(1000, MONTH)),
    "5k calls a week": only(calls(5000, WEEK)),
    "at most 2 million requests to the teacher per month": only(calls(2_000_000, MONTH)),
    "A dozen calls per hour": only(calls(12, HOUR)),
    "Call the teacher no more than twice a minute.": only(calls(2, MINUTE)),
    "ten thousand calls a fortnight": only(calls(10_000, Window(2, "week"))),
    "Up to 100 calls in any 24 hours.": only(calls(100, Window(24, "hour"))),
    "at most 100 calls per rolling 7 days": only(calls(100, Window(7, "day", rolling=True))),
    "200 calls per calendar month": only(calls(200, MONTH)),
    "Under 30 calls within 5 minutes": only(calls(30, Window(5, "minute"))),
    "two hundred and fifty calls every 12 hours": only(calls(250, Window(12, "hour"))),
    "a call a second": only(calls(1, SECOND)),
    "A maximum of 40 teacher calls daily": only(calls(40, DAY)),
    "hourly limit of 60 calls": only(calls(60, HOUR)),
    "At most 500 calls a week starting Sunday": only(calls(500, Window(1, "week", week_start=6))),
    "no more than 90 calls per quarter": only(calls(90, Window(3, "month"))),
    "1,200 calls per year": only(calls(1200, Window(12, "month"))),
    "30 calls in every 90 seconds": only(calls(30, Window(90, "second"))),
    "At most 10,000 teacher calls in total.": only(calls(10_000)),
    "Not more than thirty-five calls per half hour": only(calls(35, Window(30, "minute"))),
    "Never exceed 10 calls/minute.": only(calls(10, MINUTE)),
    "The teacher must not be called more than 5 times an hour": only(calls(5, HOUR)),
    "Don't use the teacher more than once a day.": only(calls(1, DAY)),
    "only 7 calls a day": only(calls(7, DAY)),
    "8 calls per day or less": only(calls(8, DAY)),
    "300 calls a day, tops": only(calls(300, DAY)),
    "at most 200 calls per day in Tokyo time": only(calls(200, Window(1, "day", tz="Asia/Tokyo"))),
    "At most 200 calls per day (America/New_York).": only(calls(200, Window(1, "day", tz="America/New_York"))),
    "Days are counted in JST. At most 200 calls a day.": only(calls(200, Window(1, "day", tz="Asia/Tokyo"))),
    "Weeks start on Sunday. At most 200 calls a week.": only(calls(200, Window(1, "week", week_start=6))),
    "About 100 calls a day, never more than 120.": only(calls(100, DAY, kind=TARGET), calls(120, DAY)),
    "At most 10 calls a minute, 100 an hour and 500 a day.": only(calls(10, MINUTE), calls(100, HOUR), calls(500, DAY)),
    "Teacher calls: at most 200 a day.": only(calls(200, DAY)),
    # scopes
    "Each user may make at most 2 calls a minute and 50 a day.": only(calls(2, MINUTE, "user"), calls(50, DAY, "user")),
    "Per API key: at most 10 calls per hour.": only(calls(10, HOUR, "key")),
    "Every tenant gets up to 1,000 calls a day": only(calls(1000, DAY, "tenant")),
    "100 calls per day for each model": only(calls(100, DAY, "model")),
    "At most 20% of requests, and at most 5 calls an hour by user": only(share(0.2), calls(5, HOUR, "user")),
    "At most 1000 calls a day across all keys, at most 50 per key.": only(calls(1000, DAY), calls(50, DAY, "key")),
    "At most 3 calls a minute, per user, and at most 10% of requests.": only(calls(3, MINUTE, "user"), share(0.1)),
    # tokens, money, concurrency, latency
    "At most 50k teacher tokens a day.": only(tokens(50_000, DAY)),
    "Spend no more than half a million tokens per week": only(tokens(500_000, WEEK)),
    "2m tokens a month per tenant": only(tokens(2_000_000, MONTH, "tenant")),
    "at most 800 tokens per request on average": only(tokens(800, REQUEST)),
    "At most $12.50 a day.": only(usd(12.5, DAY)),
    "Spend up to 300 dollars per month on the teacher.": only(usd(300, MONTH)),
    "The budget is USD 1,000 a month": only(usd(1000, MONTH)),
    "at most $0.003 per request on average": only(usd(0.003, REQUEST)),
    "25 cents a day per user": only(usd(0.25, DAY, "user")),
    "at most $3 per 1,000 requests": only(usd(0.003, REQUEST)),
    "100 euros a month": only(usd(110, MONTH)),
    "at most €20 a week": only(usd(22, WEEK)),
    "¥3,000 per day": only(usd(20.1, DAY)),
    "no more than 4 at a time": only(at_a_time(4)),
    "At most 8 concurrent teacher calls per key.": only(at_a_time(8, "key")),
    "never more than three calls in parallel": only(at_a_time(3)),
    "p95 under 2 seconds": only(latency(2, 0.95)),
    "95% of answers within 2 s": only(latency(2, 0.95)),
    "Keep p99 latency below 500 ms.": only(latency(0.5, 0.99)),
    "Aim for a median response time of 1.5 seconds": only(latency(1.5, 0.5, TARGET)),
    "The 90th percentile should be at most one minute": only(latency(60, 0.9)),
    "Every answer within 10 seconds": only(latency(10, 1.0)),
    "99.9% of requests answered in under 3 seconds": only(latency(3, 0.999)),
    # hours
    "On weekdays between 9 and 18 Tokyo time at most 50 calls an hour, otherwise 10.": only(
        Limit("cap", "calls", 50, HOUR, during=OFFICE),
        Limit("cap", "calls", 10, HOUR, during=During(WEEKDAYS, "09:00", "18:00", "Asia/Tokyo", otherwise=True)),
    ),
    "At weekends, at most 5% of requests.": only(Limit("cap", "share", 0.05, during=During(WEEKEND))),
    "At most 100 calls a day on Mondays and Fridays": only(
        Limit("cap", "calls", 100, DAY, during=During(("mon", "fri")))
    ),
    "Monday to Thursday, from 9am to 5:30pm, up to 20 calls per hour": only(
        Limit("cap", "calls", 20, HOUR, during=During(("mon", "tue", "wed", "thu"), "09:00", "17:30"))
    ),
    "From 22:00 to 06:00 at most 3 calls an hour": only(
        Limit("cap", "calls", 3, HOUR, during=During(EVERY_DAY, "22:00", "06:00"))
    ),
    "At most 30 calls an hour after 18:00": only(
        Limit("cap", "calls", 30, HOUR, during=During(EVERY_DAY, "18:00", "24:00"))
    ),
    "Outside weekdays 9-18 at most 2 calls an hour": only(
        Limit("cap", "calls", 2, HOUR, during=During(WEEKDAYS, "09:00", "18:00", otherwise=True))
    ),
    "Never use the teacher on weekends.": only(Limit("cap", "calls", 0, during=During(WEEKEND))),
    "Only use the teacher on weekdays.": only(Limit("cap", "calls", 0, during=During(WEEKDAYS, otherwise=True))),
    "On weekdays at most 50 calls an hour and at most 20% of requests": only(
        Limit("cap", "calls", 50, HOUR, during=During(WEEKDAYS)), Limit("cap", "share", 0.2, during=During(WEEKDAYS))
    ),
    "At most 10 calls a day and, on weekends, at most 2 an hour": only(
        calls(10, DAY), Limit("cap", "calls", 2, HOUR, during=During(WEEKEND))
    ),
    # all or nothing
    "Never use the teacher.": only(calls(0)),
    "No teacher calls.": only(calls(0)),
    "Always use the student": only(calls(0)),
    "Always use the teacher.": Budget(),
    "No limit on the teacher": Budget(),
    "unlimited": Budget(),
    # rules
    "Always use it for legal questions.": rules(("teacher", When(topic="legal questions"))),
    "Never use the teacher for small talk": rules(("student", When(topic="small talk"))),
    "Legal questions always go to the teacher.": rules(("teacher", When(topic="legal questions"))),
    "For questions about tax law, always ask the teacher.": rules(("teacher", When(topic="tax law"))),
    "Always use the teacher for legal, medical and tax questions": rules(
        ("teacher", When(topic="legal questions")),
        ("teacher", When(topic="medical questions")),
        ("teacher", When(topic="tax questions")),
    ),
    "Use the teacher for law and medicine.": rules(("teacher", When(topic="law")), ("teacher", When(topic="medicine"))),
    "Always use the teacher for code.": rules(("teacher", When(contains="code"))),
    "Requests that contain code go to the teacher": rules(("teacher", When(contains="code"))),
    "Never send prompts longer than 4,000 tokens to the teacher": rules(("student", When(longer_than_tokens=4000))),
    "Requests over 2k tokens always go to the teacher.": rules(("teacher", When(longer_than_tokens=2000))),
    "Requests of at least 2000 tokens go to the teacher": rules(("teacher", When(longer_than_tokens=1999))),
    "Use the student for requests shorter than 20 tokens.": rules(("student", When(shorter_than_tokens=20))),
    "Requests tagged vip always go to the teacher": rules(("teacher", When(tag="vip"))),
    'Never use the teacher for requests with the tag "batch job"': rules(("student", When(tag="batch job"))),
    "Requests with header X-Plan: gold always use the teacher": rules(("teacher", When(header=("x-plan", "gold")))),
    "Requests from key group research always go to the teacher.": rules(("teacher", When(key_group="research"))),
    "Requests in Japanese always go to the teacher": rules(("teacher", When(language="ja"))),
    "Always use the teacher for French, never for small talk.": rules(
        ("teacher", When(language="fr")), ("student", When(topic="small talk"))
    ),
    'Always use the teacher for "user keys and 5 calls".': rules(("teacher", When(topic="user keys and 5 calls"))),
    "Always use the teacher for legal questions, code and prompts longer than 3,000 tokens": rules(
        ("teacher", When(topic="legal questions")),
        ("teacher", When(contains="code")),
        ("teacher", When(longer_than_tokens=3000)),
    ),
    # what happens when it is used up, and exploring
    "When the budget is used up, return an error.": Budget(when_exhausted="reject"),
    "At most 10 calls a day, then answer with a 429.": Budget((calls(10, DAY),), when_exhausted="reject"),
    "Once the limit is reached, requests are rejected": Budget(when_exhausted="reject"),
    "If the budget runs out, queue requests for up to 10 seconds.": Budget(when_exhausted="queue", queue_s=10),
    "When exhausted, wait": Budget(when_exhausted="queue"),
    "When we run out of budget the student answers.": Budget(),
    "When the limit is hit, fall back to the student.": Budget(),
    "Try 1% at random.": Budget(explore=0.01),
    "At most 20% of requests. Explore 2% of requests.": Budget((share(0.2),), explore=0.02),
    "Flip a coin for 5% of requests": Budget(explore=0.05),
    # as people really write
    "I'd like roughly 25% of requests to go to the teacher, but never above 40%.": only(
        share(0.25, kind=TARGET), share(0.4)
    ),
    "Max $0.50/day per user": only(usd(0.5, DAY, "user")),
    "Limit: 200 calls/day": only(calls(200, DAY)),
    "Budget: $10/day": only(usd(10, DAY)),
    "20 calls a day per user, 1000 a day in total": only(calls(20, DAY, "user"), calls(1000, DAY)),
    "at most $2 per thousand requests": only(usd(0.002, REQUEST)),
    "average cost per request at most $0.002": only(usd(0.002, REQUEST)),
    "p50 latency ≤ 800ms": only(latency(0.8, 0.5)),
    "answers within 2 seconds for 95% of requests": only(latency(2, 0.95)),
    "Mon-Fri 08:00-20:00 Europe/Berlin up to 40 calls per hour": only(
        Limit("cap", "calls", 40, HOUR, during=During(WEEKDAYS, "08:00", "20:00", "Europe/Berlin"))
    ),
    "at most 20% of requests on weekdays and 5% at weekends": only(
        Limit("cap", "share", 0.2, during=During(WEEKDAYS)), Limit("cap", "share", 0.05, during=During(WEEKEND))
    ),
    "100 calls each weekday": only(Limit("cap", "calls", 100, DAY, during=During(WEEKDAYS))),
    "every weekday between 9 and 18 at most 50 calls an hour": only(
        Limit("cap", "calls", 50, HOUR, during=During(WEEKDAYS, "09:00", "18:00"))
    ),
    "between 9am and 5pm at most 100 calls an hour, otherwise none": only(
        Limit("cap", "calls", 100, HOUR, during=During(EVERY_DAY, "09:00", "17:00")),
        Limit("cap", "calls", 0, HOUR, during=During(EVERY_DAY, "09:00", "17:00", otherwise=True)),
    ),
    "If a request is longer than 1000 tokens, ask the teacher.": rules(("teacher", When(longer_than_tokens=1000))),
    "If the prompt contains code, use the teacher.": rules(("teacher", When(contains="code"))),
    "Use the teacher whenever the question is about medicine.": rules(("teacher", When(topic="medicine"))),
    "Route code to the teacher and small talk to the student.": rules(
        ("teacher", When(contains="code")), ("student", When(topic="small talk"))
    ),
    "Drug use questions go to the teacher": rules(("teacher", When(topic="drug use questions"))),
    "not more than one call per ten requests": only(share(0.1)),
    "200 calls over any 30 days": only(calls(200, Window(30, "day", rolling=True))),
    "20 calls over 5 minutes": only(calls(20, Window(5, "minute"))),
    "at most 429 calls a day": only(calls(429, DAY)),
    "When over budget return 429 Too Many Requests": Budget(when_exhausted="reject"),
    # several things at once
    "Keep the teacher around 20% of requests, never more than 200 calls a day per key. "
    "Always use it for legal questions.": Budget(
        (share(0.2, kind=TARGET), calls(200, DAY, "key")), (Rule("teacher", When(topic="legal questions")),)
    ),
    "- At most 20% of requests\n- At most $5 a day\n- Code goes to the teacher": Budget(
        (share(0.2), usd(5, DAY)), (Rule("teacher", When(contains="code")),)
    ),
    "At most 20% of requests (never more than 200 calls a day); p95 under 3 seconds; no more than 2 at a time!": only(
        share(0.2), calls(200, DAY), latency(3, 0.95), at_a_time(2)
    ),
    "We would like to spend at most $5 per day, please.": only(usd(5, DAY)),
    "We can afford $50 a week.": only(usd(50, WEEK)),
    "Ask for at most 20% of the tokens.": only(Limit("cap", "token_share", 0.2)),
    "At most a fifth of the answer tokens may be written by the teacher": only(Limit("cap", "token_share", 0.2)),
    "Aim for 15% of the tokens, at most 30% of requests": only(Limit("target", "token_share", 0.15), share(0.3)),
    "the share of tokens is at most 0.1": only(Limit("cap", "token_share", 0.1)),
    "Daily limit: 250 calls. Monthly limit: $100.": only(calls(250, DAY), usd(100, MONTH)),
    "Per user, at most 20 calls a day; overall, at most 2,000 calls a day.": only(
        calls(20, DAY, "user"), calls(2000, DAY)
    ),
    "At most 300 calls a day, but only 10 calls per user.": only(calls(300, DAY), calls(10, DAY, "user")),
    "At most 300 calls a day. At most 10 calls per user.": only(calls(300, DAY), calls(10, None, "user")),
    "The teacher may answer every tenth request.": only(share(0.1)),
    "Ask it every second request at most.": only(share(0.5)),
    "At most 3 calls every second.": only(calls(3, SECOND)),
    "During office hours (9am to 6pm Tokyo time) at most 30%, otherwise 5%.": only(
        Limit("cap", "share", 0.3, during=During(EVERY_DAY, "09:00", "18:00", "Asia/Tokyo")),
        Limit("cap", "share", 0.05, during=During(EVERY_DAY, "09:00", "18:00", "Asia/Tokyo", otherwise=True)),
    ),
}
RATES = {"EUR": 1.1, "JPY": 0.0067}
