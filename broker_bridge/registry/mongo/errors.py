"""The driver's errors by names of ours: outside this folder nobody imports the driver."""

from pymongo.errors import OperationFailure, PyMongoError

RegistryError = PyMongoError
"""Whatever MongoDB or the way to it has done wrong. After one, a write may or may not be there."""

# FailedToParse, Overflow, InvalidResumeToken, ChangeStreamFatalError, ChangeStreamHistoryLost.
_NOT_RESUMABLE = {9, 15, 260, 280, 286}
# Numbered assertions of the server; where a stream is opened from a token they say that it is none.
_ASSERTIONS = range(40_000, 60_000)


def cannot_resume(error: Exception) -> bool:
    """Whether a change stream will never go on from its token: too old, or none of this database's."""
    if not isinstance(error, OperationFailure) or error.code is None:
        return False
    return error.code in _NOT_RESUMABLE or error.code in _ASSERTIONS
