"""The error that commands show to their user."""


class UserError(Exception):
    """An error that the user can mend. The message says what is wrong and what to do."""
