"""Metrics of a run, as a real Prometheus scrapes them from a real head."""

import json
import re
import shutil
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from pipeline.labelling.records import Manifest
from tests.infra.manifests import INFRA
from tests.product import draw_photographs, label_flags, start, the_run
from tests.ray_nodes import Head, ray_head
from tests.servers import free_port, server_process

pytestmark = pytest.mark.cluster

_MONITORING = INFRA / "monitoring"


@dataclass(frozen=True)
class Prometheus:
    """A server that runs."""

    url: str

    def ask(self, query: str) -> list[dict]:
        """Return the samples of a query; an error of the query is one of the test."""
        text = urllib.parse.urlencode({"query": query})
        found: list[dict] = self.get(f"query?{text}")["result"]
        return found

    def value(self, query: str) -> float:
        [found] = self.ask(query)
        return float(found["value"][1])

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=30) as answer:
            found: dict = json.load(answer)
        assert found["status"] == "success", found
        data: dict = found["data"]
        return data


@contextmanager
def prometheus(folder: Path, head: Head) -> Iterator[Prometheus]:
    """Run a Prometheus with the alert rules of infra/, which scrapes a head every second."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian's package prometheus)")
    port = free_port()
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(_MONITORING / "alerts.yaml")],
        "scrape_configs": [
            {"job_name": "ray", "static_configs": [{"targets": [f"127.0.0.1:{head.metrics_port}"]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        *(program, f"--config.file={folder}/prometheus.yml"),
        *(f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"),
    ]
    with server_process(command, folder / "prometheus.log", port):
        yield Prometheus(f"http://127.0.0.1:{port}")


@dataclass(frozen=True)
class Scraped:
    """A run that a Prometheus has seen from its beginning to its end."""

    prometheus: Prometheus
    manifest: Manifest
    log: str
    answered: set[str]


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    folder = tmp_path_factory.mktemp("run")
    photographs = draw_photographs(folder / "in", 60, (240, 320))
    (photographs / "broken.jpg").write_bytes(b"no picture")
    log = folder / "log"
    with ray_head(dashboard=False) as head, prometheus(folder, head) as server:
        flags = label_flags(
            *(photographs, folder / "out", "--run-id", "night", "--max-shard-images", 4),
            *("--max-error-rate", 0.5, "--ray-address", head.address),
            *("--price-per-node-hour", 2, "--scales", "[1,2,3]"),
        )
        process = start(flags, log, **head.environ())
        answered: set[str] = set()
        while process.poll() is None:
            answered |= {query for query in _queries() - answered if server.ask(query)}
            time.sleep(0.5)
        assert process.returncode == 0, log.read_text()
        time.sleep(5)
        answered |= {query for query in _queries() - answered if server.ask(query)}
        manifest = the_run(f"file://{folder}/out").manifest()
        assert manifest is not None
        yield Scraped(server, manifest, log.read_text(), answered)


def _queries() -> set[str]:
    """Return the queries of the dashboard, for all runs."""
    dashboard = json.loads((_MONITORING / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return {query.replace("$run", ".*") for query in queries}


def test_the_counters_at_the_end_are_those_of_the_manifest(scraped: Scraped):
    """Images by status and code, bytes, steps and start, as Prometheus has them at the end."""
    manifest, ask = scraped.manifest, scraped.prometheus.ask
    assert manifest.work is not None

    by_code = {
        (one["metric"]["status"], one["metric"].get("code", "")): float(one["value"][1])
        for one in ask('max_over_time(ray_fcn_images_total{run="night"}[5m])')
    }
    assert by_code == {("ok", ""): manifest.num_ok, ("error", "unsupported_format"): 1}
    expected = {
        "read_bytes_total": manifest.work.read_bytes,
        "written_bytes_total": manifest.work.written_bytes,
        "planned_images": 61,
        "replica_busy_share": pytest.approx(manifest.work.busy_share, abs=1e-3),
        'step_seconds_count{step="network"}': manifest.num_shards,
    }
    # A gauge that was set once would be gone after 15 samples, one in a second.
    assert manifest.work.work_seconds > 20
    seen = scraped.prometheus.value("count_over_time(ray_fcn_planned_images[5m])")
    assert seen > 0.7 * manifest.work.work_seconds
    for name, value in expected.items():
        # The last value: the share of busy time goes down as well.
        assert scraped.prometheus.value(f"last_over_time(ray_fcn_{name}[5m])") == value, name
    started = scraped.prometheus.value("max_over_time(ray_fcn_run_started_timestamp_seconds[5m])")
    assert 0 < time.time() - started < 600


def test_alert_rules_and_dashboard_queries_answer(scraped: Scraped):
    """Prometheus has taken every rule of infra/, and every panel shows what there is to show.

    Nothing was tried again, and no batch was too large.
    """
    groups = scraped.prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == {"FcnNoProgress", "FcnErrorRate", "FcnRunLate"}
    assert {rule["health"] for rule in rules} == {"ok"}
    silent = _queries() - scraped.answered
    assert {re.search(r"ray_fcn_\w+", query).group() for query in silent} == {
        "ray_fcn_retries_total",
        "ray_fcn_out_of_memory_backoffs_total",
    }


def test_the_manifest_says_what_the_run_has_cost(scraped: Scraped):
    """Seconds per step, the replicas' busy share, what held it back, and the price."""
    manifest = scraped.manifest
    assert manifest.work is not None

    assert all(manifest.work.seconds[step] > 0 for step in ("fetch", "decode", "network", "write"))
    assert 0 < manifest.work.busy_share <= 1
    assert manifest.bottleneck
    assert manifest.price_per_thousand_images == pytest.approx(
        2 * manifest.work.node_seconds / 3600 / 61 * 1000
    )
    assert f"{manifest.price_per_thousand_images:.4f} per thousand images" in scraped.log
