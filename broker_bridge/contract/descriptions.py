"""Describe the properties of messages, for AsyncAPI and OpenAPI.

A name means the same in every message, so that its sentence stands here once. A name that means something
else in one model stands as `Model.name`, or the field itself has a description.
"""

from collections.abc import Mapping
from typing import Any

MESSAGE_PROPERTIES: Mapping[str, str] = {
    "alignment": "How faces are cut: onto five landmarks, or the corrected square of the detector's box.",
    "args": "The arguments of the command, defined by its name.",
    "at": "Time of this report, by the clock of the device.",
    "bbox": "Position of the face in the frame: x, y, width, height in pixels.",
    "camera": "State of the camera: frames arrive, it is opened again, or its source has ended.",
    "captured_at": "Time of the frame, by the clock of the device.",
    "clock_offset_ms": "How far the clock of the device is behind that of the backend; unknown if absent.",
    "code": "The stable code of the problem.",
    "confidence": "Confidence of the recognition, 0 to 1.",
    "count": "Number of templates in the space.",
    "detail": "A sentence for people; it quotes neither vectors nor pictures.",
    "instance": "Random, new at each start of the program.",
    "address": "The program's own end of the connection to the broker.",
    "dev_mode": "Whether the device may know names of identities, for development.",
    "detector": "The detector that finds the faces of this space.",
    "device_id": "The id of the device; on the wire it equals that of the topic.",
    "digest": "Digest of the templates of the space: equal on both sides means equal content.",
    "dimension": "Numbers of one vector.",
    "disk_free_mb": "Free space of the data folder in MB.",
    "display_name": "The name for people; present in dev mode only where a camera receives it.",
    "document": "The configuration, with free keys.",
    "distance": "A camera takes the nearest identity within this cosine distance for a match.",
    "done": "Whether this is the last page.",
    "duration_ms": "How long the change took to apply.",
    "emotion_code": "Code of the emotion; only events of the type `emotion` have one.",
    "enrollment_policy": "Whether cameras of the site register unknown faces, as `visitors`, or not.",
    "epoch": "The history that versions belong to; a restored backup begins another.",
    "error": "Why the request was rejected; absent if it was not.",
    "event_id": "The id of the event, unique for its device.",
    "event_type": "What was recognised.",
    "expires_at": "Time from which the command is not executed any more.",
    "flag": "A mark of the operator, such as `vip`.",
    "fps": "New frames a second.",
    "frame_size": "Width and height of the frame in pixels.",
    "frames": "What happened to the camera's frames, counted since the start.",
    "from_version": "The page has the changes after this version.",
    "global_id": "The number of a detected person, the same on all cameras.",
    "hardware": "The board of the device.",
    "head_version": "The newest version of the site.",
    "horizon": "The oldest version from which changes are still known; below it a snapshot sync begins.",
    "id": "The id of the command.",
    "image": "JPEG of the event in base64.",
    "images_dropped": "Event images given up to keep the events, counted since the start.",
    "inference_ms": "Time of one inference.",
    "kind": "Whether the face is that of an employee or of a visitor.",
    "limit": "The most changes of one page.",
    "more": "Whether the next page follows without another request, under the same request id.",
    "pages": "The most pages of one answer; one if absent.",
    "LimitsSource.kind": "Whether the limits came with the model, were calibrated, or configured.",
    "LimitsSource.at": "Time of the calibration or of the change; absent if unknown.",
    "LimitsSource.pairs": "Number of pairs of photographs that were compared; absent if unknown.",
    "LimitsSource.note": "A remark for people.",
    "liveness": "Whether the face is a living one, by a check that the camera has; absent without one.",
    "limits": "The limits of decisions in the space; without them nothing is matched in it.",
    "look_alike": "From this cosine similarity to `same_person` the answer is uncertain.",
    "margin": "The least lead in similarity of the best identity over the second.",
    "method": "Name of the check, such as `depth` or `texture`.",
    "memory_mb": "Memory of the program in MB.",
    "metadata": "Further facts of the recognition, with free keys.",
    "model_sha256": "SHA-256 of the model file that makes vectors of this space.",
    "outbox_depth": "Events that wait for a receipt.",
    "outbox_dropped": "Events given up since the outbox was full, counted since the start.",
    "people": "Identities received so far.",
    "SyncHead.people": "Identities of the site.",
    "SpaceHead.people": "Identities of the site that have a template in the space.",
    "prev_version": "The delta has the changes after this version.",
    "problems": "Why the device is degraded.",
    "quality": "Quality of the face, 0 to 1.",
    "Heartbeat.quality": "Why faces were too poor to recognise, counted since the start.",
    "refusals": "Why recognitions made no event, counted since the start.",
    "rejected": "The events that will never be stored, with the reason.",
    "Heartbeat.rejected": "Events that the backend rejected, counted since the start.",
    "removals": "Identities that were deleted or left the site.",
    "request_id": "Id of the request; the answer repeats it, and the same id again gets the same answer.",
    "reset": "Whether this is the first page of a snapshot sync.",
    "reset_head_version": "`head_version` of the first page of the snapshot sync that continues.",
    "result": "The decision.",
    "score": "How likely the face is a living one, 0 to 1.",
    "session": "One connection of the device.",
    "similarity": "Cosine similarity of the faces, -1 to 1.",
    "same_person": "At least this cosine similarity is the same person at an enrollment.",
    "since_version": "The version that the device has applied; 0 asks for everything.",
    "site_id": "The id of the site, whose cameras share one gallery.",
    "software": "Version of the software of the device.",
    "space": "The embedding space, `<modality>:<model>`; vectors compare only within one space.",
    "spaces": "Facts by embedding space.",
    "SyncRequest.spaces": "The embedding spaces to send; absent for all.",
    "state": "The state that the device reports.",
    "CommandResult.state": "The outcome of the command.",
    "stored": "The ids of events that are on record, also repeated ones.",
    "sync": "The version that the device has applied, and the digests of its templates.",
    "syncing": "Progress of a sync under way; absent without one.",
    "temperatures": "Temperatures by sensor in degrees Celsius.",
    "template_id": "The id of the template.",
    "templates": "All templates of the identity at the site.",
    "timestamp": "Time of the recognition, by the clock of the device.",
    "to_version": "The page has the changes up to this version.",
    "track_id": "Id of the track on this camera.",
    "tracked_by_position": "Similarity that is enough for the person that was in this place a moment ago.",
    "tracked_margin": "A face this far above `tracked_similarity` moves the centroid of the person.",
    "tracked_similarity": "A face of this mean similarity belongs to a detected person.",
    "upserts": "The whole state of identities that were created or changed.",
    "uptime_s": "Seconds since the start of the program.",
    "user_id": "The id of an enrolled identity.",
    "vector": "The face vector: base64 of little-endian float32, of unit length.",
    "version": "A version of the registry's history; every change has the next one.",
    "DesiredConfig.version": "Version of the configuration.",
    "ReportedConfig.version": "Version of the configuration.",
}


def describe_properties(schema: dict[str, Any], model: type) -> None:
    """Add a description to each property of a message that has none."""
    add_descriptions(schema, model, MESSAGE_PROPERTIES)


def add_descriptions(schema: dict[str, Any], model: type, *tables: Mapping[str, str]) -> None:
    """Add the first description that a table has for `Model.name` or for the name."""
    for name, described in schema.get("properties", {}).items():
        keys = [*(f"{parent.__name__}.{name}" for parent in model.__mro__), name]
        found = (table[key] for key in keys for table in tables if key in table)
        description = described.get("description") or next(found, None)
        if description:
            described["description"] = description
