"""Create every index of the registry at start; an existing index costs nothing."""

from dataclasses import dataclass

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import OperationFailure

from .client import Mongo

_DAY_SECONDS = 86_400
_OPTIONS_DIFFER = 85
_COLLECTION_EXISTS = 48
_INDEX_NOT_FOUND = 27


@dataclass(frozen=True)
class Retention:
    """Days that event images and dead letters are kept."""

    image_days: int = 30
    dead_letter_days: int = 30


async def ensure_indexes(mongo: Mongo, retention: Retention | None) -> None:
    """Create missing indexes and collections, and apply a changed retention."""
    for collection, indexes in _INDEXES.items():
        await mongo.patient_db[collection].create_indexes(indexes)
    for collection, names in _REPLACED.items():
        await _drop_indexes(mongo, collection, names)
    if retention:
        await _ensure_expiry(mongo, "event_images", "stored_at", retention.image_days)
        await _ensure_expiry(mongo, "dead_letters", "last_at", retention.dead_letter_days)
    # Collections without own indexes must exist too: a transaction cannot always create one.
    present = set(await mongo.patient_db.list_collection_names())
    for collection in _WITHOUT_INDEX - present:
        await _ensure_collection(mongo, collection)


async def _ensure_collection(mongo: Mongo, collection: str) -> None:
    try:
        await mongo.patient_db.create_collection(collection, check_exists=False)
    except OperationFailure as error:
        # Another program that starts at the same time may create it first.
        if error.code != _COLLECTION_EXISTS:
            raise


async def _drop_indexes(mongo: Mongo, collection: str, names: frozenset[str]) -> None:
    present = set(await mongo.patient_db[collection].index_information())
    for name in names & present:
        try:
            await mongo.patient_db[collection].drop_index(name)
        except OperationFailure as error:
            # Another program that starts at the same time may drop it first.
            if error.code != _INDEX_NOT_FOUND:
                raise


async def _ensure_expiry(mongo: Mongo, collection: str, field: str, days: int) -> None:
    seconds = days * _DAY_SECONDS
    try:
        await mongo.patient_db[collection].create_index(field, name="expiry", expireAfterSeconds=seconds)
    except OperationFailure as error:
        if error.code != _OPTIONS_DIFFER:
            raise
        await mongo.patient_db.command(
            "collMod", collection, index={"name": "expiry", "expireAfterSeconds": seconds}
        )


_REPLACED = {
    # They lacked the `_id` that a page is ordered by: a page read the events of other users, or sorted.
    "events": frozenset({"user_id_1_received_at_-1", "device_id_1_received_at_-1"}),
    "trails": frozenset({"person_1_since_-1"}),
}
_WITHOUT_INDEX = {"spaces", "sites", "meta", "event_images", "job_photos"}
_INDEXES = {
    "identities": [
        IndexModel([("version", ASCENDING)], unique=True),
        IndexModel([("reach", ASCENDING), ("version", ASCENDING)]),
        IndexModel([("reach", ASCENDING), ("updated_at", ASCENDING)]),
        # An external key belongs to one identity; identities without a key are not in the index.
        IndexModel([("external", ASCENDING)], unique=True, sparse=True),
        IndexModel([("merge.into", ASCENDING)], sparse=True),
        IndexModel([("similar_keys", ASCENDING)]),
        IndexModel([("deleted_at", ASCENDING)], partialFilterExpression={"deleted": True}),
    ],
    "templates": [IndexModel([("user_id", ASCENDING), ("space", ASCENDING)])],
    "api_keys": [
        # Keys from before keys had ids get one at the next start, and are not in the index until then.
        IndexModel([("key_id", ASCENDING)], unique=True, sparse=True),
    ],
    "audit": [
        IndexModel([("at", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("subject", ASCENDING), ("at", DESCENDING), ("_id", DESCENDING)]),
    ],
    "commands": [
        IndexModel([("device_id", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("created_at", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("state", ASCENDING), ("expires_at", ASCENDING)]),
        IndexModel([("created_at", DESCENDING)], expireAfterSeconds=90 * _DAY_SECONDS),
    ],
    "jobs": [
        IndexModel([("submitted_at", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("status", ASCENDING), ("submitted_at", ASCENDING), ("_id", ASCENDING)]),
        IndexModel(
            [("source_system", ASCENDING), ("submission_id", ASCENDING)],
            unique=True,
            partialFilterExpression={"submission_id": {"$type": "string"}},
        ),
        IndexModel([("finished_at", ASCENDING)], expireAfterSeconds=90 * _DAY_SECONDS),
    ],
    "registrations": [IndexModel([("at", ASCENDING)], expireAfterSeconds=7 * _DAY_SECONDS)],
    "erasures": [
        IndexModel([("marks", ASCENDING)]),
        IndexModel([("requested_at", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("completed_at", ASCENDING)]),
    ],
    "devices": [IndexModel([("site_id", ASCENDING)])],
    "persons": [
        IndexModel([("last_seen", DESCENDING), ("_id", DESCENDING)]),
        # By comparison: with `$type` the planner does not use the index, and scans the collection.
        IndexModel([("user_id", ASCENDING)], partialFilterExpression={"user_id": {"$gt": ""}}),
        IndexModel([("linked_before", ASCENDING)], partialFilterExpression={"linked_before": {"$gt": ""}}),
        IndexModel([("not_users", ASCENDING)], partialFilterExpression={"not_users": {"$gt": ""}}),
        IndexModel([("merged_into", ASCENDING)], partialFilterExpression={"merged_into": {"$gt": 0}}),
    ],
    "person_faces": [IndexModel([("person", ASCENDING)]), IndexModel([("space", ASCENDING)])],
    "trails": [
        IndexModel([("person", ASCENDING), ("since", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("until", ASCENDING)]),
    ],
    "dead_letters": [IndexModel([("device_id", ASCENDING), ("last_at", DESCENDING)])],
    # The unique key (device_id, event_id) is the `_id`.
    "events": [
        # Not sparse: events of earlier releases without a position are found by it.
        IndexModel([("position", ASCENDING)]),
        IndexModel([("received_at", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("user_id", ASCENDING), ("received_at", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("device_id", ASCENDING), ("received_at", DESCENDING), ("_id", DESCENDING)]),
    ],
}
