"""A clip a few frames at a time, so that memory does not grow with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

T = TypeVar("T")
_AT_ONCE = 2  # windows on a CPU: between its many small steps torch leaves about half of the cores idle


def windows(frames: int, size: int) -> list[slice]:
    """The frames of a clip, `size` at a time. Slices, because those give views of the plate where index tensors copy it."""
    return [slice(start, min(start + size, frames)) for start in range(0, frames, size)]


def map_windows(
    work: Callable[[slice], T], frames: int, size: int, device: torch.device, progress: Callable[[int, int], None] | None = None
) -> list[T]:
    """What `work` gives for each window, in order. On a CPU two windows run at once, on threads of their own.

    progress(done, frames) is called in order by the caller's thread; what it raises stops the windows that have not begun.
    """
    parts, inference = windows(frames, size), torch.is_inference_mode_enabled()

    def one(part: slice) -> T:
        with torch.inference_mode(inference):  # which other threads do not inherit
            return work(part)

    threads, pool = torch.get_num_threads(), None
    if device.type == "cpu" and len(parts) > 1:  # they share the cores: more threads than those get into each other's way
        pool = ThreadPoolExecutor(_AT_ONCE, initializer=torch.set_num_threads, initargs=(max(threads // _AT_ONCE, 1),))
    try:
        results = []
        for part, result in zip(parts, (pool.map if pool else map)(one, parts), strict=True):
            results.append(result)
            if progress is not None:
                progress(part.stop, frames)
        return results
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)  # which also holds for threads that begin from now on


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The items in order, the next of which is made on another thread while the caller works on one: so reading a clip takes no time of
    its own. The iterator is asked by that thread alone."""
    source, inference = iter(items), torch.is_inference_mode_enabled()

    def following() -> list[T]:
        with torch.inference_mode(inference):
            return list(islice(source, 1))

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(following)
        while item := waiting.result():
            waiting = pool.submit(following)
            yield item.pop()
