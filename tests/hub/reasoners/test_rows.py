"""The cache of rows: what models put in comes out, laid out as each later token reads it."""

import torch
from genseg_hub.reasoners._rows import Layer


def test_keys_and_values_lie_as_they_are_read():
    """Models give transposed views, and a product with these takes several times as long."""
    given = [torch.rand(2, columns, 3, 4).transpose(1, 2) for columns in (5, 1, 1)]
    layer = Layer()
    for number in range(len(given)):
        keys, values = layer.update(given[number], -given[number])
        whole = torch.cat(given[: number + 1], 2)
        assert torch.equal(keys, whole)
        assert torch.equal(values, -whole)
        assert keys.stride()[2:] == values.stride()[2:] == (4, 1)
        assert layer.get_seq_length() == whole.shape[2]
