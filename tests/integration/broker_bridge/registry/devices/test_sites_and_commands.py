"""Test sites, commands, registration decisions and the audit log."""

import asyncio
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from broker_bridge.contract.embeddings import EmbeddingSpace, normalise
from broker_bridge.contract.errors import ContractError
from broker_bridge.registry import Registry
from broker_bridge.registry.audit import AuditEntry
from broker_bridge.registry.devices.commands import CommandRecord
from broker_bridge.registry.devices.sites import Site
from broker_bridge.registry.edge_registration.decisions import RegistrationDecision
from broker_bridge.registry.identities.model import EnrollIdentity, Template

NOW = datetime(2026, 1, 15, 10, 0, tzinfo=timezone.utc)


def face() -> Template:
    return Template("face:test-8", normalise(np.arange(1.0, 9.0), 8))


def command(n: int, seconds: float = 60) -> CommandRecord:
    at = NOW + timedelta(seconds=n)
    return CommandRecord(
        f"cmd-{n}", "cam-001", "resync", {}, at, NOW + timedelta(seconds=seconds), "operator"
    )


def decision(request_id: str = "r-1", user_id: str = "VIS-1") -> RegistrationDecision:
    return RegistrationDecision("cam-001", "lobby", request_id, "created", NOW, user_id)


async def open_lobby(registry: Registry) -> None:
    await registry.sites.ensure("lobby")
    await registry.sites.set_policy("lobby", "visitors", by="tester", at=NOW)


async def test_a_site_is_closed_until_it_is_opened(registry: Registry) -> None:
    """A site from before policies is closed too; a new device leaves the policy."""
    await registry.mongo.db.sites.insert_one({"_id": "gate", "created_at": NOW})
    await registry.devices.register("cam-001", "lobby")
    assert await registry.sites.all() == [Site("gate"), Site("lobby")]
    assert await registry.sites.set_policy("lobby", "visitors", by="a", at=NOW) == Site("lobby", "visitors")
    await registry.devices.register("cam-002", "lobby")
    assert await registry.sites.get("lobby") == Site("lobby", "visitors")
    assert await registry.sites.set_policy("nowhere", "visitors", by="a", at=NOW) is None
    assert await registry.sites.get("nowhere") is None
    entries = await registry.audit.page(subject="lobby")
    assert [(entry.who, entry.what) for entry in entries] == [("a", "site.enrollment-policy")]


async def test_employees_and_visitors_have_separate_policies(registry: Registry) -> None:
    """Each policy that changes has an audit entry; an unchanged one has none."""
    await registry.sites.ensure("lobby")
    both = {"enrollment_policy": "visitors", "registers_employees": True}
    for settings in (both, both, {"enrollment_policy": "closed"}):
        await registry.sites.change("lobby", settings, by="a", at=NOW)
    assert await registry.sites.get("lobby") == Site("lobby", "closed", registers_employees=True)
    assert sorted((entry.what, str(entry.after)) for entry in await registry.audit.page()) == [
        ("site.enrollment-policy", "{'enrollment_policy': 'closed'}"),
        ("site.enrollment-policy", "{'enrollment_policy': 'visitors'}"),
        ("site.registers-employees", "{'registers_employees': True}"),
    ]
    await registry.sites.check_open("lobby", "employee")
    with pytest.raises(ContractError, match="enrollment-closed"):
        await registry.sites.check_open("lobby", "visitor")


async def test_the_first_model_of_a_space_is_on_record(registry: Registry) -> None:
    """A later model changes nothing; a space without a model is not listed."""
    assert await registry.spaces.models() == {}
    for sha256 in ("a" * 64, "b" * 64):
        space = await registry.spaces.ensure(EmbeddingSpace("face:test-8", 8, sha256))
        assert space.model_sha256 == "a" * 64
    assert await registry.spaces.models() == {"face:test-8": "a" * 64}


async def test_open_commands_have_no_final_result_and_are_not_expired(registry: Registry) -> None:
    """Open commands are listed oldest first."""
    for n in range(5):
        await registry.commands.enqueue(command(n, seconds=10 if n == 4 else 60))
    await registry.commands.mark_sent("cmd-1", NOW)
    assert await registry.commands.record_result("cmd-2", "cam-001", "accepted", None, NOW) == "noted"
    assert await registry.commands.record_result("cmd-3", "cam-001", "done", "well", NOW) == "noted"
    open_commands = await registry.commands.list_open(NOW + timedelta(seconds=10))
    assert list(open_commands.items()) == [("cmd-0", "cam-001"), ("cmd-1", "cam-001"), ("cmd-2", "cam-001")]
    assert await registry.commands.expire(NOW + timedelta(seconds=60)) == 3
    states = {record.command_id: record.state for record in await registry.commands.page()}
    assert states == {
        "cmd-0": "expired", "cmd-1": "expired", "cmd-2": "accepted", "cmd-3": "done", "cmd-4": "expired"
    }  # fmt: skip


async def test_queries_of_commands_use_an_index(registry: Registry) -> None:
    """MongoDB examines only open commands, or one page, and sorts by the index."""
    records = [command(n, seconds=1e6) for n in range(60)]
    await asyncio.gather(*(registry.commands.enqueue(record) for record in records))
    answered_ids = [record.command_id for record in records[:50]]
    await asyncio.gather(
        *(
            registry.commands.record_result(command_id, "cam-001", "done", None, NOW)
            for command_id in answered_ids
        )
    )
    await registry.mongo.db.command("profile", 2)
    await registry.commands.list_open(NOW)
    await registry.commands.page(limit=5)
    await registry.mongo.db.command("profile", 0)
    profiled = (
        registry.mongo.db["system.profile"].find({"op": "query", "command.find": "commands"}).sort("ts")
    )
    examined = [(query["docsExamined"], query.get("hasSortStage", False)) async for query in profiled]
    assert examined == [(10, False), (5, False)]


async def test_a_final_result_is_not_replaced(registry: Registry) -> None:
    """A final result replaces `expired`; nothing replaces a final result."""
    await registry.commands.enqueue(command(1))
    await registry.commands.expire(NOW + timedelta(hours=1))
    answers = [
        await registry.commands.record_result("cmd-1", device, state, None, NOW)  # type: ignore[arg-type]
        for device, state in (
            ("cam-002", "done"), ("cam-001", "accepted"), ("cam-001", "failed"), ("cam-001", "done"),
        )
    ]  # fmt: skip
    assert answers == ["unknown", "noted", "noted", "repeated"]
    found = await registry.commands.get("cmd-1")
    assert found is not None
    assert (found.state, found.answered_at) == ("failed", NOW)


async def test_an_identity_is_created_only_in_an_unchanged_registry(registry: Registry) -> None:
    """It is created with decision and audit entry.

    After any change, and for a used id, nothing is written.
    """
    await open_lobby(registry)
    history = await registry.versions.read()
    enrollment = EnrollIdentity("VIS-1", (face(),), sites=("lobby",), kind="visitor")
    identity = await registry.registration_decisions.create(decision(), enrollment, history)
    assert identity is not None
    assert (identity.version, identity.kind) == (1, "visitor")
    assert await registry.registration_decisions.find("cam-001", "r-1") == decision()
    assert (await registry.identities.get("VIS-1")).sites == ("lobby",)
    later = await registry.versions.read()
    for user_id, history_searched in (("VIS-2", history), ("VIS-1", later)):
        enrollment = EnrollIdentity(user_id, (face(),), kind="visitor", must_be_new=True)
        assert (
            await registry.registration_decisions.create(
                decision("r-2", user_id), enrollment, history_searched
            )
            is None
        )
    assert await registry.registration_decisions.find("cam-001", "r-2") is None
    assert (await registry.versions.read(), len(await registry.audit.page())) == (later, 2)
    await registry.versions.begin_epoch()
    enrollment = EnrollIdentity("VIS-3", (face(),), kind="visitor")
    assert await registry.registration_decisions.create(decision("r-3", "VIS-3"), enrollment, later) is None


async def test_one_of_ten_concurrent_creations_succeeds(registry: Registry) -> None:
    """The other nine must be decided again."""
    await open_lobby(registry)
    history = await registry.versions.read()
    outcomes = await asyncio.gather(
        *(
            registry.registration_decisions.create(
                decision(f"r-{n}", f"VIS-{n}"), EnrollIdentity(f"VIS-{n}", (face(),), kind="visitor"), history
            )
            for n in range(10)
        )
    )
    assert len([identity for identity in outcomes if identity]) == 1
    assert (await registry.versions.read()).version == 1


async def test_a_changed_visitor_stays_a_visitor(registry: Registry) -> None:
    """A change without a kind keeps it; an identity without a kind is an employee."""
    await registry.identities.enroll(EnrollIdentity("VIS-1", (face(),), kind="visitor"))
    assert (await registry.identities.enroll(EnrollIdentity("VIS-1", flag="red"))).kind == "visitor"
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(),)))
    await registry.mongo.db.identities.update_one({"_id": "EMP-1"}, {"$unset": {"kind": ""}})
    assert (await registry.identities.get("EMP-1")).kind == "employee"


async def test_the_first_decision_about_a_request_stands(registry: Registry) -> None:
    """A later decision about the same request returns the first one."""
    first = await registry.registration_decisions.keep(decision("r-1", "EMP-1"))
    assert await registry.registration_decisions.keep(decision("r-1", "EMP-2")) == first
    assert await registry.registration_decisions.find("cam-002", "r-1") is None


async def test_audit_entries_are_paged_newest_first(registry: Registry) -> None:
    """A cursor between two entries of the same time works too."""
    entries = [
        AuditEntry("a", "x", str(n), NOW + timedelta(seconds=n // 2), None, {"n": n}) for n in range(4)
    ]

    for entry in entries:
        await registry.mongo.transact(lambda session, entry=entry: registry.audit.record(entry, session))
    newest = await registry.audit.page(limit=3)
    older = await registry.audit.page(before=(newest[-1].at, newest[-1].entry_id))
    assert newest + older == sorted(entries, key=lambda entry: (entry.at, entry.entry_id), reverse=True)


async def test_decisions_and_commands_expire(registry: Registry) -> None:
    """TTL indexes remove both after their retention; audit entries stay."""
    expiry = {}
    for collection in ("registrations", "commands", "audit"):
        indexes = await registry.mongo.db[collection].index_information()
        expiry[collection] = [
            index["expireAfterSeconds"] for index in indexes.values() if "expireAfterSeconds" in index
        ]
    assert expiry == {"registrations": [7 * 86_400], "commands": [90 * 86_400], "audit": []}
