from __future__ import annotations

from decodery.kernels.buffer_pool import BufferPool


def test_a_room_is_taken_again_once_nothing_looks_into_it() -> None:
    rooms = BufferPool()
    first = rooms.empty((3, 100))
    place, part = first.data_ptr(), first[1:]
    del first
    other = rooms.empty((3, 100))
    assert other.data_ptr() != place
    del part
    assert rooms.empty((3, 90)).data_ptr() == place


def test_a_room_much_larger_than_asked_is_left_alone() -> None:
    rooms = BufferPool()
    place = rooms.empty((100,)).data_ptr()
    assert rooms.empty((64,)).data_ptr() != place
    assert rooms.empty((65,)).data_ptr() == place


def test_sizes_that_grow_need_few_rooms() -> None:
    rooms = BufferPool()
    for count in range(1, 4097):
        rooms.empty((count,))
    assert len(rooms._rooms) == 13


def test_rooms_begin_on_a_cache_lines_border_and_nothing_needs_none() -> None:
    rooms = BufferPool()
    held = [rooms.empty((count,)) for count in (1, 7, 100, 1000)]
    assert {tensor.data_ptr() % 64 for tensor in held} == {0}
    assert rooms.empty((0, 5)).shape == (0, 5)
