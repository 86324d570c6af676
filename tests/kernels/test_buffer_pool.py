from __future__ import annotations

from decodery.kernels.buffer_pool import BufferPool


def test_a_buffer_is_reused_once_no_tensor_refers_to_it() -> None:
    buffers = BufferPool()
    first = buffers.empty((3, 100))
    place, part = first.data_ptr(), first[1:]
    del first
    other = buffers.empty((3, 100))
    assert other.data_ptr() != place
    del part
    assert buffers.empty((3, 90)).data_ptr() == place


def test_a_much_larger_buffer_is_not_reused() -> None:
    buffers = BufferPool()
    place = buffers.empty((100,)).data_ptr()
    assert buffers.empty((64,)).data_ptr() != place
    assert buffers.empty((65,)).data_ptr() == place


def test_growing_sizes_need_few_buffers() -> None:
    buffers = BufferPool()
    for count in range(1, 4097):
        buffers.empty((count,))
    assert len(buffers._buffers) == 13


def test_buffers_are_aligned_to_cache_lines_and_an_empty_tensor_has_none() -> None:
    buffers = BufferPool()
    held = [buffers.empty((count,)) for count in (1, 7, 100, 1000)]
    assert {tensor.data_ptr() % 64 for tensor in held} == {0}
    assert buffers.empty((0, 5)).shape == (0, 5)
