#!/usr/bin/env python3
"""Writes the chart's Grafana dashboards: Compare, Run and Operator.

Must not hold a figure of its own: each panel asks Prometheus for what operator and trainer export.

    dashboards.py FOLDER

Needs grafana-foundation-sdk, Grafana's own types for dashboards; `make dashboards` brings it.
"""

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.builders import bargauge, dashboard, prometheus, stat, table, timeseries, xychart
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import BigValueColorMode, VizOrientation
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
# Of one run, and of all runs of an experiment.
RUN = 'namespace="$namespace", run="$run"'
EXPERIMENT = 'namespace=~"$namespace", experiment="$experiment"'
# The same columns for every row: 24 are a page.
THIRD, HALF, WHOLE = 8, 12, 24


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for built in (compare(), run(), operator()):
        text = JSONEncoder(sort_keys=True, indent=2).encode(built.build())
        name = json.loads(text)["uid"]
        (folder / f"{name}.json").write_text(text + "\n")


def compare():
    """Runs of one experiment side by side, from figures that outlive their pods."""
    none = "No run of this experiment has ended yet."
    figure = lambda name, more="": last(f"{name}{{{EXPERIMENT}{more}}}")
    both = lambda name: f"sum by (namespace, run, framework) ({figure(name)})"
    accuracy, payload = figure("fedtune_run_accuracy_ratio"), both("fedtune_run_payload_bytes")
    return (
        board("fedtune-compare", "fedtune / Compare", "Which way of federated fine-tuning is best, by experiment.")
        .with_variable(pick("namespace", "label_values(fedtune_run_accuracy_ratio, namespace)", every=True))
        .with_variable(
            pick("experiment", 'label_values(fedtune_run_accuracy_ratio{namespace=~"$namespace"}, experiment)')
        )
        .with_panel(bars("Accuracy", "percentunit", "Share of the held-out examples that the final model labels rightly.", accuracy, none).max(1))
        .with_panel(bars("Payload, both directions", "decbytes", "Tensor bytes that clients and server exchanged.", payload, none))
        .with_panel(bars("Client operations", "flop", "Floating point operations of all clients, evaluation left out.", figure("fedtune_run_client_flops"), none))
        .with_panel(bars("Loss", "none", "Mean cross-entropy of the final model on the held-out examples, in nats.", figure("fedtune_run_loss"), none))
        .with_panel(bars("Client compute time", "s", "Compute seconds of all clients.", figure("fedtune_run_client_seconds"), none))
        .with_panel(bars("Duration", "s", "Seconds from the first child to the end of the run.", figure("fedtune_run_duration_seconds"), none))
        .with_panel(accuracy_against_bytes(accuracy, payload, none))
        .with_panel(
            sheet(
                "All figures",
                "Each ended run with the figures of its status; up is from the clients to the server.",
                none,
                Accuracy=(accuracy, "percentunit"),
                Loss=(figure("fedtune_run_loss"), "none"),
                Up=(figure("fedtune_run_payload_bytes", ', direction="up"'), "decbytes"),
                Down=(figure("fedtune_run_payload_bytes", ', direction="down"'), "decbytes"),
                Wire=(both("fedtune_run_wire_bytes"), "decbytes"),
                FLOPs=(figure("fedtune_run_client_flops"), "flop"),
                Compute=(figure("fedtune_run_client_seconds"), "s"),
            )
        )
        .with_panel(
            bars("Failed runs", "none", "Runs of the experiment that ended by an error, by its name.", figure("fedtune_run_failed"), "None has failed.", "{{run}}: {{reason}}").span(WHOLE)
        )
    )


def run():
    """One run while it goes on."""
    none = "No pod of this run has been scraped in this time."
    live = lambda name, more="": f"{name}{{{RUN}{more}}}"
    per_second = lambda name, by: f"sum by ({by}) (rate({live(name)}[$__rate_interval]))"
    return (
        board("fedtune-run", "fedtune / Run", "How one run goes: rounds, clients, bytes, time, memory.")
        .with_variable(pick("namespace", "label_values(fedtune_round, namespace)"))
        .with_variable(pick("run", 'label_values(fedtune_round{namespace="$namespace"}, run)'))
        .with_panel(number("Round", "none", "Last finished round.", last(live("fedtune_round")), none))
        .with_panel(number("of rounds", "none", "Rounds of the run.", last(live("fedtune_rounds")), none))
        .with_panel(number("Clients ready", "none", "Clients that have a session.", last(live("fedtune_clients", ', state="ready"')), none))
        .with_panel(number("Clients away", "none", "Clients of the run that have none.", last(live("fedtune_clients", ', state="away"')), none))
        .with_panel(lines("Accuracy", "percentunit", "On the held-out examples, after each round.", none, accuracy=live("fedtune_evaluation_accuracy_ratio")).max(1).min(0))
        .with_panel(lines("Loss", "none", "Mean cross-entropy on the held-out examples after each round, in nats.", none, loss=live("fedtune_evaluation_loss")))
        .with_panel(
            lines(
                "Round duration", "s", "Mean of the rounds that ended in the last hour.", none,
                mean=f"rate({live('fedtune_round_duration_seconds_sum')}[1h]) / rate({live('fedtune_round_duration_seconds_count')}[1h])",
            )
        )
        .with_panel(lines("Payload", "Bps", "Tensor bytes a second by what they are.", none, **{"{{direction}} {{kind}}": per_second("fedtune_payload_bytes_total", "direction, kind")}))
        .with_panel(
            lines(
                "Wire efficiency", "none", "Bytes on the sockets for each byte of payload; 1.01 is usual.", none,
                **{"{{direction}}": f"sum by (direction) ({live('fedtune_wire_bytes_total')}) / sum by (direction) ({live('fedtune_payload_bytes_total')})"},
            )
        )
        .with_panel(lines("Sent again", "decbytes", "Payload that broken links had sent again.", none, **{"{{direction}}": f"sum by (direction) ({live('fedtune_retransmitted_bytes_total')})"}))
        .with_panel(lines("Stragglers", "s", "Compute time of each client since the run began; the longest is waited for.", none, **{"{{client}}": f'sum by (client) ({live("fedtune_client_seconds_total", ", activity=" + chr(34) + "compute" + chr(34))})'}))
        .with_panel(lines("Busy and waiting", "percentunit", "Where the clients' time goes.", none, **{"{{activity}}": f"{per_second('fedtune_client_seconds_total', 'activity')} / ignoring(activity) group_left sum(rate({live('fedtune_client_seconds_total')}[$__rate_interval]))"}))
        .with_panel(lines("Client memory", "bytes", "Peak resident size of each client's process.", none, **{"{{client}}": live("fedtune_client_peak_memory_bytes")}))
        .with_panel(lines("Client operations", "flops", "Floating point operations a second, by phase.", none, **{"{{phase}}": per_second("fedtune_client_flops_total", "phase")}))
        .with_panel(lines("Padding", "percentunit", "Share of the tokens in training that are padding.", none, padding=f'sum({live("fedtune_client_tokens_total", ", kind=" + chr(34) + "padding" + chr(34))}) / sum({live("fedtune_client_tokens_total")})').max(1).min(0))
        .with_panel(lines("Refused and failed", "none", "Uploads and sessions refused, by reason, and clients that gave up.", none, **{"{{reason}}": f"sum by (reason) ({live('fedtune_uploads_refused_total')}) > 0", "gave up": live("fedtune_client_failures_total")}))
        .with_panel(lines("Age of the checkpoint", "s", "Seconds since the last one became durable.", none, age=f"time() - {live('fedtune_checkpoint_timestamp_seconds')}"))
        .with_panel(lines("Checkpoint volume", "bytes", "Room on the volume that holds the checkpoints.", none, **{"{{state}}": live("fedtune_checkpoint_volume_bytes")}))
        .with_panel(lines("Certificates", "s", "Until the first certificate in use ends; the operator renews it in time.", none, left=f"min({live('fedtune_certificate_expiry_timestamp_seconds')}) - time()"))
    )


def operator():
    """The operator itself."""
    none = "No operator has been scraped in this time."
    return (
        board("fedtune-operator", "fedtune / Operator", "What the operator does, and how the runs stand.")
        .with_panel(number("Leaders", "none", "Operators that lead: one, or none for the seconds of a take-over.", "sum(fedtune_operator_leader)", none))
        .with_panel(bars("Runs", "none", "Resources, by where their runs stand.", "max by (phase) (fedtune_operator_runs)", none, "{{phase}}"))
        .with_panel(lines("Runs over time", "none", "Resources, by where their runs stand.", none, **{"{{phase}}": "max by (phase) (fedtune_operator_runs)"}))
        .with_panel(lines("Looks at runs", "ops", "How often a second the operator looks at a run.", none, looks="sum(rate(fedtune_operator_reconcile_duration_seconds_count[$__rate_interval]))"))
        .with_panel(
            lines(
                "Duration of a look", "s", "Half, and all but a hundredth, take no longer.", none,
                **{
                    f"p{quantile:.0f}": f"histogram_quantile({quantile / 100}, sum by (le) (rate(fedtune_operator_reconcile_duration_seconds_bucket[$__rate_interval])))"
                    for quantile in (50, 99)
                },
            )
        )
        .with_panel(lines("Errors", "ops", "Looks that ended with an error and are repeated, by reason.", "No look has ended with an error.", **{"{{reason}}": "sum by (reason) (rate(fedtune_operator_reconcile_errors_total[$__rate_interval]))"}))
    )


def board(uid, title, description):
    source = dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["fedtune"])
        .time("now-6h", "now")
        .refresh("30s")
        .with_variable(source)
    )


def pick(name, query, every=False):
    variable = dashboard.QueryVariable(name).label(name.capitalize()).query(query).datasource(SOURCE)
    variable = variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    return variable.include_all(True).multi(True) if every else variable


def ask(expr, legend="", ref="A"):
    return prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(ref).datasource(SOURCE)


def last(selector):
    """The last value in the time range, also where it was scraped long ago in it."""
    return f"last_over_time({selector}[$__range])"


def now(expr, legend="", ref="A"):
    """As of the end of the time range."""
    return ask(expr, legend, ref).instant()


def bars(title, unit, description, expr, none, legend="{{run}} ({{framework}})"):
    panel = bargauge.Panel().title(title).description(description).unit(unit).no_value(none).datasource(SOURCE)
    return panel.orientation(VizOrientation.HORIZONTAL).with_target(now(expr, legend)).min(0).span(THIRD).height(7)


def number(title, unit, description, expr, none):
    panel = stat.Panel().title(title).description(description).unit(unit).no_value(none).datasource(SOURCE)
    return panel.color_mode(BigValueColorMode.NONE).with_target(now(expr)).span(6).height(4)


def lines(title, unit, description, none, **queries):
    panel = timeseries.Panel().title(title).description(description).unit(unit).no_value(none).datasource(SOURCE)
    for ref, (legend, expr) in zip("ABCDEFG", queries.items()):
        panel = panel.with_target(ask(expr, legend, ref))
    return panel.span(THIRD).height(8)


def columns(queries):
    """One row for each run: a query for each column, joined by the run's name."""
    for ref, (name, expr) in zip("ABCDEFG", queries.items()):
        yield now(f"sum by (run, framework) ({expr})", name, ref).format(PromQueryFormat.TABLE)


def joined(panel, names):
    refs = {f"Value #{ref}": name for ref, name in zip("ABCDEFG", names)}
    merge = models.DataTransformerConfig(id_val="merge", options={})
    rename = {"run": "Run", "framework": "Framework", **refs}
    tidy = models.DataTransformerConfig(
        id_val="organize", options={"excludeByName": {"Time": True}, "renameByName": rename}
    )
    return panel.with_transformation(merge).with_transformation(tidy)


def sheet(title, description, none, **queries):
    panel = table.Panel().title(title).description(description).unit("none").no_value(none).datasource(SOURCE)
    for target in columns({name: expr for name, (expr, _) in queries.items()}):
        panel = panel.with_target(target)
    for name, (_, unit) in queries.items():
        panel = panel.override_by_name(name, [models.DynamicConfigValue(id_val="unit", value=unit)])
    return joined(panel, queries).span(HALF).height(10)


def accuracy_against_bytes(accuracy, payload, none):
    panel = xychart.Panel().title("Accuracy against payload").no_value(none).unit("none").datasource(SOURCE)
    panel = panel.description("The best run is at the top left: much accuracy for few bytes.")
    for target in columns({"Payload": payload, "Accuracy": accuracy}):
        panel = panel.with_target(target)
    for name, unit in (("Payload", "decbytes"), ("Accuracy", "percentunit")):
        panel = panel.override_by_name(name, [models.DynamicConfigValue(id_val="unit", value=unit)])
    return joined(panel, ["Payload", "Accuracy"]).span(HALF).height(10)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
