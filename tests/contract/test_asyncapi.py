"""Check that the AsyncAPI document is complete, resolvable and published in docs/."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker_bridge.contract.asyncapi import render
from broker_bridge.contract.channels import CHANNELS

PUBLISHED = Path(__file__).parents[2] / "docs" / "asyncapi.json"
DOCUMENT = json.loads(json.dumps(render()))


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def resolve(reference: str) -> Any:
    root, *path = reference.split("/")
    assert root == "#"
    node = DOCUMENT
    for part in path:
        node = node[part]
    return node


def test_the_head_is_that_of_asyncapi_3() -> None:
    """The document has the fields that the specification requires."""
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert DOCUMENT["info"]["title"]
    assert DOCUMENT["info"]["version"] == "1"
    assert set(DOCUMENT) <= {
        "asyncapi", "info", "servers", "defaultContentType", "channels", "operations", "components"
    }  # fmt: skip


def test_every_server_names_its_security() -> None:
    """A fleet's devices have certificates; the local stack has passwords."""
    schemes = {
        name: [resolve(scheme["$ref"])["type"] for scheme in server["security"]]
        for name, server in DOCUMENT["servers"].items()
    }
    assert schemes == {"fleet": ["X509"], "local": ["userPassword"]}


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["schemas"]))
def test_every_property_of_a_message_is_described(name: str) -> None:
    """A new field needs a description: its own, or one in `contract/descriptions.py`."""
    properties = DOCUMENT["components"]["schemas"][name].get("properties", {})
    assert [field for field, described in properties.items() if not described.get("description")] == []


def test_every_reference_resolves() -> None:
    """Every `$ref` names a part of the document, none a definition of pydantic alone."""
    found = list(references(DOCUMENT))
    assert len(found) > 100
    for reference in found:
        assert resolve(reference) is not None


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda channel: channel.name)
def test_a_row_of_the_table_is_a_channel_with_its_operation(channel) -> None:  # type: ignore[no-untyped-def]
    """Address, message, parameters, action, QoS and retain equal those of the table."""
    rendered = DOCUMENT["channels"][channel.name]
    assert rendered["address"] == channel.pattern
    in_address = [part.strip("{}") for part in channel.pattern.split("/") if part.startswith("{")]
    assert list(rendered["parameters"]) == in_address
    action = {"up": "receive", "down": "send"}[channel.direction]
    operation = DOCUMENT["operations"][f"{action}_{channel.name}"]
    assert operation["action"] == action
    assert resolve(operation["channel"]["$ref"]) == rendered
    assert operation["bindings"]["mqtt"]["qos"] == channel.qos
    assert operation["bindings"]["mqtt"]["retain"] == channel.retain
    (message,) = operation["messages"]
    # An operation names a message of its channel, by way of that channel.
    assert message["$ref"] == f"#/channels/{channel.name}/messages/{channel.message.__name__}"
    described = resolve(resolve(message["$ref"])["$ref"])
    assert resolve(described["payload"]["$ref"])["title"] == channel.message.__name__


def test_parameters_have_only_fields_of_asyncapi_3() -> None:
    """Since 3.0 a parameter is a string and has no schema."""
    for parameter in DOCUMENT["components"]["parameters"].values():
        assert set(parameter) <= {"enum", "default", "description", "examples", "location"}


def test_only_configuration_is_reserved() -> None:
    """Rows that no program sends carry `x-reserved`, also in their description."""
    reserved = {name: channel for name, channel in DOCUMENT["channels"].items() if channel.get("x-reserved")}
    assert set(reserved) == {"config_desired", "config_reported"}
    assert all(channel["description"].startswith("Reserved") for channel in reserved.values())


def test_a_schema_requires_what_the_model_requires() -> None:
    """Required fields of schema and model are the same."""
    for channel in CHANNELS:
        schema = DOCUMENT["components"]["schemas"][channel.message.__name__]
        required = {name for name, field in channel.message.model_fields.items() if field.is_required()}
        assert set(schema.get("required", [])) == required


def test_the_published_document_is_this_one() -> None:
    """docs/asyncapi.json equals the rendered document; the failure names the command."""
    command = "python -m broker_bridge asyncapi > docs/asyncapi.json"
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == DOCUMENT, f"run: {command}"
