import json
from pathlib import Path

import pytest

from benchmarks.scheduling import PLACES, Result, Scenario, choice_cost, main, measure, scenarios

WORST = "long ones in step"


def scenario(name: str, seed: int = 0) -> Scenario:
    (found,) = (one for one in scenarios(seed, 8) if one.name == name)
    return found


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Result]]:
    """The means of two draws, on eight servers."""
    return measure(8, 2)


def test_where_round_robin_is_at_its_worst_the_bound_is_nearly_reached(
    results: dict[str, dict[str, Result]],
) -> None:
    worst = max(results, key=lambda name: results[name]["round robin"].makespan)
    assert worst == WORST
    assert results[WORST]["round robin"].makespan > 6
    assert results[WORST]["comfyproxy"].makespan <= 1.1


@pytest.mark.parametrize("name", [one.name for one in scenarios(0, 8)])
def test_it_is_done_earlier_than_in_any_other_way(results: dict[str, dict[str, Result]], name: str) -> None:
    others = [result for place, result in results[name].items() if not place.startswith("comfyproxy")]
    for place in ("comfyproxy", "comfyproxy, known"):
        found = results[name][place]
        assert 1.0 <= found.makespan <= 1.25
        assert found.makespan < min(other.makespan for other in others)
        assert found.wait < min(other.wait for other in others)


def test_one_who_works_alone_hardly_notices_anothers_hundreds(results: dict[str, dict[str, Result]]) -> None:
    places = results["one floods"]
    assert places["comfyproxy"].light_wait < places["round robin"].light_wait / 20


def test_models_are_loaded_much_less_often(results: dict[str, dict[str, Result]]) -> None:
    places = results["all at once"]
    assert places["comfyproxy"].loads < places["round robin"].loads / 5


@pytest.mark.parametrize("place", PLACES)
def test_every_job_runs_once_and_nothing_beats_the_bound(place: str) -> None:
    simulation = PLACES[place](scenario("unlike servers"))
    result = simulation.run()
    assert len(simulation._waits) == len(simulation.scenario.tasks)
    assert not any(gpu.queue or gpu.running for gpu in simulation.gpus)
    assert result.makespan >= 1.0


def test_the_same_seed_is_the_same_work() -> None:
    assert scenario(WORST) == scenario(WORST) != scenario(WORST, seed=1)


def test_what_was_measured_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, chart = tmp_path / "rows.json", tmp_path / "chart.svg"
    main(["--servers", "2", "--seeds", "1", "--json", str(rows), "--chart", str(chart)])
    written = json.loads(rows.read_text())
    assert set(written["2"][WORST]) == set(PLACES)
    assert f"| {WORST} | round robin |" in capsys.readouterr().out
    assert chart.read_text().count("<rect") == len(written["2"]) * len(PLACES)


def test_a_choice_among_a_hundred_servers_takes_no_time_to_speak_of() -> None:
    """Seconds are the machine's, so the bound is ten times what was found on a slow one."""
    assert max(choice_cost(rounds=5)) < 20
