"""What can go wrong between the worker, the catalog and the backend, by what is to be done about it."""


class AccessRefusedError(RuntimeError):
    """A service does not let this worker in (401 or 403): nothing helps but another key."""


class AwayError(RuntimeError):
    """A service does not answer at the moment: try again."""


class FaultyError(AwayError):
    """A service broke down over one request; it may do so again over the same one."""


class RequestRefusedError(RuntimeError):
    """A service understood the request and will not carry it out; asking again changes nothing."""

    def __init__(self, status: int, detail: str, body: bytes = b"") -> None:
        super().__init__(detail)
        self.status = status
        self.body = body


class TooLargeError(RuntimeError):
    """An answer was larger than it may be; the rest was not read."""


class JobLeaseLostError(RuntimeError):
    """The job is somebody else's by now, or nobody's."""


class JobFailedError(RuntimeError):
    """The job cannot be done; `retry` says whether another attempt may do better."""

    def __init__(self, detail: str, *, retry: bool = False) -> None:
        super().__init__(detail)
        self.retry = retry


class PhotoSkippedError(RuntimeError):
    """A photo that yields no vector; `reason` is the word under which it is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
