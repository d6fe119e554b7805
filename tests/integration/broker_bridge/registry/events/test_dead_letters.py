"""The dead letters of a device are bounded; the newest stay."""

from broker_bridge.registry import Registry
from broker_bridge.registry.events.dead_letters import DeadLetters

TOPIC = "wfm/v1/device/{}/up/event/facial_id"


async def store(letters: DeadLetters, device: str, number: int, size: int = 1024) -> int:
    payload = f"{number:06}".encode().ljust(size, b".")
    return await letters.store(TOPIC.format(device), payload, "payload-invalid", "rubbish")


async def test_a_device_that_sends_rubbish_fills_its_own_share_only(registry: Registry) -> None:
    """Its oldest letters go; those of other devices and of other topics stay."""
    letters = DeadLetters(registry.mongo, device_bytes=16 * 2048)
    await store(letters, "cam-2", 0)
    await letters.store("rubbish", b"x", "topic-unknown", "?")
    dropped = sum([await store(letters, "cam-1", number) for number in range(50)])
    found = [letter for letter in await letters.newest() if letter["device_id"] == "cam-1"]
    numbers = sorted(int(bytes(letter["payload"])[:6]) for letter in found)
    assert numbers == list(range(50 - len(numbers), 50))
    assert 12 <= len(numbers) <= 16
    assert dropped == 50 - len(numbers)
    assert len(await letters.newest()) == len(numbers) + 2


async def test_empty_letters_are_bounded_too(registry: Registry) -> None:
    """Each one costs a kilobyte of the share."""
    letters = DeadLetters(registry.mongo, device_bytes=16 * 1024)
    for number in range(40):
        await letters.store(TOPIC.format("cam-1") + f"/{number}", b"", "topic-unknown", "?")
    assert len(await letters.newest()) <= 16


async def test_the_same_letter_again_takes_no_room(registry: Registry) -> None:
    """It is counted."""
    letters = DeadLetters(registry.mongo, device_bytes=4 * 2048)
    assert sum([await store(letters, "cam-1", 1) for _ in range(20)]) == 0
    (letter,) = await letters.newest()
    assert letter["count"] == 20


async def test_another_worker_counts_what_it_finds(registry: Registry) -> None:
    """The share holds over restarts and over workers."""
    for _ in range(4):
        letters = DeadLetters(registry.mongo, device_bytes=8 * 2048)
        for number in range(6):
            await store(letters, "cam-1", number + 100 * _)
    assert len(await letters.newest()) <= 8
