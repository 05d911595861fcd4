//! What makes a control plane a cluster with one node: controllers, scheduler, containers, network and names.
//! Must not start them.

use std::{fs, path::Path};

use serde_json::json;

use super::{
    control_plane::{ControlPlane, write_json, write_kubeconfig},
    enclosure::Number,
    orders::Part,
    pki::Pki,
    programs,
};

/// What the node is called.
pub(super) const NAME: &str = "node";
/// Users of the parts, as the API server knows them.
const USERS: [(&str, &str); 3] = [
    ("kube-controller-manager", "system:kube-controller-manager"),
    ("kube-scheduler", "system:kube-scheduler"),
    ("kube-proxy", "system:kube-proxy"),
];

/// A control plane inside of an enclosure, where every port is free.
pub(super) fn control_plane(number: Number) -> ControlPlane {
    ControlPlane {
        etcd: "127.0.0.1:2379".to_owned(),
        peers: "127.0.0.1:2380".to_owned(),
        address: number.node(),
        port: 6443,
        has_nodes: true,
    }
}

/// What is done inside of the enclosure before the first part starts: folders that every node has to itself.
pub(super) fn preparations() -> Vec<Vec<&'static str>> {
    let own = ["/run", "/var/lib/cni", "/var/log/pods", "/var/log/containers"];
    let mut commands: Vec<Vec<&str>> = own.iter().map(|folder| vec!["mkdir", "-p", folder]).collect();
    commands.extend(own.iter().map(|folder| vec!["mount", "-t", "tmpfs", "tmpfs", folder]));
    // The kubelet shares mounts with its pods, and nobody else.
    commands.push(vec!["mount", "--make-rshared", "/"]);
    commands.push(vec!["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
    commands
}

/// Writes certificates, kubeconfigs and configurations into `folder`.
pub(super) fn write_files(number: Number, folder: &Path, url: &str, pki: &Pki) {
    for (file, user) in USERS {
        pki.issue_user(file, user, None, &[]);
        write_kubeconfig(folder, file, url);
    }
    let names = [NAME.to_owned(), number.node(), "127.0.0.1".to_owned()];
    pki.issue_user("kubelet", &format!("system:node:{NAME}"), Some("system:nodes"), &names);
    write_kubeconfig(folder, "kubelet", url);
    write_containerd(folder);
    write_network(number, folder);
    write_kubelet(number, folder);
    write_proxy(number, folder);
    write_names(number, folder);
}

/// Everything but etcd and the API server, in the order in which it starts.
pub(super) fn parts(number: Number, folder: &Path) -> Vec<Part> {
    let at = |file: &str| folder.join(file).display().to_string();
    let program = |name: &str| programs::cached(name, "node");
    let more = [
        format!("--cluster-cidr={}", number.pods()),
        "--allocate-node-cidrs=true".to_owned(),
        // Else each claim waits a quarter of a minute for its volume.
        "--pvclaimbinder-sync-period=1s".to_owned(),
    ];
    let kubelet = [
        format!("--config={}", at("kubelet.json")),
        format!("--kubeconfig={}", at("kubelet.kubeconfig")),
        format!("--root-dir={}", at("kubelet")),
        format!("--cert-dir={}", at("kubelet-pki")),
        format!("--node-ip={}", number.node()),
        format!("--hostname-override={NAME}"),
    ];
    let scheduler = [format!("--kubeconfig={}", at("kube-scheduler.kubeconfig")), "--leader-elect=false".to_owned()];
    vec![
        Part::new("containerd", "containerd".into(), [format!("--config={}", at("containerd.toml"))]),
        controllers(folder, &more),
        Part::new("kube-scheduler", program("kube-scheduler"), scheduler),
        Part::new("kubelet", program("kubelet"), kubelet),
        Part::new("kube-proxy", program("kube-proxy"), [format!("--config={}", at("kube-proxy.json"))]),
        Part::new("coredns", program("coredns"), [format!("-conf={}", at("Corefile"))]),
    ]
}

/// Kubernetes' own controllers.
pub(super) fn controllers(folder: &Path, more: &[String]) -> Part {
    let at = |file: &str| folder.join(file).display().to_string();
    let name = "kube-controller-manager";
    let mut arguments = vec![
        format!("--kubeconfig={}", at("kube-controller-manager.kubeconfig")),
        format!("--service-account-private-key-file={}", at("pki/tokens.key")),
        format!("--root-ca-file={}", at("pki/ca.crt")),
        format!("--cluster-signing-cert-file={}", at("pki/ca.crt")),
        format!("--cluster-signing-key-file={}", at("pki/ca.key")),
        "--use-service-account-credentials=true".to_owned(),
        "--leader-elect=false".to_owned(),
    ];
    arguments.extend_from_slice(more);
    Part::new(name, programs::cached(name, "node"), arguments)
}

fn write_containerd(folder: &Path) {
    let (path, folder) = (folder.join("containerd.toml"), folder.display());
    let text = format!(
        r#"version = 2
root = "{folder}/containerd"
state = "/run/containerd"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # A machine that is itself a container may not lower it.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"#
    );
    fs::write(path, text).expect("a temporary folder can be written");
}

/// A bridge: pods of the one node see each other, and this machine.
fn write_network(number: Number, folder: &Path) {
    let addresses = json!({
        "type": "host-local",
        "ranges": [[{"subnet": number.pods()}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    });
    let bridge = json!({
        "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": addresses,
    });
    let ports = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    let network = json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]});
    fs::create_dir_all(folder.join("cni")).expect("a temporary folder can be written");
    write_json(&folder.join("cni/10-bridge.conflist"), &network);
}

fn write_kubelet(number: Number, folder: &Path) {
    fs::write(folder.join("resolv.conf"), format!("nameserver {}\n", number.node()))
        .expect("a temporary folder can be written");
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": folder.join("pki/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        // Two kubelets would each remove the other's groups.
        "cgroupRoot": format!("/{}", number.name()),
        "failCgroupV1": false,
        "failSwapOn": false,
        "clusterDNS": [number.node()],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": format!("unix://{}", folder.join("containerd.sock").display()),
        "tlsCertFile": folder.join("pki/kubelet.crt"),
        "tlsPrivateKeyFile": folder.join("pki/kubelet.key"),
        "volumePluginDir": folder.join("volume-plugins"),
        "resolvConf": folder.join("resolv.conf"),
        // The machine is shared with whatever else it does.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        // A test waits for what it reports.
        "syncFrequency": "10s",
        "nodeStatusReportFrequency": "10s",
    });
    write_json(&folder.join("kubelet.json"), &config);
}

fn write_proxy(number: Number, folder: &Path) {
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": folder.join("kube-proxy.kubeconfig")},
        "clusterCIDR": number.pods(),
        "hostnameOverride": NAME,
        "mode": "iptables",
        // The whole machine's, and not an enclosure's to set.
        "conntrack": {"maxPerCore": 0},
    });
    write_json(&folder.join("kube-proxy.json"), &config);
}

/// A process on the node's own address answers for names; a name that is not there yet is asked for again after a second.
fn write_names(number: Number, folder: &Path) {
    let (node, kubeconfig) = (number.node(), folder.join("kubeconfig"));
    let text = format!(
        ".:53 {{
    bind {node}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {}
        pods insecure
    }}
    cache 5 {{
        denial 512 1
    }}
}}
",
        kubeconfig.display()
    );
    fs::write(folder.join("Corefile"), text).expect("a temporary folder can be written");
}
