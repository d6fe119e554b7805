"""Sites with a policy, commands, registrations and the audit, with both drivers."""

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
    """Also one that was recorded before sites had a policy; registering a device leaves it as it is."""
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


async def test_a_site_lets_in_employees_and_visitors_each_by_itself(registry: Registry) -> None:
    """Changed together or alone, with an audit entry for each that became another and for no other."""
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
    """A later one changes nothing, and a space without a model is not among them."""
    assert await registry.spaces.models() == {}
    for sha256 in ("a" * 64, "b" * 64):
        known = await registry.spaces.ensure(EmbeddingSpace("face:test-8", 8, sha256))
        assert known.model_sha256 == "a" * 64
    assert await registry.spaces.models() == {"face:test-8": "a" * 64}


async def test_open_commands_are_those_that_can_still_be_carried_out(registry: Registry) -> None:
    """Oldest first: neither answered for good nor expired."""
    for n in range(5):
        await registry.commands.enqueue(command(n, seconds=10 if n == 4 else 60))
    await registry.commands.mark_sent("cmd-1", NOW)
    assert await registry.commands.record_result("cmd-2", "cam-001", "accepted", None, NOW) == "noted"
    assert await registry.commands.record_result("cmd-3", "cam-001", "done", "well", NOW) == "noted"
    still = await registry.commands.list_open(NOW + timedelta(seconds=10))
    assert list(still.items()) == [("cmd-0", "cam-001"), ("cmd-1", "cam-001"), ("cmd-2", "cam-001")]
    assert await registry.commands.expire(NOW + timedelta(seconds=60)) == 3
    states = {one.command_id: one.state for one in await registry.commands.page()}
    assert states == {
        "cmd-0": "expired", "cmd-1": "expired", "cmd-2": "accepted", "cmd-3": "done", "cmd-4": "expired"
    }  # fmt: skip


async def test_ninety_days_of_commands_are_not_gone_through_to_find_the_open_ones(registry: Registry) -> None:
    """Neither is sorting them a reason to: what is looked at is what is open, or one page."""
    orders = [command(n, seconds=1e6) for n in range(60)]
    await asyncio.gather(*(registry.commands.enqueue(one) for one in orders))
    answered = [one.command_id for one in orders[:50]]
    await asyncio.gather(
        *(registry.commands.record_result(one, "cam-001", "done", None, NOW) for one in answered)
    )
    await registry.mongo.db.command("profile", 2)
    await registry.commands.list_open(NOW)
    await registry.commands.page(limit=5)
    await registry.mongo.db.command("profile", 0)
    profiled = (
        registry.mongo.db["system.profile"].find({"op": "query", "command.find": "commands"}).sort("ts")
    )
    examined = [(one["docsExamined"], one.get("hasSortStage", False)) async for one in profiled]
    assert examined == [(10, False), (5, False)]


async def test_a_final_answer_stands(registry: Registry) -> None:
    """It takes the place of `expired` when we had given up, and nothing takes its place."""
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


async def test_a_person_is_made_only_where_the_registry_still_stands(registry: Registry) -> None:
    """With decision and audit entry; after any change, and for an id that was taken, nothing is written."""
    await open_lobby(registry)
    history = await registry.versions.read()
    order = EnrollIdentity("VIS-1", (face(),), sites=("lobby",), kind="visitor")
    person = await registry.registration_decisions.create(decision(), order, history)
    assert person is not None
    assert (person.version, person.kind) == (1, "visitor")
    assert await registry.registration_decisions.find("cam-001", "r-1") == decision()
    assert (await registry.identities.get("VIS-1")).sites == ("lobby",)
    later = await registry.versions.read()
    for user_id, known in (("VIS-2", history), ("VIS-1", later)):
        again = EnrollIdentity(user_id, (face(),), kind="visitor", must_be_new=True)
        assert await registry.registration_decisions.create(decision("r-2", user_id), again, known) is None
    assert await registry.registration_decisions.find("cam-001", "r-2") is None
    assert (await registry.versions.read(), len(await registry.audit.page())) == (later, 2)
    await registry.versions.begin_epoch()
    other = EnrollIdentity("VIS-3", (face(),), kind="visitor")
    assert await registry.registration_decisions.create(decision("r-3", "VIS-3"), other, later) is None


async def test_of_many_who_saw_the_same_registry_one_makes_a_person(registry: Registry) -> None:
    """Of ten concurrent creations nine are decided again."""
    await open_lobby(registry)
    history = await registry.versions.read()
    made = await asyncio.gather(
        *(
            registry.registration_decisions.create(
                decision(f"r-{n}", f"VIS-{n}"), EnrollIdentity(f"VIS-{n}", (face(),), kind="visitor"), history
            )
            for n in range(10)
        )
    )
    assert len([person for person in made if person]) == 1
    assert (await registry.versions.read()).version == 1


async def test_a_visitor_who_is_changed_stays_a_visitor(registry: Registry) -> None:
    """Changes without a kind keep it; an identity without a kind is an employee."""
    await registry.identities.enroll(EnrollIdentity("VIS-1", (face(),), kind="visitor"))
    assert (await registry.identities.enroll(EnrollIdentity("VIS-1", flag="red"))).kind == "visitor"
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(),)))
    await registry.mongo.db.identities.update_one({"_id": "EMP-1"}, {"$unset": {"kind": ""}})
    assert (await registry.identities.get("EMP-1")).kind == "employee"


async def test_the_first_decision_about_a_request_stands(registry: Registry) -> None:
    """A later decision gets the first one."""
    first = await registry.registration_decisions.keep(decision("r-1", "EMP-1"))
    assert await registry.registration_decisions.keep(decision("r-1", "EMP-2")) == first
    assert await registry.registration_decisions.find("cam-002", "r-1") is None


async def test_an_audit_entry_comes_back_as_it_was_written(registry: Registry) -> None:
    """Newest first, past a cursor between two of one instant too."""
    entries = [
        AuditEntry("a", "x", str(n), NOW + timedelta(seconds=n // 2), None, {"n": n}) for n in range(4)
    ]

    for entry in entries:
        await registry.mongo.transact(lambda session, entry=entry: registry.audit.record(entry, session))
    newest = await registry.audit.page(limit=3)
    rest = await registry.audit.page(before=(newest[-1].at, newest[-1].entry_id))
    assert newest + rest == sorted(entries, key=lambda one: (one.at, one.entry_id), reverse=True)


async def test_decisions_and_commands_are_forgotten_in_time(registry: Registry) -> None:
    """By indexes that let them expire: neither collection grows for ever."""
    expiry = {}
    for collection in ("registrations", "commands", "audit"):
        indexes = await registry.mongo.db[collection].index_information()
        expiry[collection] = [
            one["expireAfterSeconds"] for one in indexes.values() if "expireAfterSeconds" in one
        ]
    assert expiry == {"registrations": [7 * 86_400], "commands": [90 * 86_400], "audit": []}
