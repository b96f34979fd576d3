"""Items that arrive together are computed together, each gets its own answer, and nothing is lost at the end."""

import asyncio
import threading

import pytest

from dlcourse.deployment import Batcher
from dlcourse.deployment.batching import QueueFull


class Gate:
    """A computation that waits until it is let go, and remembers its batches."""

    def __init__(self):
        self.go = threading.Event()
        self.batches = []

    def __call__(self, items):
        self.batches.append(list(items))
        assert self.go.wait(10)
        return [error if isinstance(error := item, Exception) else item * 2 for item in items]


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def test_a_lone_item_does_not_wait_for_company():
    batcher = Batcher(lambda items: [item * 2 for item in items])
    assert run(batcher.submit([21])) == [42]
    batcher.close()


def test_what_waits_becomes_one_batch_of_at_most_max_batch():
    async def scene():
        first = asyncio.create_task(batcher.submit([0]))
        await until(lambda: gate.batches)  # the thread is busy with it
        rest = [asyncio.create_task(batcher.submit([n])) for n in range(1, 6)]
        await until(lambda: len(batcher) == 5)
        gate.go.set()
        return [await task for task in [first, *rest]]

    gate = Gate()
    batcher = Batcher(gate, max_batch=4)
    assert run(scene()) == [[0], [2], [4], [6], [8], [10]]
    assert gate.batches == [[0], [1, 2, 3, 4], [5]]
    batcher.close()


def test_several_items_of_one_request_come_back_in_order():
    batcher = Batcher(lambda items: [item * 2 for item in items], max_batch=2)
    assert run(batcher.submit(range(7))) == [0, 2, 4, 6, 8, 10, 12]
    batcher.close()


def test_an_error_of_one_item_is_raised_for_its_request_alone():
    async def scene():
        gate.go.set()
        return await asyncio.gather(
            batcher.submit([1]), batcher.submit([ValueError("this one")]), return_exceptions=True
        )

    gate = Gate()
    batcher = Batcher(gate)
    good, bad = run(scene())
    assert good == [2]
    assert isinstance(bad, ValueError)
    batcher.close()


@pytest.mark.parametrize("compute", [lambda items: 1 / 0, lambda items: [], lambda items: None])
def test_a_computation_that_fails_is_raised_and_the_thread_lives_on(compute):
    batcher = Batcher(lambda items: compute(items) if items[0] == "bad" else items)
    with pytest.raises((ZeroDivisionError, RuntimeError, TypeError)):
        run(batcher.submit(["bad"]))
    assert run(batcher.submit(["good"])) == ["good"]
    batcher.close()


def test_a_full_queue_takes_none_of_a_request():
    async def scene():
        first = asyncio.create_task(batcher.submit([0]))
        await until(lambda: gate.batches)
        second = asyncio.create_task(batcher.submit([1, 2]))
        await until(lambda: len(batcher) == 2)
        with pytest.raises(QueueFull):
            await batcher.submit([3, 4])
        assert len(batcher) == 2
        gate.go.set()
        return await first, await second

    gate = Gate()
    batcher = Batcher(gate, max_queue=3)
    assert run(scene()) == ([0], [2, 4])
    batcher.close()


def test_a_request_that_was_given_up_is_not_computed():
    async def scene():
        first = asyncio.create_task(batcher.submit([0]))
        await until(lambda: gate.batches)
        given_up, kept = asyncio.create_task(batcher.submit([1])), asyncio.create_task(batcher.submit([2]))
        await until(lambda: len(batcher) == 2)
        given_up.cancel()
        await asyncio.sleep(0)
        gate.go.set()
        return await first, await kept

    gate = Gate()
    batcher = Batcher(gate)
    assert run(scene()) == ([0], [4])
    assert gate.batches == [[0], [2]]
    batcher.close()


def test_close_answers_what_waits_and_takes_nothing_new():
    async def scene():
        tasks = [asyncio.create_task(batcher.submit([n])) for n in range(5)]
        await until(lambda: gate.batches)
        gate.go.set()
        await asyncio.to_thread(batcher.close)
        assert not batcher.alive
        with pytest.raises(QueueFull, match="stopping"):
            await batcher.submit([9])
        return [await task for task in tasks]

    gate = Gate()
    batcher = Batcher(gate, max_batch=2)
    assert run(scene()) == [[0], [2], [4], [6], [8]]


@pytest.mark.parametrize("options", [{"max_batch": 0}, {"max_queue": 0}])
def test_sizes_below_one_are_refused(options):
    with pytest.raises(ValueError, match="must both be at least 1"):
        Batcher(list, **options)
