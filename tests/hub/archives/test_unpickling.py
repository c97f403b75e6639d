"""Pickles are read without running their code, and without more memory than their size."""

import io
import os
import pickle
import pickletools
import struct

import numpy as np
import pytest
from genseg_hub import archives
from genseg_hub.archives import unpickling
from genseg_hub.errors import ArchiveError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import archive_files

REFS = "refcocog/refs(umd).p"


class _Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


# Pickles with more than plain data, each by other opcodes.
PROGRAMS = {
    "function": pickle.dumps(_Evil()),
    "nested, protocol 0": pickle.dumps([{"sent": _Evil()}], protocol=0),
    "number of numpy": pickle.dumps(np.int64(3)),
    "name alone": pickle.dumps(print),
    "set, protocol 2": pickle.dumps({1, 2}, protocol=2),
    "GLOBAL and REDUCE": b"cos\nsystem\n(S'touch pwned'\ntR.",
    "INST": b"(S'touch pwned'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch pwned'\no.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent id": b"P0\n.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch pwned\x85R.",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_pickle_that_names_anything_is_refused_and_nothing_runs(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    list(pickletools.genops(PROGRAMS[name]))  # it is a pickle
    file = tmp_path / "refs(umd).p"
    file.write_bytes(PROGRAMS[name])
    with pytest.raises(ValueError, match=r"not a pickle of plain data .*which plain data does not need"):
        unpickling.load_plain(file)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["GLOBAL and REDUCE", "INST", "OBJ", "STACK_GLOBAL", "persistent id"])
def test_the_unpickler_itself_resolves_no_name(name):
    unpickler = unpickling.PlainUnpickler(io.BytesIO(PROGRAMS[name]))
    with pytest.raises(pickle.UnpicklingError, match=r"plain data names nothing|refers to objects outside itself"):
        unpickler.load()


def _endless():
    """Return a list of a few hundred bytes that has 2 ** 60 items in print."""
    value = ["a"]
    for _ in range(60):
        value = [value, value]
    return value


BOMBS = {
    "memory for 4 billion objects": b"\x80\x02]r" + struct.pack("<I", 0xFFFFFFF0) + b".",
    "the same as text": b"(lp4000000000\n.",
    "a key that takes forever": b"\x80\x02}U\x01a" + b"2\x86" * 60 + b"K\x01s.",
    "a key that crashes": b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s.",
    "a set": b"\x80\x04\x8f.",
    "a long text that is missing": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"x.",
    "a long array that is missing": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
    "a frame that is missing": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"x.",
    "a number of many digits": b"L" + b"9" * 100_000 + b"L\n.",
    "keys with the same hash": pickle.dumps({k * (2**61 - 1): 1 for k in range(100)}, protocol=2),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_pickle_cannot_take_the_memory_or_the_time(tmp_path, name):
    file = tmp_path / "refs.p"
    file.write_bytes(BOMBS[name])
    with pytest.raises(ValueError, match=f"{file} is not a pickle of plain data"):
        unpickling.load_plain(file)


def test_lists_of_the_same_lists_are_no_expressions_and_no_ids(root):
    expected = archive_files.refcocog(root)
    refs = unpickling.load_plain(root / REFS)
    endless = _endless()
    refs[0]["sentences"][0]["sent"] = refs[1]["sentences"][0]["sent_id"] = refs[2]["ref_id"] = refs[3]["ann_id"] = (
        endless
    )
    refs[4]["image_id"] = refs[5]["sentences"] = refs[6]["split"] = refs[7]["category_id"] = endless
    (root / REFS).write_bytes(pickle.dumps(refs, protocol=2))
    examples, report = archives.load_archive("refcocog", root, "val")
    assert report.problems == {"malformed record": 1 + 1 + 2 + 2 + 2 + 2 + 2}
    assert len(examples) == expected - 12  # the list has two items in place of sentences


def test_a_list_in_many_references_does_not_fill_the_disk(root):
    archive_files.refcocog(root)
    refs = unpickling.load_plain(root / REFS)
    sentences = [{"sent_id": number, "sent": "it"} for number in range(1000)]
    refs = [refs[0] | {"ref_id": number, "sentences": sentences} for number in range(1000)]
    (root / REFS).write_bytes(pickle.dumps(refs, protocol=2))
    with pytest.raises(ArchiveError, match="has the same list in many references"):
        archives.load_archive("refcocog", root, "val")


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@settings(max_examples=40)
@given(plain, st.integers(0, pickle.HIGHEST_PROTOCOL), st.booleans())
def test_plain_data_come_back_from_every_protocol(tmp_path_factory, value, protocol, optimized):
    file = tmp_path_factory.mktemp("pickles") / "refs.p"
    content = pickle.dumps([value, value], protocol)
    file.write_bytes(pickletools.optimize(content) if optimized else content)
    assert unpickling.load_plain(file) == [value, value]


def test_a_pickle_of_python_2_is_read(tmp_path):
    file = tmp_path / "refs.p"
    # cPickle.dump([{'sent': 'cafe', u'raw': u'caf\xe9', 'ref_id': 7L, 'split': 'val'}], f), protocols 0 and 2
    file.write_bytes(
        b"(lp1\n(dp2\nS'sent'\np3\nS'cafe'\np4\nsVraw\np5\nVcaf\xe9\np6\nsS'ref_id'\np7\nL7L\nsS'split'\np8\nS'val'\np9\nsa."
    )
    expected = {"sent": "cafe", "raw": "café", "ref_id": 7, "split": "val"}
    assert unpickling.load_plain(file) == [expected]
    file.write_bytes(
        b"\x80\x02]q\x01}q\x02(U\x04sentq\x03U\x04cafeq\x04X\x03\x00\x00\x00rawq\x05X\x05\x00\x00\x00caf\xc3\xa9q\x06"
        b"U\x06ref_idq\x07\x8a\x01\x07U\x05splitq\x08U\x03valq\tua."
    )
    assert unpickling.load_plain(file) == [expected]


@given(st.binary(max_size=200))
def test_bytes_that_are_no_pickle_are_an_error(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("pickles") / "refs.p"
    file.write_bytes(content)
    try:
        unpickling.load_plain(file)
    except ValueError as error:
        assert str(file) in str(error)  # noqa: PT017
