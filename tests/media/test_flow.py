import threading
import time

import pytest

from a3gan.media.flow import Flow, stage_of


def numbers(count):
    yield from range(count)


def test_order_and_all_items():
    with Flow() as flow:
        doubled = (2 * n for n in flow.ahead("first", numbers(100)))
        assert list(flow.ahead("second", doubled, depth=1)) == list(range(0, 200, 2))
    assert set(flow.busy) == {"first", "second"}


def test_queues_are_bounded():
    made = []

    def source():
        for n in range(1000):
            made.append(n)
            yield n

    with Flow() as flow:
        items = flow.ahead("source", source(), depth=3)
        next(items)
        time.sleep(0.2)
        assert len(made) <= 6  # one taken, three waiting, one in hand


def test_stages_overlap():
    def slow(items):
        for item in items:
            time.sleep(0.02)
            yield item

    began = time.perf_counter()
    with Flow() as flow:
        items = numbers(15)
        for name in "abc":
            items = flow.ahead(name, slow(items))
        assert len(list(items)) == 15
    assert time.perf_counter() - began < 0.8 * 3 * 15 * 0.02
    assert all(0.2 < seconds < 0.8 for seconds in flow.busy.values())


def test_an_error_stops_all_and_names_its_stage():
    def broken(items):
        for item in items:
            if item == 5:
                raise OSError("no luck")
            yield item

    before = threading.active_count()
    with pytest.raises(OSError, match="no luck") as caught, Flow() as flow:
        items = flow.ahead("decode", iter(int, 1))  # endless
        items = flow.ahead("align", (n for n, _ in enumerate(items)))
        for _ in flow.ahead("last", flow.ahead("make", broken(items))):
            pass
    assert stage_of(caught.value) == "make"
    assert threading.active_count() == before


def test_leaving_stops_the_stages_and_closes_generators():
    closed = threading.Event()

    def source():
        try:
            yield from iter(int, 1)
        finally:
            closed.set()

    before = threading.active_count()
    with Flow() as flow:
        next(flow.ahead("source", source()))
    assert closed.is_set() and threading.active_count() == before
    assert stage_of(ValueError("x")) is None
