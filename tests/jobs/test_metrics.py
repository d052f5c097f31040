"""Metrics of a run, as a real Prometheus scrapes them."""

import json
import os
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.product import draw_photographs, label_flags, start, the_run
from tests.servers import free_port

_INFRA = Path(__file__).parent.parent.parent / "infra" / "monitoring"


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """Give the ports of a Prometheus and of what it scrapes, with the alert rules of infra."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian's package prometheus)")
    folder = tmp_path_factory.mktemp("prometheus")
    port, target = free_port(), free_port()
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in _INFRA.glob("*rules*.y*ml")],
        "scrape_configs": [
            {"job_name": "ray", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    flags = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command = [program, *flags, f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    yield port, target
    process.terminate()
    process.wait(20)


def ask(port: int, query: str) -> list[dict]:
    """Ask Prometheus."""
    text = urllib.parse.urlencode({"query": query})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{text}") as answer:
        found = json.load(answer)
    assert found["status"] == "success", found
    result: list[dict] = found["data"]["result"]
    return result


@pytest.fixture(scope="module")
def scraped(
    prometheus: tuple[int, int], tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, Path]:
    """Give the port of a Prometheus that has seen a run from its beginning to its end."""
    port, target = prometheus
    folder = tmp_path_factory.mktemp("run")
    photographs = draw_photographs(folder / "in", 60)
    (photographs / "broken.jpg").write_bytes(b"no picture")
    ray_temp = folder / "ray"
    head = [
        *(shutil.which("ray") or "ray", "start", "--head", "--port", str(free_port())),
        *("--num-cpus", "2", "--metrics-export-port", str(target), "--include-dashboard=false"),
        *("--temp-dir", str(ray_temp), "--block"),
    ]
    process = subprocess.Popen(head, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"127.0.0.1:{head[head.index('--port') + 1]}"
        flags = label_flags(
            *(photographs, folder / "out", "--run-id", "night", "--max-shard-images", 4),
            *("--max-error-rate", 0.5, "--ray-address", address, "--price-per-node-hour", 2),
        )
        for _ in range(60):
            time.sleep(1)
            done = start(flags, folder / "log", RAY_ADDRESS=address)
            if done.wait(200) == 0:
                break
        else:
            raise AssertionError((folder / "log").read_text())
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not ask(port, "ray_fcn_images_total"):
            time.sleep(1)
        time.sleep(6)
        yield port, folder
    finally:
        process.terminate()
        process.wait(30)


def test_the_counters_at_the_end_are_those_of_the_manifest(scraped: tuple[int, Path]):
    """Images by status and code, and bytes, as Prometheus has them, equal the manifest."""
    port, folder = scraped
    manifest = the_run(f"file://{folder}/out").manifest()
    assert manifest is not None
    assert manifest.work is not None

    by_code = {
        (one["metric"]["status"], one["metric"].get("code", "")): float(one["value"][1])
        for one in ask(port, 'max by (status, code) (ray_fcn_images_total{run="night"})')
    }

    assert by_code == {("ok", ""): manifest.num_ok, ("error", "unsupported_format"): 1}
    for name, expected in {
        "ray_fcn_read_bytes_total": manifest.work.read_bytes,
        "ray_fcn_written_bytes_total": manifest.work.written_bytes,
        "ray_fcn_planned_images": 61,
    }.items():
        [found] = ask(port, f'max({name}{{run="night"}})')
        assert float(found["value"][1]) == expected


def test_alert_rules_and_dashboard_queries_answer(scraped: tuple[int, Path]):
    """Prometheus has taken every rule of infra, and each of their expressions runs."""
    port, _ = scraped
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/rules") as answer:
        groups = json.load(answer)["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 3
    assert {rule["health"] for rule in rules} == {"ok"}

    dashboard = json.loads(next(_INFRA.glob("*dashboard*.json")).read_text())
    expressions = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())
    ]
    assert expressions
    for expression in expressions:
        for variable in ("$run", "$__rate_interval", "$__range", "$__interval"):
            value = ".*" if variable == "$run" else "1m"
            expression = expression.replace(variable, value)
        ask(port, expression)


def test_the_manifest_says_what_the_run_has_cost(scraped: tuple[int, Path]):
    """Seconds per step, the replicas' busy share, what held it back, and the price."""
    _, folder = scraped
    manifest = the_run(f"file://{folder}/out").manifest()
    assert manifest is not None
    assert manifest.work is not None

    assert all(manifest.work.seconds[step] > 0 for step in ("fetch", "decode", "network", "write"))
    assert 0 < manifest.work.busy_share <= 1
    assert manifest.held_back_by
    assert manifest.price_per_thousand_images is not None
    assert "per thousand images" in (folder / "log").read_text()
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in (folder / "log").read_text()
