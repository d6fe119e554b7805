"""Render the channel table as an AsyncAPI 3.0 document.

AsyncAPI describes one application; this document describes the backend: it receives upward messages and
sends downward ones. https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

import inspect
from typing import Any

from pydantic.json_schema import models_json_schema

from .channels import CHANNELS, ROOT, Channel
from .ids import EVENT_TYPES
from .wire import MAX_UP_BYTES

Document = dict[str, Any]

_MQTT_BINDING = "0.2.0"
_SCHEMAS = "#/components/schemas"

_RESERVED = "Reserved: no program of this version sends it."

_REPLIES = {
    "event": "receipt",
    "observation": "assigned",
    "sync_request": "sync_page",
    "register": "registered",
    "config_desired": "config_reported",
    "command": "command_result",
}
"""The channel of the reply to each request."""

CONTACT: Document = {
    "name": "The operator of this fleet",
    "url": "https://wfm.example.com",
    "email": "fleet@wfm.example.com",
}
"""In both documents; an operator that publishes them puts in the real address."""

_SERVERS: Document = {
    "fleet": {
        "host": "{broker}:8883",
        "protocol": "mqtts",
        "protocolVersion": "5.0",
        "title": "The broker of a fleet",
        "description": "MQTT 5 over TLS 1.3. The common name of a device's certificate is its device id.",
        "variables": {"broker": {"description": "Host name of the broker.", "default": "broker.example"}},
        "security": [{"$ref": "#/components/securitySchemes/certificate"}],
    },
    "local": {
        "host": "localhost:1883",
        "protocol": "mqtt",
        "protocolVersion": "5.0",
        "title": "The broker of the local stack",
        "description": "MQTT 5 without TLS, on the loopback interface alone.",
        "security": [{"$ref": "#/components/securitySchemes/password"}],
    },
}
_SECURITY_SCHEMES: Document = {
    "certificate": {"type": "X509", "description": "A client certificate of the fleet for each device."},
    "password": {"type": "userPassword", "description": "The device id as user name, and its password."},
}

_PARAMETERS: Document = {
    "device_id": {
        "description": "A camera: [a-z0-9][a-z0-9-]{0,62}. Also its MQTT user name.",
        "examples": ["cam-001"],
    },
    "site_id": {
        "description": "A site, whose cameras share one gallery: [a-z0-9][a-z0-9-]{0,62}.",
        "examples": ["lobby"],
    },
    "event_type": {"description": "The `event_type` of the payload.", "enum": list(EVENT_TYPES)},
    "command": {"description": "The command's name.", "examples": ["resync", "restart"]},
}


def render() -> Document:
    """Return the AsyncAPI document of wire contract 1, ready for `json.dumps`."""
    used = {name for channel in CHANNELS for name in channel.parameters}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "WFM Fleet on the wire, the backend's side",
            "version": ROOT.rpartition("/v")[2],
            "description": (
                "MQTT 5, JSON in UTF-8. Identity comes from the topic. Unknown fields are ignored, missing "
                f"ones rejected. Upward messages have at most {MAX_UP_BYTES} bytes. Only a receipt settles "
                "an event."
            ),
            "contact": CONTACT,
            "tags": [{"name": "mqtt", "description": "Messages between cameras and the backend."}],
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": _SERVERS,
        "channels": {channel.name: _channel(channel) for channel in CHANNELS},
        "operations": {f"{_action(channel)}_{channel.name}": _operation(channel) for channel in CHANNELS},
        "components": {
            "messages": {channel.message.__name__: _message(channel) for channel in CHANNELS},
            "parameters": {name: _PARAMETERS[name] for name in _PARAMETERS if name in used},
            "schemas": _schemas(),
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


def _ref(*path: str) -> dict[str, str]:
    return {"$ref": "/".join(["#", *path])}


def _action(channel: Channel[Any]) -> str:
    return "receive" if channel.direction == "up" else "send"


def _channel(channel: Channel[Any]) -> Document:
    name = channel.message.__name__
    document: Document = {
        "address": channel.pattern,
        "title": channel.about,
        "messages": {name: _ref("components", "messages", name)},
        "parameters": {name: _ref("components", "parameters", name) for name in channel.parameters},
    }
    if channel.reserved:
        document |= {"description": _RESERVED, "x-reserved": True}
    return document


def _operation(channel: Channel[Any]) -> Document:
    operation = {
        "action": _action(channel),
        "channel": _ref("channels", channel.name),
        "summary": channel.about,
        "description": _describe(channel),
        "messages": [_ref("channels", channel.name, "messages", channel.message.__name__)],
        "bindings": {"mqtt": {"qos": channel.qos, "retain": channel.retain, "bindingVersion": _MQTT_BINDING}},
    }
    if channel.name in _REPLIES:
        operation["reply"] = {"channel": _ref("channels", _REPLIES[channel.name])}
    return operation


def _describe(channel: Channel[Any]) -> str:
    """Return what the message is for, its QoS, and whether it is retained."""
    kept = "The broker keeps the last one (retained)." if channel.retain else "It is not retained."
    about = _RESERVED if channel.reserved else inspect.getdoc(channel.message) or f"{channel.about}."
    return f"{about}\n\nQoS {channel.qos}. {kept}"


def _message(channel: Channel[Any]) -> Document:
    name = channel.message.__name__
    return {
        "name": name,
        "title": name,
        "summary": inspect.getdoc(channel.message) or channel.about,
        "contentType": "application/json",
        "payload": {"$ref": f"{_SCHEMAS}/{name}"},
    }


def _schemas() -> Document:
    """Return the JSON Schema of every message and of its parts."""
    _, schemas = models_json_schema(
        [(channel.message, "validation") for channel in CHANNELS], ref_template=f"{_SCHEMAS}/{{model}}"
    )
    definitions: Document = schemas["$defs"]
    return definitions
