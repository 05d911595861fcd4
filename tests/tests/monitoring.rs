//! The chart's alerts against Prometheus' own evaluation, and each one's runbook.
//! Must not start a Prometheus: `promtool test rules` evaluates as it does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use fedtune_tests::prometheus::tool;

fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/fedtune/monitoring")
}

fn alerts() -> String {
    fs::read_to_string(monitoring().join("alerts.yaml")).expect("it is part of the repository")
}

/// The names after each `- alert:`.
fn names(alerts: &str) -> Vec<&str> {
    alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

#[test]
fn each_alert_fires_when_it_should_and_not_when_it_should_not() {
    let tests = fs::read_to_string(monitoring().join("alerts.test.yaml")).expect("it is part of the repository");
    for alert in names(&alerts()) {
        let cases: Vec<&str> = tests.lines().filter(|line| line.contains(&format!("alertname: {alert}"))).collect();
        assert!(!cases.is_empty(), "{alert} has no test");
    }
    let Some(promtool) = tool("promtool") else {
        eprintln!("skipped: there is no promtool; make test brings it where apt-get can");
        return;
    };
    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]] {
        let ended = Command::new(&promtool).args(arguments).current_dir(monitoring()).output();
        let ended = ended.expect("promtool can be started");
        let said = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(ended.status.success(), "promtool {}:\n{said}", arguments.join(" "));
    }
}

#[test]
fn each_alert_has_a_runbook_and_each_runbook_an_alert() {
    let alerts = alerts();
    let (names, url) = (names(&alerts), "https://github.com/fedtune/fedtune/blob/main/docs/runbooks.md#");
    let urls: Vec<String> =
        alerts.lines().filter_map(|line| Some(line.trim().strip_prefix("runbook_url: ")?.to_owned())).collect();
    let expected: Vec<String> = names.iter().map(|name| format!("{url}{}", name.to_lowercase())).collect();
    assert_eq!(urls, expected, "an anchor is its heading in small letters");
    let runbooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks.md");
    let runbooks = fs::read_to_string(runbooks).expect("it is part of the repository");
    let headings: Vec<&str> = runbooks.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(headings, names);
}
