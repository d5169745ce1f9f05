"""Memory that networks and tasks use one after the other: laid out alike, and never read before it
is written."""

from __future__ import annotations

import math

import pytest
import torch
from test_wide import numbers
from wide_trials import trial

from empirical.measure.calibration import calibrate
from empirical.wide import Streaming, measure_wide, workspace
from empirical.wide.noise import ROWS, Stream
from empirical.wide.workspace import ALIGNED, LARGEST, SLAB, Purpose, apart, lend, take_back


@pytest.fixture(autouse=True)
def nothing_spare() -> None:
    workspace.release()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 17, ROWS, ROWS + 1])
def test_columns_lie_in_one_piece_and_begin_alike(rows: int, dtype: torch.dtype) -> None:
    room = lend("cpu", Purpose.CHUNK, 2**30)
    for count in (1, 3, 8):
        x = room.tensor(count, rows, count, dtype)
        assert x.shape == (rows, count) and x.stride() == (1, apart(rows))
        assert all(x[:, i].data_ptr() % (4 * ALIGNED) == 0 for i in range(count))
        assert room.tensor(count, rows, count, dtype).data_ptr() == x.data_ptr()
    assert rows <= apart(rows) < rows + ALIGNED


def test_owners_share_nothing_until_all_is_taken_back() -> None:
    room = lend("cpu", Purpose.CHUNK, 2**30)
    first = room.tensor("first", ROWS, 8, torch.float64)
    first.fill_(1)
    room.tensor("second", ROWS, 500, torch.float64).fill_(2)
    assert bool((first == 1).all())
    place = first.data_ptr()
    take_back(room)
    again = lend("cpu", Purpose.CHUNK, 2**30)
    assert again.tensor("third", ROWS, 8, torch.float64).data_ptr() == place


def test_memory_beyond_the_limit_of_the_next_one_is_let_go() -> None:
    room = lend("cpu", Purpose.KEPT, 2**30)
    room.tensor("an atom", ROWS, 8, torch.float64)
    take_back(room)
    assert lend("cpu", Purpose.KEPT, 8 * 8 * ROWS - 1) is not room
    assert not workspace._spare["cpu", Purpose.KEPT]
    take_back(room)
    assert lend("cpu", Purpose.KEPT, 8 * 8 * ROWS) is room


def test_networks_that_grow_hold_about_what_the_last_one_needs() -> None:
    """What a slab held for the network before counts, where a larger owner leaves room in it."""
    for rows in range(2**25, 2**26, 2**22):  # 128 to 256 MB and twice that, never touched
        room = lend("cpu", Purpose.KEPT, 2**30)
        room.tensor("an atom", rows, 1, torch.float32)
        room.tensor("another", 2 * rows, 1, torch.float32)
        assert 4 * 3 * rows <= room.held <= 1.5 * 4 * 3 * rows
        take_back(room)
    held, again = room.held, lend("cpu", Purpose.KEPT, 2**30)
    again.tensor("a small one", ROWS, 1, torch.float32)
    assert again is room and room.held == held
    take_back(room)
    assert lend("cpu", Purpose.KEPT, held - 1).held == 0


def test_networks_that_live_side_by_side_leave_no_more_than_one_may_hold() -> None:
    size = 4 * ROWS
    rooms = [lend("cpu", Purpose.KEPT, 3 * size) for _ in range(5)]
    for room in rooms:
        room.tensor("an atom", ROWS, 1, torch.float32)
    for room in rooms:
        take_back(room)
    assert workspace._spare["cpu", Purpose.KEPT] == rooms[2:]
    assert lend("cpu", Purpose.KEPT, 2 * size) is rooms[4]
    assert workspace._spare["cpu", Purpose.KEPT] == rooms[3:4]


@pytest.mark.parametrize("owners", [1, 100, 2000])
def test_a_network_takes_little_more_of_the_address_space_than_of_memory(owners: int) -> None:
    """What is forked must have as much address space as there is memory, touched or not."""
    room = lend("cpu", Purpose.KEPT, 2**40)
    for owner in range(owners):
        room.tensor(owner, ROWS, 8, torch.float32)
    assert room.held == owners * 32 * ROWS
    assert room.reserved <= SLAB + min(2 * room.held, room.held + LARGEST)


def test_a_longer_chunk_of_an_owner_gets_longer_memory() -> None:
    room = lend("cpu", Purpose.CHUNK, 2**30)
    short = room.tensor("an atom", 16, 2, torch.float32)
    long = room.tensor("an atom", 64, 2, torch.float32)
    assert len(long) == 64 and long.data_ptr() != short.data_ptr()
    assert room.tensor("an atom", 16, 2, torch.float32).data_ptr() == long.data_ptr()


@pytest.mark.parametrize("name", ["kfac", "shampoo", "soap_one_sided", "adam"])
def test_what_a_network_left_in_memory_changes_no_bit(name: str) -> None:
    subject, streaming = trial(name), Streaming(torch.float32, chunk=ROWS, workers=2, task=ROWS)
    constants, width = calibrate(subject, 48), 2 * ROWS + 5 if name != "adam" else 300

    def run() -> dict[str, float]:
        return numbers(measure_wide(subject, constants, width, 0, streaming=streaming))

    fresh = run()
    spare = [room for rooms in workspace._spare.values() for room in rooms]
    assert any(room.purpose is Purpose.KEPT for room in spare)
    for room in spare:
        for slab in room._slabs:
            slab[: 2**26].view(torch.float32).fill_(math.nan)
    assert run() == fresh
    assert {room for rooms in workspace._spare.values() for room in rooms} >= set(spare)


def test_reading_before_writing_would_be_seen() -> None:
    room = lend("cpu", Purpose.CHUNK, 2**30)
    room.tensor("an atom", ROWS, 1, torch.float32).fill_(math.nan)
    take_back(room)
    assert room.tensor("another", ROWS, 1, torch.float32).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_the_same_however_it_lies_in_memory(dtype: torch.dtype) -> None:
    for rows in (2 * ROWS, ROWS + 5, 77):
        by_row, by_column = torch.empty(rows, 3, dtype=dtype), torch.empty(3, rows, dtype=dtype).T
        Stream(0, (3,)).fill_(by_row, 0)
        Stream(0, (3,)).fill_(by_column, 0)
        assert torch.equal(by_row, by_column)
