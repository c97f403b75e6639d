"""Attention over beginnings that are held once: the numbers of plain attention over whole rows."""

from types import SimpleNamespace

import pytest
import torch
from genseg_hub.reasoners import shared_attention
from genseg_hub.reasoners.shared_attention import attend, stack
from hypothesis import given, settings
from hypothesis import strategies as st

HEADS, KV_HEADS, SIZE = 4, 2, 8
MODULE = SimpleNamespace(layer_idx=0, num_key_value_groups=HEADS // KV_HEADS, is_causal=True)


def drawn(generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator)


@st.composite
def batches(draw):
    """Draw lengths of beginnings, the beginning of each row, lengths of the rows' own columns, and of the question."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    of = draw(st.lists(st.integers(0, len(lengths) - 1), min_size=len(lengths), max_size=7))
    of = [*range(len(lengths)), *of[len(lengths) :]]
    asked = draw(st.integers(1, 3))
    own = draw(st.lists(st.integers(asked, 6), min_size=len(of), max_size=len(of)))
    return lengths, draw(st.permutations(of)), own, asked, draw(st.integers(0, 1000))


@settings(max_examples=60, deadline=None)
@given(batches())
def test_it_is_the_attention_over_the_whole_rows(batch):
    lengths, of, own, asked, seed = batch
    generator = torch.Generator().manual_seed(seed)
    keys = [drawn(generator, KV_HEADS, n, SIZE) for n in lengths]
    values = [drawn(generator, KV_HEADS, n, SIZE) for n in lengths]
    width = max(own)
    query = drawn(generator, len(of), HEADS, asked, SIZE)
    key, value = (drawn(generator, len(of), KV_HEADS, width, SIZE) for _ in range(2))
    is_own = torch.arange(width) >= width - torch.tensor(own)[:, None]
    causal = torch.ones(width, width, dtype=torch.bool).tril()[-asked:]
    beginnings = stack(range(len(lengths)), [([k], [v], n) for k, v, n in zip(keys, values, lengths, strict=True)], of)
    with beginnings.attended():
        found, _ = attend(MODULE, query, key, value, causal & is_own[:, None, None], scaling=0.3)
    for row, its in enumerate(of):
        whole = [torch.cat([a[its], b[row, :, is_own[row]]], 1) for a, b in ((keys, key), (values, value))]
        sees = torch.cat([torch.ones(asked, lengths[its], dtype=torch.bool), causal[:, is_own[row]]], 1)
        expected = torch.nn.functional.scaled_dot_product_attention(
            query[row], *(part.repeat_interleave(HEADS // KV_HEADS, 0) for part in whole), attn_mask=sees, scale=0.3
        )
        assert torch.allclose(found[row].transpose(0, 1), expected, atol=1e-5)


def test_without_beginnings_it_is_plain_attention():
    generator = torch.Generator().manual_seed(0)
    query, key = drawn(generator, 2, HEADS, 3, SIZE), drawn(generator, 2, KV_HEADS, 3, SIZE)
    found, _ = attend(MODULE, query, key, key, None, scaling=0.3)
    whole = key.repeat_interleave(HEADS // KV_HEADS, 1)
    expected = torch.nn.functional.scaled_dot_product_attention(query, whole, whole, is_causal=True, scale=0.3)
    assert torch.allclose(found.transpose(1, 2), expected, atol=1e-5)


@pytest.fixture
def two():
    generator = torch.Generator().manual_seed(0)
    parts = [([drawn(generator, 1, n, 2)], [drawn(generator, 1, n, 2)], n) for n in (5, 3)]
    return parts, stack("ab", parts, [0, 1, 0])


def test_rows_of_one_beginning_hold_it_once(two):
    parts, _ = two
    alone = stack("a", parts[:1], [0] * 8)
    assert alone.keys[0].data_ptr() == parts[0][0][0].data_ptr()
    assert alone.keys[0].shape == (1, 1, 5, 2)


def test_joined_rows_hold_equal_beginnings_once(two):
    parts, both = two
    again = stack("bc", [parts[1], parts[0]], [1, 0])
    joined = shared_attention.join([(both, [1, 2]), (again, [0, 1])])
    assert [joined.names[i] for i in joined.of] == ["b", "a", "c", "b"]
    assert len(joined.keys[0]) == 3
    for row, (part, length) in enumerate([(1, 3), (0, 5), (0, 5), (1, 3)]):
        assert int(joined.mask[joined.of[row]].sum()) == length
        assert torch.equal(joined.keys[0][joined.of[row], :, -length:], parts[part][0][0])
        assert torch.equal(joined.values[0][joined.of[row], :, -length:], parts[part][1][0])


def test_a_beginning_without_rows_is_dropped_and_freed(two):
    parts, both = two
    left = shared_attention.join([(both, [1])])
    assert list(left.names) == ["b"]
    assert left.keys[0].shape == (1, 1, 3, 2)
    assert left.keys[0].untyped_storage().nbytes() == parts[1][0][0].nbytes
