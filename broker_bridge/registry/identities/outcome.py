"""Define the outcome of a change of an identity."""

from dataclasses import dataclass

from broker_bridge.contract.errors import ContractError

from .model import Identity, IdentityChange, Template


@dataclass(frozen=True)
class ChangeOutcome:
    """The identity before and after one change, or the error that refused it.

    `version` was taken for the change. `templates` are those after it (None: they were not read), of which
    `added` are new.
    """

    change: IdentityChange
    before: Identity | None = None
    identity: Identity | None = None
    error: ContractError | None = None
    added: int = 0
    version: int = 0
    templates: tuple[Template, ...] | None = None

    def result(self) -> Identity:
        """Return the identity after the change; raise its ContractError."""
        if self.error:
            raise self.error
        assert self.identity is not None  # noqa: S101  # without an error there is an identity
        return self.identity

    @property
    def created(self) -> bool:
        return self.identity is not None and (self.before is None or self.before.deleted)

    @property
    def changed(self) -> bool:
        return self.identity != self.before


class NothingChanged(Exception):  # noqa: N818  # no error: it gives back the versions that were taken
    """End a transaction that has nothing to write."""

    def __init__(self, outcomes: list[ChangeOutcome]) -> None:
        super().__init__()
        self.outcomes = outcomes
