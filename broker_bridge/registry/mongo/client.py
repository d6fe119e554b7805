"""Connect to MongoDB and check the deployment.

Only this file knows which driver is in use.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, SecretStr, field_validator
from pymongo import AsyncMongoClient
from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from broker_bridge.common.masking import ENCODING_HINT, mask, needs_encoding
from broker_bridge.common.programs.version import how_to_install
from broker_bridge.common.settings import Section

from .change_stream import ChangeStream
from .errors import RegistryError
from .shield import DriverCalls, Shielded

Document = dict[str, Any]
T = TypeVar("T")

MINIMUM_VERSION = (5, 0)
"""Snapshot sessions, which sync pages are read in, came with MongoDB 5.0."""

# A frozen server is noticed by these alone. The driver tries a read or a write once more, on another server.
_DEADLINES = {"serverSelectionTimeoutMS": 5000, "connectTimeoutMS": 3000, "socketTimeoutMS": 5000}
_WTIMEOUT_MS = 4000
_PATIENCE_SECONDS = 600.0
_TRANSACTION_SECONDS = 15.0
_RACE_SECONDS = 0.01
_CLOSE_SECONDS = 0.5
_UNAUTHORISED = 13
_AUTHENTICATION_FAILED = 18

DURABLE = WriteConcern(w="majority", j=True, wtimeout=_WTIMEOUT_MS)


class MongoSettings(Section):
    """Connection to the registry.

    `driver` is PyMongo's own asyncio client, or Motor for installations that must stay with it.
    """

    uri: SecretStr = SecretStr("mongodb://127.0.0.1:27017/?replicaSet=rs0")
    database: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,63}$")] = "wfm"
    driver: Literal["pymongo", "motor"] = "pymongo"

    @field_validator("uri")
    @classmethod
    def _scheme(cls, uri: SecretStr) -> SecretStr:
        if not uri.get_secret_value().startswith(("mongodb://", "mongodb+srv://")):
            raise ValueError("a MongoDB URI begins with mongodb:// or mongodb+srv://")
        return uri


class RegistryUnavailableError(Exception):
    """The registry cannot be used; the text is one sentence for an operator."""


class TransactionTimeoutError(RegistryError):
    """A transaction did not end in time; its changes may or may not be stored."""


class Mongo:
    """One client and one database, bound to the event loop that made it.

    Every write is `w=majority, j=true`; every read sees only what a majority of the nodes holds.
    """

    def __init__(self, settings: MongoSettings) -> None:
        self.driver = settings.driver
        self._settings = settings
        self._uri = settings.uri.get_secret_value()
        try:
            self._client: Any = self._connect()
        except (InvalidURI, ConfigurationError, ValueError, OSError) as error:
            # OSError: a file of certificates.
            raise RegistryUnavailableError(_explain_uri(self._uri, error)) from error
        self._calls = DriverCalls()
        database = self._client.get_database(
            settings.database, write_concern=DURABLE, read_concern=ReadConcern("majority")
        )
        self.db: Any = Shielded(database, self._calls)
        self.patient_db: Any = Shielded(database, self._calls, _PATIENCE_SECONDS)
        """The same database for calls in the background that may read or write a whole collection."""

    def _connect(self) -> Any:
        options: dict[str, Any] = {"tz_aware": True, "appname": "wfm-fleet", **_DEADLINES}
        if self.driver == "pymongo":
            return AsyncMongoClient(self._uri, **options)
        try:
            from motor.motor_asyncio import AsyncIOMotorClient  # noqa: PLC0415 (an optional dependency)
        except ImportError as error:
            raise RegistryUnavailableError(
                f'mongo.driver is "motor", but Motor is not installed: {how_to_install("motor")}'
            ) from error
        return AsyncIOMotorClient(self._uri, **options)

    @property
    def hosts(self) -> str:
        """The hosts of the URI, without user name and password."""
        try:
            return ",".join(f"{host}:{port}" for host, port in parse_uri(self._uri, warn=True)["nodelist"])
        except (PyMongoError, ValueError):
            return "the configured hosts"

    async def close(self) -> None:
        """Close the connections, without waiting long for a server that does not answer."""
        closing = self._client.close()
        if closing is not None:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._calls.finish(closing), _CLOSE_SECONDS)
        await self._calls.drain(_CLOSE_SECONDS)

    def again(self) -> "Mongo":
        """Return another client with the same settings."""
        return Mongo(self._settings)

    async def ping(self) -> None:
        """Raise RegistryError unless a primary answers."""
        await self._command("ping")

    async def _command(self, name: str, **options: Any) -> Any:
        return await self._calls.finish(self._client.admin.command(name, **options))

    @asynccontextmanager
    async def _session(self, **options: Any) -> AsyncIterator[Any]:
        session = self._client.start_session(**options)
        if self.driver == "motor":
            session = await self._calls.finish(session)
        try:
            yield session
        except asyncio.CancelledError:
            # A call of the cancelled caller may still use it.
            self._calls.finish_later(session.end_session)
            raise
        except BaseException:
            await self._calls.finish(session.end_session())
            raise
        await self._calls.finish(session.end_session())

    async def transact(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Return the result of `work(session)` in one transaction.

        The transaction is repeated while it loses races. Raises RegistryError, after 15 s at the latest; then
        the change may or may not be stored. The transaction of a cancelled caller runs to its end.
        """
        deadline = time.monotonic() + _TRANSACTION_SECONDS

        async def work_in_time(session: Any) -> T:
            if time.monotonic() > deadline:
                raise _transaction_timeout()
            return await work(session)

        async def attempt() -> T:
            async with self._session() as session:
                while True:
                    try:
                        done: T = await session.with_transaction(
                            work_in_time, read_concern=ReadConcern("snapshot"), write_concern=DURABLE
                        )
                    except RegistryError as error:
                        # Motor 3.7 does not begin again when the commit loses a race.
                        if not error.has_error_label("TransientTransactionError"):
                            raise
                        await asyncio.sleep(_RACE_SECONDS)
                    else:
                        return done

        try:
            return await asyncio.wait_for(self._calls.finish(attempt()), _TRANSACTION_SECONDS)
        except asyncio.TimeoutError as error:
            raise _transaction_timeout() from error

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Any]:
        """Open a session whose reads all see the registry at one point in time."""
        async with self._session(snapshot=True) as session:
            yield session

    async def catch_up(self) -> None:
        """Wait until reads see all writes from before this call.

        A read sees what a majority of the nodes holds, which is a little behind the start of a new change
        stream.
        """
        async with self._session() as session:
            await self._command("ping", session=session)
            # In the same session the read waits for the time of the ping.
            await self.db.meta.find_one({}, {"_id": 1}, session=session)

    @asynccontextmanager
    async def watch(
        self, pipeline: list[Document], collection: str | None = None, **options: Any
    ) -> AsyncIterator[ChangeStream]:
        """Open a change stream on `collection` or the whole database.

        One on the database costs the server 7 us for each event that is recorded, one on a collection 2.
        """
        stream = (self.db if collection is None else self.db[collection]).watch(pipeline, **options)
        stream = await (stream if self.driver == "pymongo" else stream.__aenter__())
        try:
            yield ChangeStream(stream)
        finally:
            # Later, since a call of a cancelled caller may still wait for a change.
            self._calls.finish_later(stream.close)

    async def check(self) -> None:
        """Check that the deployment has all that the registry needs.

        Raises RegistryUnavailableError with one sentence.
        """
        try:
            hello = await self._command("hello")
            build = await self._command("buildInfo")
            missing = what_is_missing(hello, build)
            if missing:
                raise RegistryUnavailableError(f"MongoDB at {self.hosts} {missing}")
            await self._check_permissions()
        except OperationFailure as error:
            raise RegistryUnavailableError(explain_refusal(error, self.hosts, self.db.name)) from error
        except ConfigurationError as error:
            # The hosts of mongodb+srv:// are looked up with the first call.
            raise RegistryUnavailableError(_explain_uri(self._uri, error)) from error
        except ConnectionFailure as error:
            raise RegistryUnavailableError(
                f"no MongoDB primary answers at {self.hosts}: is mongod running, is its replica set up, "
                "and is mongo.uri (WFM_MONGO__URI) right?"
            ) from error

    async def _check_permissions(self) -> None:
        async def write(session: Any) -> None:
            await self.db.meta.update_one(
                {"_id": "start-check"}, {"$currentDate": {"at": True}}, upsert=True, session=session
            )

        await self.transact(write)
        async with self.watch([], "meta"):
            pass


def _transaction_timeout() -> TransactionTimeoutError:
    return TransactionTimeoutError(f"transaction did not end within {_TRANSACTION_SECONDS:g} s")


def _explain_uri(uri: str, error: Exception) -> str:
    """Return what is wrong with a URI.

    The driver's own message may quote a piece of an unescaped password.
    """
    return f"mongo.uri cannot be used: {ENCODING_HINT if needs_encoding(uri) else mask(str(error))}"


def what_is_missing(hello: Document, build: Document) -> str | None:
    """Return what a deployment lacks by its `hello` and `buildInfo` answers, or None."""
    if not hello.get("setName") and hello.get("msg") != "isdbgrid":
        return (
            "is not a replica set, which transactions and change streams need: "
            "start mongod with --replSet rs0 and run rs.initiate() once (one node is enough)"
        )
    if tuple(build["versionArray"][:2]) < MINIMUM_VERSION:
        return f"is version {build['version']}, and the oldest supported one is 5.0"
    return None


def explain_refusal(error: OperationFailure, hosts: str, database: str) -> str:
    """Return one sentence for a command that the server refused at start."""
    if error.code == _AUTHENTICATION_FAILED:
        return f"MongoDB at {hosts} refused the user name or password in mongo.uri (WFM_MONGO__URI)"
    if error.code == _UNAUTHORISED:
        return f"the MongoDB user may not use database {database!r} at {hosts}: grant it readWrite there"
    return f"MongoDB at {hosts} cannot be used: {mask(str(error))}"
