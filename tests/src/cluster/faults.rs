//! What befalls a cluster: a part that ends and is started again, one that hears nothing for a while.
//! Must not touch what runs in pods: kubectl does.

use std::time::Duration;

use super::{Cluster, node, orders::Order};

/// Until a cluster has noticed that a node is silent: its lease is over after 40 seconds, and some more are granted.
const SILENCE: Duration = Duration::from_secs(180);

impl Cluster {
    /// Ends the API server as an upgrade does, starts it again, and waits until it answers.
    pub async fn restart_api_server(&self) {
        let name = "kube-apiserver";
        for order in [Order::Signal(name.into(), "TERM".into()), Order::Await(name.into()), Order::Again(name.into())] {
            self.keeper().order(&order);
        }
        self.wait_until_ready().await;
    }

    /// Stops the kubelet until the node is taken for lost, and lets it go on.
    pub fn silence_node(&self) {
        let kubelet = |signal: &str| self.keeper().order(&Order::Signal("kubelet".into(), signal.into()));
        let wait_until = |ready: &str| {
            let (condition, limit) =
                (format!("--for=condition=Ready={ready}"), format!("--timeout={}s", SILENCE.as_secs()));
            self.kubectl(&["wait", "node", node::NAME, &condition, &limit], "")
        };
        kubelet("STOP");
        let noticed = wait_until("Unknown");
        // Whatever came of it: a test that fails now must not leave it stopped.
        kubelet("CONT");
        let _ready_again = [noticed.well(), wait_until("True").well()];
    }
}
