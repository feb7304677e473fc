"""The base of the errors that a person can do something about."""


class ExpectedError(Exception):
    """The text is one sentence for people: what happened, where, and what to do. It needs no trace."""
