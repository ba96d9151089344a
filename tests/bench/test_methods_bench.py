from a3gan.anonymizers.classic import Blur
from a3gan.bench.methods import bench_methods
from a3gan.evaluation import speed


def test_methods_beside_each_other(monkeypatch):
    monkeypatch.setattr(speed, "MOST_SECONDS", 0.0)
    report = bench_methods(["blur", "a3gan"], "cpu")
    assert report.rows["blur"]["parameters"] == 0 and report.rows["blur"]["steps"] == 0
    assert report.rows["a3gan"]["parameters"] > 1e6 and report.rows["a3gan"]["steps"] == 1
    for row in report.rows.values():
        assert set(row["speed"]) == {"1", "16"}
        assert row["speed"]["16"]["seconds_per_face"] > 0 and row["speed"]["16"]["passes"] == 1
    lines = report.lines()
    assert "s a face, batch 16" in lines[1] and lines[2].startswith("blur") and not report.skipped


def test_a_pass_of_seconds_is_timed_once(monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    import torch

    cell = speed._one(Blur(size=32, device="cpu"), torch.zeros(2, 3, 32, 32))
    assert cell["passes"] == 1 and cell["seconds_per_face"] == 5.0
