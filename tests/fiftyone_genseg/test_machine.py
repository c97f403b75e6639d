"""Which known checkpoint fits a machine, and which one is recommended."""

import psutil
import pytest
from genseg_hub import memory
from genseg_hub.checkpoints.catalog import KNOWN

from fiftyone_genseg import machine
from fiftyone_genseg.machine import Device

QWEN = {size: f"Qwen/Qwen3-VL-{size}-Instruct" for size in ("2B", "4B", "8B")}


def known(name: str):
    return next(one for one in KNOWN if one.name == name)


@pytest.mark.parametrize(
    ("name", "gigabytes", "size"),
    [
        ("cuda:0", 150.1, "8B"),
        ("cuda:0", 25.4, "8B"),
        ("cuda:0", 17.1, "4B"),
        ("mps", 12.0, "2B"),
        ("cuda:0", 10.0, "2B"),
        ("cuda:0", 6.4, None),
        ("cpu", 512.0, "2B"),
        ("cpu", 32.0, "2B"),
        ("cpu", 14.0, "2B"),
        ("cpu", 8.0, None),
    ],
)
def test_a_gpu_gets_the_largest_that_fits_and_a_cpu_the_smallest(name, gigabytes, size):
    best = machine.recommended(Device(name, "", gigabytes))
    assert (best and best.name) == (size and QWEN[size])


def test_a_cpu_without_bfloat16_needs_twice_the_weights():
    cpu = Device("cpu", "", 14.0, weight_bytes=4)
    assert machine.memory_needed(known(QWEN["2B"]), cpu) == pytest.approx(known(QWEN["2B"]).memory + 4.3)
    assert machine.recommended(cpu) is None
    assert machine.cpu().weight_bytes in (2, 4)


def test_only_checkpoints_that_are_allowed_are_recommended():
    gpu, cpu = Device("cuda:0", "", 80.0), Device("cpu", "", 80.0)
    four = [known(QWEN["4B"])]
    assert machine.recommended(gpu, four).name == QWEN["4B"]
    assert machine.recommended(cpu, four) is None
    assert machine.recommended(gpu, [known("geshang/Seg-R1-7B")]) is None
    assert machine.recommended(among=[]) is None


def test_a_candidate_says_what_to_type(hub):
    found = {one.name: one for one in machine.candidates(Device("cuda:0", "", 17.1))}
    assert set(found) == {one.name for one in KNOWN} - {"nano", "nano-sft"}
    assert found[QWEN["4B"]].command == f"genseg pull {QWEN['4B']}"
    assert found[QWEN["8B"]].command == f"--model {QWEN['8B']} --server ..."
    assert [one.name for one in found.values() if one.recommended] == [QWEN["4B"]]
    assert not any(one.on_disk for one in found.values())


def test_the_memory_of_a_container_counts(tmp_path, monkeypatch):
    whole = machine.cpu()
    assert whole.total <= psutil.virtual_memory().total / 1e9
    assert "core" in whole.label
    limit, unlimited = tmp_path / "memory.max", tmp_path / "none"
    limit.write_text("1000000000\n")
    unlimited.write_text("max\n")
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", (str(unlimited), str(tmp_path / "absent"), str(limit)))
    assert machine.cpu().total == 1.0
    assert machine.cpu().free <= 1.0
