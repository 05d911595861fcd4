//! What befalls a cluster: a part that ends and is started again, one that hears nothing for a while.
//! Must not touch what runs in pods: kubectl does.

use std::time::Duration;

use tokio::time;

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

    /// Makes requests wait for etcd, two seconds in three, until `done` is.
    pub async fn slow_etcd<T>(&self, done: impl Future<Output = T>) -> T {
        let slow = async {
            loop {
                {
                    let _stopped = Stopped::new(self, "etcd");
                    time::sleep(Duration::from_secs(2)).await;
                }
                time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            done = done => done,
            never = slow => never,
        }
    }

    /// Stops the kubelet until the node is taken for lost, and lets it go on.
    pub fn silence_node(&self) {
        let wait_until = |ready: &str| {
            let (condition, limit) =
                (format!("--for=condition=Ready={ready}"), format!("--timeout={}s", SILENCE.as_secs()));
            self.kubectl(&["wait", "node", node::NAME, &condition, &limit], "")
        };
        let stopped = Stopped::new(self, "kubelet");
        let noticed = wait_until("Unknown");
        drop(stopped);
        let _ready_again = [noticed.well(), wait_until("True").well()];
    }
}

/// A part that stands still until this is dropped: also where a test fails meanwhile, so that the next one finds it at work.
struct Stopped<'a> {
    cluster: &'a Cluster,
    part: &'static str,
}

impl<'a> Stopped<'a> {
    fn new(cluster: &'a Cluster, part: &'static str) -> Self {
        cluster.keeper().order(&Order::Signal(part.into(), "STOP".into()));
        Self { cluster, part }
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.cluster.keeper().order(&Order::Signal(self.part.into(), "CONT".into()));
    }
}
