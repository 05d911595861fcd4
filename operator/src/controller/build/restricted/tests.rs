use crate::controller::build::{
    children,
    tests::fixtures::{built, plain, pod_spec, settings},
};

fn refused(template: &str) -> String {
    let run = plain(&[&format!("server.template={template}")]);
    children(&run, &settings()).map(|_| ()).expect_err(template).to_string()
}

#[test]
fn what_the_restricted_level_forbids_is_refused_by_name() {
    for (template, what) in [
        ("{spec: {hostNetwork: true}}", "spec.hostNetwork: true"),
        ("{spec: {hostPID: true}}", "spec.hostPID: true"),
        ("{spec: {hostIPC: true}}", "spec.hostIPC: true"),
        ("{spec: {volumes: [{name: disk, hostPath: {path: /}}]}}", "the hostPath of spec.volumes[disk]"),
        ("{spec: {volumes: [{name: disk, nfs: {server: a, path: /}}]}}", "the nfs of spec.volumes[disk]"),
        ("{spec: {securityContext: {runAsUser: 0}}}", "spec.securityContext that runs as root"),
        ("{spec: {securityContext: {runAsNonRoot: false}}}", "spec.securityContext that runs as root"),
        ("{spec: {securityContext: {seccompProfile: {type: Unconfined}}}}", "spec.securityContext.seccompProfile"),
        ("{spec: {securityContext: {appArmorProfile: {type: Unconfined}}}}", "spec.securityContext.appArmorProfile"),
        ("{spec: {securityContext: {seLinuxOptions: {type: spc_t}}}}", "spec.securityContext.seLinuxOptions"),
        ("{spec: {securityContext: {seLinuxOptions: {role: x}}}}", "spec.securityContext.seLinuxOptions"),
        (
            "{spec: {securityContext: {windowsOptions: {hostProcess: true}}}}",
            "spec.securityContext.windowsOptions.hostProcess",
        ),
        ("{spec: {securityContext: {sysctls: [{name: kernel.msgmax, value: \"1\"}]}}}", "the sysctl kernel.msgmax"),
    ] {
        let sentence = refused(template);
        let expected = format!("spec.server.template: the restricted Pod Security level forbids {what}; ");
        assert!(sentence.starts_with(&expected), "{sentence}");
    }
}

#[test]
fn so_is_what_it_forbids_in_a_container() {
    for list in ["containers", "initContainers"] {
        for (fields, what) in [
            ("securityContext: {privileged: true}", ".securityContext.privileged: true"),
            ("securityContext: {allowPrivilegeEscalation: true}", ".securityContext.allowPrivilegeEscalation: true"),
            ("securityContext: {capabilities: {add: [SYS_ADMIN]}}", ".securityContext.capabilities.add with SYS_ADMIN"),
            ("securityContext: {capabilities: {drop: [KILL]}}", ".securityContext.capabilities.drop without ALL"),
            ("securityContext: {runAsUser: 0}", ".securityContext that runs as root"),
            ("securityContext: {procMount: Unmasked}", ".securityContext.procMount"),
            ("ports: [{containerPort: 1, hostPort: 1}]", ".ports with a hostPort"),
            ("livenessProbe: {httpGet: {port: 1, host: example.com}}", ", whose livenessProbe names a host"),
            ("lifecycle: {preStop: {tcpSocket: {port: 1, host: example.com}}}", ", whose preStop names a host"),
        ] {
            let sentence = refused(&format!("{{spec: {{{list}: [{{name: x, {fields}}}]}}}}"));
            assert!(sentence.contains(&format!("forbids spec.{list}[x]{what}; ")), "{sentence}");
        }
    }
}

#[test]
fn what_the_level_asks_of_each_container_is_filled_in_where_a_template_adds_one() {
    let server = built(&plain(&["server.template={spec: {initContainers: [{name: fetch, image: x}]}}"])).server;
    let context = &pod_spec(&server)["initContainers"][0]["securityContext"];
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["capabilities"]["drop"][0], "ALL");
}

#[test]
fn what_the_level_allows_is_allowed() {
    for template in [
        "{spec: {securityContext: {runAsUser: 1000, seccompProfile: {type: Localhost, localhostProfile: x}}}}",
        "{spec: {securityContext: {sysctls: [{name: net.ipv4.tcp_rmem, value: \"1\"}], seLinuxOptions: {level: s0}}}}",
        "{spec: {containers: [{name: x, securityContext: {capabilities: {add: [NET_BIND_SERVICE]}}}]}}",
        "{spec: {volumes: [{name: x, ephemeral: {}}, {name: y, csi: {}}, {name: z, projected: {}}]}}",
    ] {
        built(&plain(&[&format!("server.template={template}")]));
    }
}
