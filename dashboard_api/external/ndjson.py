"""Split a streamed NDJSON body into batches of lines."""

from collections.abc import AsyncIterator


async def line_batches(
    chunks: AsyncIterator[bytes], max_line_bytes: int, batch_lines: int, batch_bytes: int
) -> AsyncIterator[list[tuple[int, bytes | None]]]:
    """Yield batches of numbered lines, from 1; blank lines are left out.

    A batch has about `batch_lines` lines or `batch_bytes` bytes. None stands for a line of more than
    `max_line_bytes`, which is not kept in memory. The last line may lack its newline.
    """
    number, size = 0, 0
    parts: list[bytes] = []
    batch: list[tuple[int, bytes | None]] = []
    batched_bytes = 0
    async for chunk in chunks:
        pieces = chunk.split(b"\n")
        for position, piece in enumerate(pieces):
            size += len(piece)
            if size <= max_line_bytes:
                parts.append(piece)
            else:
                parts.clear()
            if position == len(pieces) - 1:
                break
            number += 1
            line = b"".join(parts) if size <= max_line_bytes else None
            if line is None or line.strip():
                batch.append((number, line))
                batched_bytes += len(line or b"")
            parts.clear()
            size = 0
        if len(batch) >= batch_lines or batched_bytes >= batch_bytes:
            yield batch
            batch, batched_bytes = [], 0
    line = b"".join(parts) if size <= max_line_bytes else None
    if line is None or line.strip():
        batch.append((number + 1, line))
    if batch:
        yield batch
