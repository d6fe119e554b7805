"""Name the driver's errors for packages that do not import the driver."""

from pymongo.errors import OperationFailure, PyMongoError

RegistryError = PyMongoError
"""Any error of MongoDB or the connection to it. After one, a write may or may not be stored."""


class StreamEndedError(RegistryError):
    """A change stream has ended for good.

    Its collection or database was dropped, renamed or replaced.
    """


# FailedToParse, Overflow, InvalidUUID, InvalidResumeToken, ChangeStreamFatalError, ChangeStreamHistoryLost.
_NOT_RESUMABLE = {9, 15, 207, 260, 280, 286}
# Numbered assertions of the server: the token of a stream is malformed.
_ASSERTIONS = range(40_000, 60_000)


def cannot_resume(error: Exception) -> bool:
    """Return whether a change stream can never resume after its token.

    The token is too old, malformed, or of another database; or the stream ended with its collection.
    """
    if isinstance(error, StreamEndedError):
        return True
    if not isinstance(error, OperationFailure) or error.code is None:
        return False
    return error.code in _NOT_RESUMABLE or error.code in _ASSERTIONS
