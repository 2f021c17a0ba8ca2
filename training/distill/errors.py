"""What can go wrong in distillation, and whose fault it was.

CannotDistill        the user's: configuration, data or a pair that do not fit; exit code 2
DistillationFailed   the machine's: a full disk, a teacher that does not answer; exit code 1
  Stopped            somebody asked it to stop; the checkpoint is written; exit code 1
"""


class CannotDistill(ValueError):
    """What was asked cannot be done; the message says what, where, and what to do."""


class DistillationFailed(RuntimeError):
    """It began and could not go on; the message says what is left."""


class Stopped(DistillationFailed):
    """Asked to stop; the same command goes on."""
