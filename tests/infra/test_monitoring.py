"""infra/monitoring: rules and dashboard ask for metrics that the jobs show."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from pipeline.labelling.schema import ERROR
from pipeline.settings.label import LabelSettings
from tests.infra.manifests import INFRA, RAYJOBS, documents, groups, rayjob_spec

_MONITORING = INFRA / "monitoring"

# The metrics of the jobs and their labels; Ray puts ray_ in front and adds labels of its own.
METRICS = {
    "fcn_images_total": {"status", "code", "run"},
    "fcn_read_bytes_total": {"run"},
    "fcn_written_bytes_total": {"run"},
    "fcn_step_seconds": {"step", "run"},
    "fcn_replica_busy_share": {"run"},
    "fcn_out_of_memory_backoffs_total": {"run"},
    "fcn_retries_total": {"kind", "run"},
    "fcn_planned_images": {"run"},
    "fcn_run_started_timestamp_seconds": {"run"},
}
_HISTOGRAMS = {"fcn_step_seconds"}


def _alerts() -> dict[str, dict]:
    [file] = documents(_MONITORING / "alerts.yaml")
    return {rule["alert"]: rule for group in file["groups"] for rule in group["rules"]}


def _dashboard() -> dict:
    return json.loads((_MONITORING / "dashboard.json").read_text())


def _queries() -> dict[str, str]:
    """Return every expression of rules and dashboard by its name."""
    panels = {
        panel["title"]: target["expr"]
        for panel in _dashboard()["panels"]
        for target in panel["targets"]
    }
    return panels | {name: rule["expr"] for name, rule in _alerts().items()}


def _metric(name: str) -> str:
    """Return the metric that a series belongs to."""
    plain = name.removeprefix("ray_")
    base = re.sub(r"_(bucket|sum|count)$", "", plain)
    return base if base in _HISTOGRAMS else plain


@pytest.mark.parametrize("name", list(_queries()))
def test_queries_ask_for_what_there_is(name: str):
    """Every series and label that a rule or panel names is one of the jobs' metrics."""
    query = _queries()[name]
    series = re.findall(r"\bray_\w+", query)
    known = set.union(*(METRICS[_metric(one)] for one in series))
    labels = re.findall(r"(?:by|on) \(([\w, ]+)\)", query)
    matched = re.findall(r"(\w+)=~?\"", query)

    assert {_metric(one) for one in series} <= METRICS.keys()
    named = {label for some in labels for label in some.split(", ")} | set(matched)
    assert named <= known | {"le"}


def test_the_dashboard_shows_every_metric():
    """Every metric of the jobs has a panel, and the panels lie side by side without overlap."""
    panels = _dashboard()["panels"]
    text = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]

    assert {_metric(name) for name in re.findall(r"\bray_\w+", text)} == METRICS.keys()
    assert len(set(places)) == len({panel["id"] for panel in panels}) == len(panels)


def test_the_alerts_are_these():
    """No progress, too many errors and a late run are alerts; each says what to do."""
    assert _alerts().keys() == {"FcnNoProgress", "FcnErrorRate", "FcnRunLate"}
    for rule in _alerts().values():
        assert rule["labels"].keys() == {"severity"}
        assert rule["annotations"].keys() == {"summary", "description"}


def test_the_error_alert_is_that_of_the_job():
    """The alert counts what the tables call an error, above the job's own default budget."""
    expression = _alerts()["FcnErrorRate"]["expr"]

    assert f'status="{ERROR}"' in expression
    assert f"> {LabelSettings.model_fields['max_error_rate'].default} " in expression


def _prometheus(name: str) -> dict:
    [config] = documents(_MONITORING / name)
    assert config["rule_files"] == ["alerts.yaml"]
    [scrape] = config["scrape_configs"]
    return scrape


@pytest.mark.parametrize("name", RAYJOBS)
def test_prometheus_finds_the_pods(name: str):
    """Every node of a RayJob has the port that Prometheus keeps, in the namespace it looks in."""
    scrape = _prometheus("prometheus-kubernetes.yaml")
    [discovery] = scrape["kubernetes_sd_configs"]
    kept = [one["regex"] for one in scrape["relabel_configs"] if one.get("action") == "keep"]

    assert discovery["namespaces"] == {"names": ["fcn"]}
    for group in groups(rayjob_spec(name)).values():
        [container] = group["template"]["spec"]["containers"]
        assert {port["name"] for port in container["ports"]} == set(kept)


def test_prometheus_finds_the_machines():
    """On machines Prometheus reads the list of nodes where Ray keeps it."""
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE  # noqa: PLC0415

    [discovery] = _prometheus("prometheus.yaml")["file_sd_configs"]
    assert discovery["files"] == [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]


def _promtool() -> str:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian's package prometheus has it)")
    return promtool


def test_prometheus_takes_configuration_and_rules():
    """Prometheus itself finds nothing wrong with the configuration and the rules it names."""
    done = subprocess.run(
        [_promtool(), "check", "config", _MONITORING / "prometheus.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 rules found" in done.stdout


def test_the_alerts_fire_when_they_should(tmp_path: Path):
    """Prometheus' own test of rules: a run that stalls, fails or is late alerts; a good one not."""
    promtool = _promtool()
    (tmp_path / "alerts.yaml").write_text((_MONITORING / "alerts.yaml").read_text())
    planned = {"series": 'ray_fcn_planned_images{run="r"}', "values": "100000x600"}
    started = {"series": 'ray_fcn_run_started_timestamp_seconds{run="r"}', "values": "0x600"}

    def images(status: str, values: str) -> dict[str, str]:
        return {"series": f'ray_fcn_images_total{{run="r",status="{status}"}}', "values": values}

    good = images("ok", "0+100x600")
    cases = [
        ("FcnNoProgress", "35m", [planned, images("ok", "0+100x5 500x60")], True),
        ("FcnNoProgress", "35m", [planned], True),
        ("FcnNoProgress", "35m", [planned, good], False),
        ("FcnErrorRate", "45m", [good, images("error", "0+5x600")], True),
        ("FcnErrorRate", "45m", [good, images("error", "0x10 1x600")], False),
        ("FcnRunLate", "9h", [started], True),
        ("FcnRunLate", "7h", [started], False),
    ]
    tests = [
        {
            "interval": "1m",
            "input_series": series,
            # The count of firing alerts: what their annotations say is not repeated here.
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                    "eval_time": at,
                    "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
                }
            ],
        }
        for alert, at, series, fires in cases
    ]
    (tmp_path / "tests.yaml").write_text(
        yaml.safe_dump({"rule_files": ["alerts.yaml"], "tests": tests})
    )

    done = subprocess.run(
        [promtool, "test", "rules", "tests.yaml"], cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
