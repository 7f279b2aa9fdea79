"""The one error of commands that a user is to read."""


class UserError(Exception):
    """Something that the user can mend; the message says what, and what to do."""
