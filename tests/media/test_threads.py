"""Torch's threads beside the stages."""

import os
import sys

import pytest
import torch

from a3gan.media.threads import beside_stages, codec_threads, on_all_cores


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_half_of_the_cores_and_back(monkeypatch, four_threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4), raising=False)
    with pytest.raises(ValueError), beside_stages() as number:
        assert number == torch.get_num_threads() == 2
        raise ValueError
    assert torch.get_num_threads() == 4


def test_a_choice_is_left(monkeypatch, four_threads):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with beside_stages() as number:
        assert number == torch.get_num_threads() == 4


def test_the_last_block_out_restores(monkeypatch, four_threads):
    cv2 = pytest.importorskip("cv2")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4), raising=False)
    before, interval = cv2.getNumThreads(), sys.getswitchinterval()
    first, second = beside_stages(), beside_stages()
    assert first.__enter__() == second.__enter__() == 2 and cv2.getNumThreads() == 1
    first.__exit__(None, None, None)  # as of a thread that is done before another
    assert torch.get_num_threads() == 2 and cv2.getNumThreads() == 1 and sys.getswitchinterval() < interval
    second.__exit__(None, None, None)
    assert torch.get_num_threads() == 4 and cv2.getNumThreads() == before and sys.getswitchinterval() == interval


@pytest.mark.parametrize("count", [1, 3])
def test_work_on_all_cores_keeps_its_order_and_raises(monkeypatch, count):
    monkeypatch.setattr("a3gan.media.threads.cores", lambda: count)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert on_all_cores(lambda x: x * x, [3, 1, 2, 5]) == [9, 1, 4, 25] and on_all_cores(abs, []) == []
    with pytest.raises(ZeroDivisionError):
        on_all_cores(lambda x: 1 // x, [1, 0, 2])


@pytest.mark.parametrize(("count", "threads"), [(1, 1), (2, 1), (3, 0), (16, 0)])
def test_codecs_have_one_thread_beside_the_stages_of_two_cores(monkeypatch, count, threads):
    monkeypatch.setattr("a3gan.media.threads.cores", lambda: count)
    assert codec_threads() == threads
