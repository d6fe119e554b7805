"""Errors that end the command, and errors of a single item."""


class CannotRunError(RuntimeError):
    """An error that only the operator can fix: one sentence, status 2."""


class ApiRefusedError(RuntimeError):
    """A refusal by the API: HTTP `status`, its stable `code`, and a sentence."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail


class FileRefusedError(ValueError):
    """A file that cannot be imported. The sentence quotes nothing of its content."""
