"""Errors between worker, catalog and backend, by their remedy."""


class AccessRefusedError(RuntimeError):
    """A service rejects this worker's key (401 or 403); only another key helps."""


class SpaceRefusedError(RuntimeError):
    """The worker's vectors would not compare with those of the backend's space."""


class ServiceUnavailableError(RuntimeError):
    """A service does not answer at the moment; a retry may help."""


class ServiceFaultError(ServiceUnavailableError):
    """A service failed over one request, and may fail over it again."""


class RequestRefusedError(RuntimeError):
    """A service refuses a request; a retry changes nothing."""

    def __init__(self, status: int, detail: str, body: bytes = b"") -> None:
        super().__init__(detail)
        self.status = status
        self.body = body


class TooLargeError(RuntimeError):
    """An answer above its size limit; the rest was not read."""


class JobLeaseLostError(RuntimeError):
    """The lease of the job has expired or belongs to another worker."""


class JobFailedError(RuntimeError):
    """The job cannot be done; `retry` says whether another attempt may succeed."""

    def __init__(self, detail: str, *, retry: bool = False) -> None:
        super().__init__(detail)
        self.retry = retry


class PhotoSkippedError(RuntimeError):
    """A photo that yields no vector; it is counted under `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
