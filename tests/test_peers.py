"""Peers: known optima are taken for the same instance only, and the counts of another run are tried, not believed."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def peers() -> Iterator[Any]:
    before, path = set(sys.modules), list(sys.path)
    sys.path.insert(0, str(ROOT))
    import peers_cases
    import peers_counts
    import peers_optima
    import peers_tables

    yield SimpleNamespace(cases=peers_cases, counts=peers_counts, optima=peers_optima, tables=peers_tables)
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if str(ROOT) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("name", ["W1, 64, batch of 2", "W2, Fourier 64", "W3, 10 %", "W4 isotropic, 64"])
def test_a_fingerprint_forgives_rounding_and_nothing_else(peers: Any, name: str) -> None:
    instance = peers.cases.make(peers.cases.cases(True)[name])
    mine = peers.optima.fingerprint(instance)
    rng = np.random.default_rng(5)
    rounded = instance.y * (1 + 1e-7 * rng.standard_normal(instance.y.shape)).astype(np.float32)
    assert peers.optima.same(mine, peers.optima.fingerprint(dataclasses.replace(instance, y=rounded)))
    other = instance.y.copy()
    other.flat[np.argmax(np.abs(other))] *= 0.99
    others = [{"y": other}, {"lam": 1.01 * instance.lam}, {"truth": instance.truth[:, ::-1]}, {"isotropic": False}]
    for array in ("mask", "matrix"):
        if (value := getattr(instance, array)) is not None:
            others.append({array: value[::-1]})
    for change in others:
        assert not peers.optima.same(mine, peers.optima.fingerprint(dataclasses.replace(instance, **change))), change


def test_known_optima_are_taken_for_the_same_instance_only(
    peers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optima, name = peers.optima, "W4 isotropic, 64, batch of 2"
    case = peers.cases.cases(True)[name]
    instance = peers.cases.make(case)
    fields = {"optimum": np.array([1.25, 2.5]), "optimal_psnr": np.array([30.0, 31.0]), "solution": instance.truth}
    path = tmp_path / f"{optima.slug(name)}.npz"
    optima.instances.save(dataclasses.replace(instance, **fields), path)
    note, known = {"case": case, "agreed_items": 1, "disagreement": 0.0}, tmp_path / "optima.json"
    optima.keep(known, name, note, path)
    assert not known.exists()  # of one item of two
    note["agreed_items"] = 2
    path.with_suffix(".json").write_text(json.dumps(note))
    assert optima.instance_file(tmp_path, name, case, known) == (path, note)  # adds it

    def computes(*_: Any, **__: Any) -> None:
        raise RuntimeError("computes")

    monkeypatch.setattr(optima.subprocess, "run", computes)
    taken, found = optima.instance_file(tmp_path / "work", name, case, known)
    loaded = optima.instances.load(taken)
    assert found == note and list(loaded.optimum) == [1.25, 2.5] and list(loaded.optimal_psnr) == [30, 31]
    assert loaded.solution is None and np.array_equal(loaded.y, instance.y)
    assert optima.instance_file(tmp_path / "work", name, case, known) == (taken, note)  # and again, from the folder
    for number, arguments in enumerate([(known, True), (None,)]):  # with the solution, and without the file
        with pytest.raises(RuntimeError, match="computes"):
            optima.instance_file(tmp_path / str(number), name, case, *arguments)
    monkeypatch.setattr(optima, "make", lambda _: dataclasses.replace(instance, lam=0.2))
    with pytest.raises(RuntimeError, match="computes"):
        optima.instance_file(tmp_path / "other", name, case, known)


def test_every_case_has_its_known_optima(peers: Any) -> None:
    entries, cases = peers.optima.table(peers.optima.OPTIMA), peers.cases.cases(False)
    assert sorted(entries) == sorted(cases)
    for name, case in cases.items():
        note, optimum = entries[name]["note"], entries[name]["optimum"]
        assert note["case"] == case and note["agreed_items"] == case["count"] == len(optimum)
        assert len(entries[name]["optimal_psnr"]) == case["count"] and abs(note["disagreement"]) <= 1e-5
        assert optimum[0] == note["optimum"]


def test_counts_of_another_run_are_tried_and_not_believed(peers: Any, tmp_path: Path) -> None:
    name, batch = "W1, 64", "W1, 64, batch of 2"
    settings = {"cases": peers.cases.cases(True)}
    reached = {"1e-3": 10, "1e-4": 101, "0.1 dB": None}
    runs = {name: {"scico": [{"counts": reached}], "deepinv": [{"error": "broke"}], "emjax": [{"counts": reached}]}}
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"settings": settings, "runs": runs, "searched": {}}))
    report: dict[str, Any] = {"settings": settings, "runs": {name: {}, batch: {}}, "searched": {}}
    peers.counts.take_counts(report, other, [batch], ["emjax", "scico", "deepinv"])
    assert set(report["searched"][name]) == {"emjax", "scico"}
    assert peers.counts.options(report, name, "scico", 0, 1) == ["--counts", "10,11,101,112"]
    assert peers.counts.options(report, batch, "scico", 0, 2)[2:] == ["--start", "10,101", "--coarse"]
    assert "--start" not in peers.counts.options(report, batch, "deepinv", 0, 2)
    # The next round runs at what reached the targets here.
    report["runs"][name]["scico"] = [{"counts": {"1e-3": 11, "1e-4": None, "0.1 dB": None}}]
    assert peers.counts.options(report, name, "scico", 1, 1) == ["--counts", "11"]
    other.write_text(json.dumps({"settings": {"cases": {}}, "runs": runs, "searched": {}}))
    with pytest.raises(SystemExit, match="another problem"):
        peers.counts.take_counts(report, other, [name], ["scico"])
    other.write_text("[]")
    with pytest.raises(SystemExit, match="no report"):
        peers.counts.take_counts(report, other, [name], ["scico"])


def test_a_package_that_misses_targets_at_given_counts_has_no_time_for_them(peers: Any) -> None:
    rows = [{"iterations": n, "seconds": n / 100, "gap": 0.1 / n, "psnr_distance": 1.0} for n in (10, 110)]
    counts = {"1e-3": 110, "1e-4": None, "0.1 dB": None}
    run = {"rows": rows, "counts": counts, "given_up": None, "limit": 60.0, "certified": [], "floor": {}}
    row = peers.tables.summarise([run | {"memory_mib": 1.0}], 1)
    assert row["seconds"] == {"1e-3": 1.1, "1e-4": None, "0.1 dB": None} and row["given_up_seconds"] is None
    assert peers.tables.verdict("W1, 64", {"scico": row}) is None


def row(seconds: float | None, given_up: float | None = None) -> dict[str, Any]:
    return {"seconds": {"1e-3": None, "1e-4": seconds, "0.1 dB": None}, "given_up_seconds": given_up}


def test_a_package_that_was_given_up_bounds_the_ratio_from_below(peers: Any) -> None:
    mine = row(0.1) | {"same_measure": row(0.05), "true_gap": {"1e-4": 5e-5}}
    verdict, name = peers.tables.verdict, "W1, 64"
    kept = verdict(name, {"emjax": mine, "scico": row(1.0), "deepinv": row(None, 2.0)})
    assert (kept["best_peer"], kept["lower_bound"], kept["passed"]) == ("scico", False, True)
    assert kept["ratio"] == pytest.approx(10) and kept["same_measure"] == pytest.approx(20)
    # Below the best finisher's time nothing is known of it but that; plain is no peer.
    open_ = verdict(name, {"emjax": mine, "scico": row(1.0), "deepinv": row(None, 0.5), "plain": row(0.01)})
    assert (open_["best_peer"], open_["lower_bound"], open_["passed"]) == ("deepinv", True, False)
    assert open_["ratio"] == pytest.approx(5) and open_["passed_by_the_same_measure"]
    assert verdict(name, {"emjax": mine, "scico": row(None, 0.9)})["passed"]
    # Not an iteration in the time that it had is a bound, too; what broke, or missed at given counts, is none.
    slow = peers.tables.summarise([{"rows": [], "limit": 2.0}], 4)
    assert slow["given_up_seconds"] == 0.5 and "0.5 s" in slow["error"]
    assert verdict(name, {"emjax": mine, "scico": row(1.0), "deepinv": slow})["best_peer"] == "deepinv"
    assert verdict(name, {"emjax": mine, "scico": {"error": "broke"}, "deepinv": row(None)}) is None
    assert verdict(name, {"emjax": row(None), "scico": row(1.0)}) is None
    judged = peers.tables.judged
    assert [
        judged(*v) for v in ((True, True, True), (False, True, True), (False, False, True), (False, True, False))
    ] == [
        "kept",
        "not shown",
        "missed",
        "missed",
    ]


def test_the_report_tells_what_is_not_there(peers: Any) -> None:
    rows = [{"iterations": 10, "seconds": 1.0, "first_seconds": 0.9, "gap": 1e-5}]
    base = {"rows": rows, "counts": {"1e-3": 10, "1e-4": 10, "0.1 dB": 10}, "given_up": None, "limit": 60.0}
    base |= {"certified": [], "floor": {}, "memory_mib": 0.0}
    lost = base | {"rows": [rows[0] | {"gap": 1.0}], "counts": dict.fromkeys(base["counts"]), "given_up": 0.5}
    ends = [
        {
            "target": t,
            "seconds": 0.2,
            "first_seconds": 0.1,
            "steps": 9,
            "gap": 5e-5,
            "certified_gap": 9e-5,
            "solver": "P",
        }
        for t in ("1e-3", "1e-4")
    ]
    runs = {"emjax": [base | {"certified": ends}] * 2, "sigpy": [base] * 2, "scico": [lost]}
    cases = peers.cases.cases(True)
    name = next(iter(cases))
    report: dict[str, Any] = {"settings": {"cases": cases, "platform": "cpu"}, "environment": {"cpus": 2}, "peers": {}}
    report |= {"references": {name: {"disagreement": 0.0, "case": cases[name]}}, "runs": {name: runs}}
    report["summary"] = {name: {p: peers.tables.summarise(done, 1) for p, done in runs.items()}}
    report["verdicts"] = {name: peers.tables.verdict(name, report["summary"][name])}
    assert all(r["compile_seconds"] == 0 for r in report["summary"][name].values())
    text = peers.tables.markdown(report, ["About."])
    assert f"1 of {len(cases)} cases" in text and "Rounds: 2, scico 1." in text
    assert "0 means that it stays below" in text and "first call less a later one" in text
    assert "scico takes over 2.50 times as long (bar 8): not shown" in text
    found = peers.tables.readme(report)
    assert f"1 of {len(cases)} problems, 2 peers (scico, sigpy), 2 rounds." in found["note"]
    assert "given up" in found["note"] and found["rows"][0][1:3] == ["scico (given up)", 500]
