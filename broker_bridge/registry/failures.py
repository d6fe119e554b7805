"""The driver's errors by names of ours: outside this folder nobody imports the driver."""

from pymongo.errors import OperationFailure, PyMongoError

DriverError = PyMongoError
"""Whatever MongoDB or the way to it has done wrong."""

# FailedToParse, InvalidResumeToken, ChangeStreamFatalError, ChangeStreamHistoryLost, and what the server says
# of hex that is no token (Overflow, KeyString format).
_NOT_RESUMABLE = {9, 15, 260, 280, 286, 50_811, 50_821, 50_824, 50_829}


def cannot_resume(error: Exception) -> bool:
    """Whether a change stream will never go on from its token: too old, or none of this database's."""
    return isinstance(error, OperationFailure) and error.code in _NOT_RESUMABLE
