"""Windows of a clip: all frames once, in order, whatever runs at once."""

from __future__ import annotations

import threading

import pytest
import torch

from dynamicface.windows import ahead, map_windows, windows

CPU = torch.device("cpu")


@pytest.mark.parametrize("frames", [1, 3, 4, 5, 9])
def test_every_frame_is_in_one_window(frames):
    assert [f for part in windows(frames, 4) for f in range(frames)[part]] == list(range(frames))


def test_results_and_progress_come_in_order():
    told = []
    first = threading.Event()

    def work(part: slice) -> int:
        if part.start == 0:
            first.wait(2)  # the second window is done before the first
        first.set()
        return part.start

    assert map_windows(work, 9, 2, CPU, lambda done, total: told.append((done, total))) == [0, 2, 4, 6, 8]
    assert told == [(2, 9), (4, 9), (6, 9), (8, 9), (9, 9)]


def test_inference_mode_reaches_the_work():
    with torch.inference_mode():
        assert map_windows(lambda part: torch.is_inference_mode_enabled(), 4, 1, CPU) == [True] * 4
    assert map_windows(lambda part: torch.is_inference_mode_enabled(), 4, 1, CPU) == [False] * 4


def test_an_interrupt_stops_what_has_not_begun():
    begun = []

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    def work(part: slice) -> None:
        begun.append(part)
        threading.Event().wait(0.02)

    with pytest.raises(KeyboardInterrupt):
        map_windows(work, 100, 1, CPU, stop)
    assert len(begun) < 10


def test_the_next_item_is_made_while_the_caller_works():
    began = threading.Event()

    def numbers():
        yield 0, torch.is_inference_mode_enabled()
        began.set()
        yield 1, torch.is_inference_mode_enabled()

    with torch.inference_mode():
        items = ahead(numbers())
        assert next(items) == (0, True)
        assert began.wait(2)  # nobody has asked for the second
        assert list(items) == [(1, True)]


def test_what_making_an_item_raises_reaches_the_caller():
    def numbers():
        yield 1
        raise KeyError("second")

    items = ahead(numbers())
    assert next(items) == 1
    with pytest.raises(KeyError, match="second"):
        next(items)
