"""CPU threads: threads that compute at the same time never use more cores than PyTorch had, and get them back."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from genseg_hub.cpu_threads import Cores
from genseg_training.nano.refscenes import refscenes

THREADS = 4


@pytest.fixture(autouse=True)
def _four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


def in_a_new_thread(function):
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function).result()


def divide():
    with Cores(divided=True).share(2):
        return torch.get_num_threads()


def test_two_threads_that_share_use_all_cores_together():
    with Cores(divided=True).share(2):
        assert torch.get_num_threads() + in_a_new_thread(divide) == THREADS
    assert torch.get_num_threads() == in_a_new_thread(torch.get_num_threads) == THREADS


def test_one_core_is_the_least():
    with Cores(divided=True).share(100):
        assert torch.get_num_threads() == 1


def test_work_on_another_device_changes_nothing():
    with Cores(divided=False).share(2):
        assert torch.get_num_threads() == THREADS


def test_an_error_gives_the_cores_back():
    with pytest.raises(RuntimeError, match="simulated"), Cores(divided=True).share(2):
        raise RuntimeError("simulated")
    assert torch.get_num_threads() == THREADS


def test_a_stream_that_is_left_early_gives_the_cores_back(nano):
    stream = nano.segment_many(refscenes("val", 32), batch_size=4)
    next(stream)
    in_a_new_thread(lambda: next(stream))
    stream.close()
    assert torch.get_num_threads() == in_a_new_thread(torch.get_num_threads) == THREADS
