"""What the benchmarks print of what they have measured."""

from pathlib import Path

import pytest

from benchmarks.chart import panels, svg
from benchmarks.client import Failed
from benchmarks.page import BEGIN, END, write_page
from benchmarks.report import medians, standing, table
from benchmarks.works import read_wrk

SMALL = {
    "nginx": {"cpu": [20e-6, 10e-6, 30e-6], "rate": [1000.0]},
    "comfyproxy": {"cpu": [30e-6], "rate": [500.0]},
}


def test_the_table_has_the_median_the_range_and_the_ratio_the_cheapest_first() -> None:
    lines = list(table("title", SMALL, "request", "us", "nginx"))
    assert lines[0] == "\ntitle"
    assert lines[2].split() == ["nginx", "20.0", "10.0-30.0", "1.00", "1000"]
    assert lines[3].split() == ["comfyproxy", "30.0", "30.0-30.0", "1.50", "500"]


def test_without_the_reference_there_are_no_ratios() -> None:
    lines = list(table("title", {"comfyproxy": SMALL["comfyproxy"]}, "request", "us", "nginx"))
    assert lines[2].split() == ["comfyproxy", "30.0", "30.0-30.0", "500"]


def test_latency_counts_what_a_proxy_adds() -> None:
    found = medians({"no proxy": {"p50": [20e-6]}, "nginx": {"p50": [50e-6]}})
    assert found["nginx"]["added p50"] == pytest.approx(30e-6)


def test_a_target_that_is_missed_is_said_so() -> None:
    lines = [line.split() for line in standing({"small": SMALL})]
    ours = next(line for line in lines if line[:3] == ["small", "cpu", "nginx"])
    assert ours[3] == "1.50"
    assert "reached" in ours
    dearer = {"small": {**SMALL, "comfyproxy": {"cpu": [100e-6]}}}
    assert any("SHORT" in line for line in standing(dearer))


def test_a_target_without_its_measurement_is_left_out() -> None:
    assert len(list(standing({}))) == 1


def test_wrk_is_read() -> None:
    text = "  39876 requests in 2.00s, 7.1MB read\nRequests/sec:  19938.00\n"
    assert read_wrk(text) == {"count": 39876, "seconds": 2.0}


@pytest.mark.parametrize(
    "line", ["  Socket errors: connect 0, read 32, write 0, timeout 0", "  Non-2xx or 3xx responses: 12"]
)
def test_a_load_with_failures_counts_for_nothing(line: str) -> None:
    with pytest.raises(Failed, match=line.split()[0]):
        read_wrk(f"  100 requests in 2.00s, 7.1MB read\n{line}\n")


def test_the_chart_has_a_bar_for_each_peer_and_ours_stands_out() -> None:
    drawn = svg(list(panels({"small": SMALL})))
    assert drawn.count("<rect") == 2
    assert drawn.count('fill="#0b7a75"') == 1
    assert drawn.index("nginx") < drawn.index("comfyproxy")


def test_figures_replace_what_stood_between_the_marks_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_page(page, ["comfyproxy 1", "Linux"], {"small": SMALL})
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "| comfyproxy | 30 |" in text
    assert "old" not in text


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("no figures")
    with pytest.raises(ValueError, match="no place for figures"):
        write_page(page, ["a", "b"], {"small": SMALL})
    assert page.read_text() == "no figures"
