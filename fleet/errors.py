"""What ends the command, and what is wrong with one thing only."""


class CannotRunError(RuntimeError):
    """Nothing helps but an operator: one sentence, status 2."""


class ApiRefusedError(RuntimeError):
    """The API understood and will not: HTTP `status`, its stable `code`, and a sentence."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail


class FileRefusedError(ValueError):
    """A file is not what it should be. The sentence says why and quotes nothing of it."""
