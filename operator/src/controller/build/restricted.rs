//! What the `restricted` Pod Security level forbids in a pod, said before the API server is asked.
//! Must not be the last guard: the namespace's own level is, and the API server knows its newest version.

use serde_json::{Value, json};

use super::overlay::object;

/// What is wrong with a pod template, from its own path on.
type Sentence = String;

/// Kinds of volumes that lead to nothing of the node's.
const VOLUMES: [&str; 8] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];

/// Namespaces of the node that a pod may not share.
const OF_THE_NODE: [&str; 3] = ["hostNetwork", "hostPID", "hostIPC"];

/// Kernel settings that touch the pod alone.
const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Types that `SELinux` may run a container as.
const SELINUX_TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// Gives containers that a template added what the level asks of each container, where it says nothing of it.
pub(super) fn fill_in(pod: &mut Value) {
    for list in ["containers", "initContainers"] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers.filter_map(Value::as_object_mut) {
            let Some(context) = object(container, "securityContext") else { continue };
            context.entry("allowPrivilegeEscalation").or_insert(json!(false));
            if let Some(capabilities) = object(context, "capabilities") {
                capabilities.entry("drop").or_insert(json!(["ALL"]));
            }
        }
    }
}

/// Refuses the first thing in `pod` that the level forbids.
pub(super) fn check(pod: &Value) -> Result<(), Sentence> {
    let spec = &pod["spec"];
    if let Some(field) = OF_THE_NODE.iter().find(|field| spec[**field] == json!(true)) {
        return forbidden(&format!("spec.{field}: true"), "leave it out");
    }
    check_volumes(spec)?;
    check_context(&spec["securityContext"], "spec.securityContext")?;
    check_sysctls(spec)?;
    for list in ["initContainers", "containers"] {
        // What is no container at all the API server refuses.
        for container in entries(&spec[list]).filter(|container| container.is_object()) {
            let name = container["name"].as_str().unwrap_or_default();
            check_container(container, &format!("spec.{list}[{name}]"))?;
        }
    }
    Ok(())
}

fn check_volumes(spec: &Value) -> Result<(), Sentence> {
    for volume in entries(&spec["volumes"]) {
        let name = volume["name"].as_str().unwrap_or_default();
        let kinds = volume.as_object().into_iter().flatten().map(|(kind, _)| kind.as_str());
        if let Some(kind) = kinds.filter(|kind| *kind != "name").find(|kind| is_of_the_node(kind)) {
            return forbidden(&format!("the {kind} of spec.volumes[{name}]"), "use a persistentVolumeClaim");
        }
    }
    Ok(())
}

/// Whether it is a kind of volume that the level forbids; what is no kind at all the API server refuses.
fn is_of_the_node(kind: &str) -> bool {
    !VOLUMES.contains(&kind)
}

fn check_sysctls(spec: &Value) -> Result<(), Sentence> {
    let names = entries(&spec["securityContext"]["sysctls"]).filter_map(|sysctl| sysctl["name"].as_str());
    match names.into_iter().find(|name| !SYSCTLS.contains(name)) {
        Some(name) => forbidden(&format!("the sysctl {name}"), "leave it out"),
        None => Ok(()),
    }
}

fn check_container(container: &Value, place: &str) -> Result<(), Sentence> {
    let (context, at) = (&container["securityContext"], format!("{place}.securityContext"));
    if !context.is_object() {
        return Ok(());
    }
    check_context(context, &at)?;
    if context["privileged"] == json!(true) {
        return forbidden(&format!("{at}.privileged: true"), "leave it out");
    }
    if context["allowPrivilegeEscalation"] != json!(false) {
        return forbidden(&format!("{at}.allowPrivilegeEscalation: true"), "leave it out");
    }
    if !matches!(context["procMount"].as_str(), None | Some("Default")) {
        return forbidden(&format!("{at}.procMount"), "leave it out");
    }
    check_capabilities(&context["capabilities"], &at)?;
    check_host(container, place)
}

fn check_capabilities(capabilities: &Value, at: &str) -> Result<(), Sentence> {
    let texts = |list: &str| entries(&capabilities[list]).filter_map(Value::as_str).collect::<Vec<_>>();
    if !texts("drop").contains(&"ALL") {
        return forbidden(&format!("{at}.capabilities.drop without ALL"), "leave it out");
    }
    match texts("add").into_iter().find(|added| *added != "NET_BIND_SERVICE") {
        Some(added) => forbidden(&format!("{at}.capabilities.add with {added}"), "leave it out"),
        None => Ok(()),
    }
}

/// Ports of the node, and probes and hooks that speak to another host.
fn check_host(container: &Value, place: &str) -> Result<(), Sentence> {
    if entries(&container["ports"]).any(|port| port["hostPort"].as_u64().unwrap_or(0) != 0) {
        return forbidden(&format!("{place}.ports with a hostPort"), "leave it out");
    }
    let hooks = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| (probe, &container[probe]));
    let lifecycle = ["postStart", "preStop"].map(|hook| (hook, &container["lifecycle"][hook]));
    let elsewhere = |hook: &Value| ["httpGet", "tcpSocket"].iter().any(|kind| !hook[*kind]["host"].is_null());
    match hooks.into_iter().chain(lifecycle).find(|(_, hook)| elsewhere(hook)) {
        Some((name, _)) => forbidden(&format!("{place}, whose {name} names a host"), "leave the host out"),
        None => Ok(()),
    }
}

/// What pod and container may both say.
fn check_context(context: &Value, at: &str) -> Result<(), Sentence> {
    if context["runAsNonRoot"] == json!(false) || context["runAsUser"] == json!(0) {
        return forbidden(&format!("{at} that runs as root"), "leave runAsNonRoot and runAsUser out");
    }
    if !matches!(context["seccompProfile"]["type"].as_str(), None | Some("RuntimeDefault" | "Localhost")) {
        return forbidden(&format!("{at}.seccompProfile"), "use RuntimeDefault or Localhost");
    }
    if !matches!(context["appArmorProfile"]["type"].as_str(), None | Some("RuntimeDefault" | "Localhost")) {
        return forbidden(&format!("{at}.appArmorProfile"), "use RuntimeDefault or Localhost");
    }
    if context["windowsOptions"]["hostProcess"] == json!(true) {
        return forbidden(&format!("{at}.windowsOptions.hostProcess"), "leave it out");
    }
    let selinux = &context["seLinuxOptions"];
    let is_set = |field: &str| !selinux[field].as_str().unwrap_or_default().is_empty();
    if is_set("user") || is_set("role") || !SELINUX_TYPES.contains(&selinux["type"].as_str().unwrap_or_default()) {
        return forbidden(&format!("{at}.seLinuxOptions"), "set its level only, or leave it out");
    }
    Ok(())
}

fn forbidden(what: &str, instead: &str) -> Result<(), Sentence> {
    Err(format!("the restricted Pod Security level forbids {what}; {instead}"))
}

fn entries(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests;
