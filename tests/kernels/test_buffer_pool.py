from __future__ import annotations

from decodery.kernels.buffer_pool import BufferPool


def test_a_room_is_taken_again_once_nothing_looks_into_it() -> None:
    buffers = BufferPool()
    first = buffers.empty((3, 100))
    place, part = first.data_ptr(), first[1:]
    del first
    other = buffers.empty((3, 100))
    assert other.data_ptr() != place
    del part
    assert buffers.empty((3, 90)).data_ptr() == place


def test_a_room_much_larger_than_asked_is_left_alone() -> None:
    buffers = BufferPool()
    place = buffers.empty((100,)).data_ptr()
    assert buffers.empty((64,)).data_ptr() != place
    assert buffers.empty((65,)).data_ptr() == place


def test_sizes_that_grow_need_few_rooms() -> None:
    buffers = BufferPool()
    for count in range(1, 4097):
        buffers.empty((count,))
    assert len(buffers._buffers) == 13


def test_rooms_begin_on_a_cache_lines_border_and_nothing_needs_none() -> None:
    buffers = BufferPool()
    held = [buffers.empty((count,)) for count in (1, 7, 100, 1000)]
    assert {tensor.data_ptr() % 64 for tensor in held} == {0}
    assert buffers.empty((0, 5)).shape == (0, 5)
