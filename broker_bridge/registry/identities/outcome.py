"""What becomes of an order about a person."""

from dataclasses import dataclass

from broker_bridge.contract.errors import ContractError

from .model import Identity, IdentityChange, Template


@dataclass(frozen=True)
class ChangeOutcome:
    """What became of one order: the person before and after, or why not.

    `version` was taken for it, `templates` are the person's after it (None: none were read), `added` of them
    new.
    """

    change: IdentityChange
    before: Identity | None = None
    identity: Identity | None = None
    error: ContractError | None = None
    added: int = 0
    version: int = 0
    templates: tuple[Template, ...] | None = None

    def result(self) -> Identity:
        """The person after the order; raises its ContractError."""
        if self.error:
            raise self.error
        assert self.identity is not None  # noqa: S101  # without an error there is somebody
        return self.identity

    @property
    def created(self) -> bool:
        return self.identity is not None and (self.before is None or self.before.deleted)

    @property
    def changed(self) -> bool:
        return self.identity != self.before


class NothingChanged(Exception):  # noqa: N818  # no error: it gives back the versions that were taken
    """Ends a transaction in which there was nothing to write."""

    def __init__(self, outcomes: list[ChangeOutcome]) -> None:
        super().__init__()
        self.outcomes = outcomes
