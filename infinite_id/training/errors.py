"""The one error of the trainer that a user is to read."""


class TrainingError(Exception):
    """Something that the user can mend; the message says what, and what to do."""
