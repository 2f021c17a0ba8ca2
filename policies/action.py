"""What a policy can choose, and at which of the three decision points it chooses."""

from enum import StrEnum


class Step(StrEnum):
    """A decision point in the life of one request."""

    ROUTE = "route"  # before anything is generated
    DEFER = "defer"  # the student's draft is there
    HELP = "help"  # inside the generation, at a help token or a segment boundary


class Action(StrEnum):
    """A choice at a step; the second of each pair is the one that calls the teacher."""

    STUDENT = "student"
    TEACHER = "teacher"
    KEEP = "keep"
    ESCALATE = "escalate"
    GO_ON = "go_on"
    HELP = "help"

    @property
    def calls_teacher(self) -> bool:
        return self in (Action.TEACHER, Action.ESCALATE, Action.HELP)


ACTIONS: dict[Step, tuple[Action, Action]] = {
    Step.ROUTE: (Action.STUDENT, Action.TEACHER),
    Step.DEFER: (Action.KEEP, Action.ESCALATE),
    Step.HELP: (Action.GO_ON, Action.HELP),
}
"""At each step: (the action that stays with the student, the action that calls the teacher)."""
