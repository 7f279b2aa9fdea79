"""The one error of the metrics that a user is to read."""


class MetricsError(Exception):
    """Something that the user can mend; the message says what, and what to do."""
