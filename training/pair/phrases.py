"""The words that questions are made of: who, what, and how one asks. `questions.py` chooses the numbers.

Placeholders: `{a}`..`{d}` numbers, `{name}` and `{other}` people, `{he}` the pronoun of `{name}`, `{things}` what is
counted, `{packs}` what holds them. Every group has several wordings, so that neither model can go by one sentence.
"""

from typing import Final

NAMES: Final = (
    ("Anna", "she"), ("Ben", "he"), ("Clara", "she"), ("David", "he"), ("Emma", "she"), ("Felix", "he"),
    ("Grace", "she"), ("Hugo", "he"), ("Ines", "she"), ("Jonas", "he"), ("Kenji", "he"), ("Lena", "she"),
    ("Maria", "she"), ("Noah", "he"), ("Olga", "she"), ("Paul", "he"), ("Rosa", "she"), ("Sam", "he"),
    ("Tara", "she"), ("Yuki", "she"), ("Omar", "he"), ("Priya", "she"), ("Leo", "he"), ("Mei", "she"),
)  # fmt: skip

THINGS: Final = (
    "apples", "pears", "oranges", "eggs", "books", "pencils", "stamps", "cards", "marbles", "flowers", "cookies",
    "candles", "buttons", "coins", "shells", "stickers", "balloons", "tickets", "photos", "plums",
)  # fmt: skip

PACKS: Final = ("bags", "boxes", "packs", "baskets", "bowls", "jars")

TEMPLATES: Final[dict[str, tuple[str, ...]]] = {
    "sum": (
        "What is {a} + {b}?",
        "{a} + {b} = ?",
        "{a}+{b}",
        "What is {a} plus {b}?",
        "Add {a} and {b}.",
        "What is the sum of {a} and {b}?",
        "Calculate {a} + {b}.",
        "How much is {a} + {b}?",
    ),
    "difference": (
        "What is {a} - {b}?",
        "{a} - {b} = ?",
        "{a}-{b}",
        "What is {a} minus {b}?",
        "Subtract {b} from {a}.",
        "Calculate {a} - {b}.",
        "How much is {a} - {b}?",
        "What is the difference between {a} and {b}?",
    ),
    "product": (
        "What is {a} * {b}?",
        "{a} * {b} = ?",
        "{a}*{b}",
        "What is {a} times {b}?",
        "Multiply {a} by {b}.",
        "Calculate {a} x {b}.",
        "What is the product of {a} and {b}?",
        "How much is {a} × {b}?",
    ),
    "quotient": (
        "What is {a} / {b}?",
        "{a} / {b} = ?",
        "What is {a} divided by {b}?",
        "Divide {a} by {b}.",
        "Calculate {a} ÷ {b}.",
        "How many times does {b} go into {a}?",
    ),
    "gain": (
        "{name} has {a} {things} and gets {b} more. How many {things} does {he} have now?",
        "{name} has {a} {things}. {other} gives {name} {b} more. How many does {he} have now?",
        "There are {a} {things} on the table. {name} adds {b}. How many are there now?",
        "{name} found {a} {things} on Monday and {b} on Tuesday. How many {things} is that?",
        "{name} has {a} {things} and {other} has {b}. How many {things} do they have together?",
        "A shop sold {a} {things} in the morning and {b} in the afternoon. How many {things} did it sell?",
    ),
    "loss": (
        "{name} had {a} {things} and gave {b} to {other}. How many {things} are left?",
        "{name} has {a} {things}. {he} loses {b} of them. How many {things} does {he} still have?",
        "There were {a} {things} in the shop. {b} were sold. How many are left?",
        "{name} has {a} {things} and {other} has {b}. How many more does {name} have?",
        "{name} wants {a} {things} and has {b}. How many are missing?",
        "A book has {a} pages. {name} has read {b}. How many pages are left?",
    ),
    "groups": (
        "{name} buys {a} {packs} of {b} {things}. How many {things} is that?",
        "There are {a} {packs} with {b} {things} each. How many {things} are there?",
        "{name} puts {b} {things} in each of {a} {packs}. How many {things} does {he} need?",
        "{name} reads {b} pages a day. How many pages does {he} read in {a} days?",
        "One ticket costs {b} dollars. How much do {a} tickets cost?",
        "A room has {a} rows of {b} chairs. How many chairs are there?",
    ),
    "share": (
        "{name} shares {a} {things} equally among {b} friends. How many does each get?",
        "{a} {things} are packed into {b} {packs} evenly. How many are in each?",
        "{name} packs {a} {things} in {packs} of {b}. How many {packs} does {he} need?",
        "{b} tickets cost {a} dollars. How much is one ticket?",
        "{name} reads {a} pages in {b} days, the same each day. How many pages a day?",
    ),
    "large product": (
        "What is {a} * {b}?",
        "What is {a} times {b}?",
        "Calculate {a} x {b}.",
        "One box weighs {b} kilos. How much do {a} boxes weigh?",
        "A train drives {b} kilometres an hour. How far does it go in {a} hours?",
        "{name} earns {b} dollars a day. How much does {he} earn in {a} days?",
    ),
    "bags": (
        "{name} has {a} {things} and buys {b} {packs} of {c}. How many {things} does {he} have now?",
        "{name} has {a} {things}. {other} brings {b} {packs} with {c} {things} each. How many {things} are there now?",
        "There are {a} {things} on the table and {b} {packs} of {c} {things}. How many {things} are there?",
        "{name} saved {a} dollars and earns {c} dollars a day. How many dollars does {he} have after {b} days?",
    ),
    "in and out": (
        "{name} has {a} {things}, gets {b} more and gives {c} to {other}. How many {things} does {he} have now?",
        "A bus has {a} people in it. {b} get on and {c} get off. How many people are on the bus?",
        "There were {a} {things} in a shop. {b} were brought and {c} were sold. How many are there now?",
        "{name} had {a} dollars, earned {b} and spent {c}. How much does {he} have now?",
    ),
    "compare": (
        "{name} has {a} {things}. {other} has {b} more than {name}. How many do they have together?",
        "{name} read {a} pages and {other} read {b} pages more. How many pages did they read together?",
        "A pen costs {a} dollars and a book costs {b} dollars more. How much do they cost together?",
    ),
    "times as many": (
        "{name} has {a} {things}. {other} has {b} times as many. How many do they have together?",
        "{name} found {a} {things} and {other} found {b} times as many. How many {things} did they find together?",
        "A pen costs {a} dollars and a book costs {b} times as much. How much do they cost together?",
    ),
    "shopping": (
        "A pen costs {b} dollars and a book costs {d} dollars. How much do {a} pens and {c} books cost?",
        "{name} buys {a} pens for {b} dollars each and {c} books for {d} dollars each. How much does {he} pay?",
        "{name} has {a} {packs} of {b} {things} and {c} {packs} of {d}. How many {things} does {he} have?",
    ),
    "change": (
        "{name} buys {b} tickets for {c} dollars each and pays with {a} dollars. How much change does {he} get?",
        "{name} has {a} dollars and buys {b} books for {c} dollars each. How many dollars are left?",
        "A book has {a} pages. {name} reads {c} pages a day for {b} days. How many pages are left?",
        "There were {a} {things}. {name} filled {b} {packs} with {c} {things} each. How many are left over?",
    ),
    "seats": (
        "A room has {a} rows of {b} chairs. {c} chairs are added and {d} are taken. How many chairs are free?",
        "{name} bakes {a} trays of {b} cookies and {c} more. {d} are eaten. How many cookies are left?",
        "{name} has {a} {packs} of {b} {things}, buys {c} more and gives away {d}. How many {things} are left?",
    ),
    "chain ask": ("What is {e}?", "Calculate {e}.", "{e} = ?", "How much is {e}?"),
}
