//! Pods as the operator builds them, each a process of this machine whose root is a folder: the program takes their
//! arguments, their `run.json` and their certificates, and gives the bits of a local run.
//! Must not need a cluster: what kubelet adds to a pod is done here by hand.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{
    fs,
    time::{Duration, SystemTime},
};

use fedtune_crds::live::{LivePhase, LiveStatus};
use fedtune_operator::{
    authority::{Authority, Bundle, Leaf, Name, new_key},
    controller::build::{
        Children, Job, Run, Settings, children, config_map::RUN_JSON, groups::external, names, secret,
    },
};
use fedtune_tests::{Bench, Running, siege::quiet_address};
use k8s_openapi::api::core::v1::Secret;

const UID: &str = "5f0c1d1e-93aa-4f4b-8c1c-0a1b2c3d4e5f";

/// A resource as the API server keeps it, with these groups; its server is reached by loopback.
fn resource(bench: &Bench, framework: &str, groups: &str) -> Run {
    let sets = [
        format!("metadata.uid={UID}"),
        "metadata.namespace=team".to_owned(),
        format!("clients.groups=[{groups}]"),
        "server.expose={hosts: [127.0.0.1]}".to_owned(),
    ];
    fedtune_crds::load(&bench.yaml("tiny", framework), &sets).unwrap()
}

/// What stands for a cluster: certificates as the operator issues them, and the server's address.
struct Stage<'a> {
    bench: &'a Bench,
    run: &'a Run,
    run_json: String,
    authority: Authority,
    server: String,
}

impl Stage<'_> {
    fn leaf(&self, name: &Name) -> Leaf {
        self.authority.certify(name, &names::server_hosts(self.run), &new_key().unwrap(), SystemTime::now()).unwrap()
    }

    fn group(group: &str) -> Name {
        Name::Group { run: UID.to_owned(), group: group.to_owned() }
    }

    /// Starts the first container of a pod of `job`, its root being the folder `pod`.
    fn start(&self, job: &Job, index: u32, pod: &str, papers: &Secret) -> Running {
        self.bench.write(&format!("{pod}/etc/fedtune/run/{RUN_JSON}"), &self.run_json);
        for (file, content) in papers.data.as_ref().unwrap() {
            self.bench.write(&format!("{pod}/etc/fedtune/tls/{file}"), &content.0);
        }
        fs::create_dir_all(self.bench.path(&format!("{pod}/dev"))).unwrap();
        let arguments = &job.as_json()["spec"]["template"]["spec"]["containers"][0]["args"];
        let arguments = arguments.as_array().unwrap().iter().map(|argument| argument.as_str().unwrap());
        let arguments: Vec<String> = arguments.map(|argument| self.here(argument, index, pod)).collect();
        self.bench.start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// An argument of a pod as it is on this machine.
    fn here(&self, argument: &str, index: u32, pod: &str) -> String {
        let of_the_pod = ["/etc/", "/var/", "/dev/"].iter().any(|folder| argument.starts_with(folder));
        match argument {
            _ if of_the_pod => format!("{}{argument}", self.bench.path(pod).display()),
            "0.0.0.0:7443" => self.server.clone(),
            "0.0.0.0:8080" => quiet_address(),
            _ if argument == names::server_url(self.run) => format!("https://{}", self.server),
            _ => argument.replace("$(JOB_COMPLETION_INDEX)", &index.to_string()),
        }
    }

    /// The external client, which somebody else starts with what the operator has handed out.
    fn join(&self, spec: &str) -> Running {
        let (host, port) = self.server.rsplit_once(':').unwrap();
        let leaf = self.leaf(&Self::group("outside"));
        let bundle = Bundle::new(UID, "outside", (host, port.parse().unwrap()), &self.authority, &leaf);
        let papers = secret::join(self.run, "outside", &bundle.to_json());
        let bundle = self.bench.write("outside.join", &papers.data.unwrap()[secret::JOIN].0);
        let bundle = bundle.display().to_string();
        self.bench.start(&["client", spec, "--client", "outside/0", "--join", &bundle, "--out", "outside"])
    }
}

/// Runs `framework` locally, then as pods with a client of the group `outside`, if there is one, as its own process;
/// compares what both leave.
fn gives_the_bits_of_a_local_run(framework: &str, groups: &str) {
    let bench = Bench::new();
    let run = resource(&bench, framework, groups);
    // Nobody scrapes here.
    let settings = Settings { linger: Duration::ZERO, ..Settings::new("image", "system") };
    let Children { config_map, server, clients, .. } = children(&run, &settings).unwrap();
    let run_json = config_map.data.unwrap().remove(RUN_JSON).unwrap();
    let spec = bench.write("tiny.yaml", &run_json).display().to_string();
    let _together = bench.run(&spec, &[]).well();

    let authority = Authority::new(new_key().unwrap(), SystemTime::now()).unwrap();
    let stage = Stage { bench: &bench, run: &run, run_json, authority, server: quiet_address() };
    let papers = stage.leaf(&Name::Server { run: UID.to_owned() });
    let server = stage.start(&server, 0, "server", &secret::server(&run, &stage.authority, &papers));
    let papers = secret::group(&run, "silo", &stage.authority, &stage.leaf(&Stage::group("silo")));
    let pods = [0, 1].map(|index| stage.start(&clients[0], index, &format!("silo-{index}"), &papers));
    let outside = external(&run).next().map(|_| stage.join(&spec));
    for ended in pods.into_iter().chain(outside).chain([server]).map(Running::wait) {
        let _ended = ended.well();
    }

    assert!(bench.adapter("out", "tiny") == bench.adapter("server/var/lib/fedtune", "tiny"), "{framework}");
    let last_words: LiveStatus = serde_json::from_slice(&bench.read("server/dev/termination-log")).unwrap();
    assert_eq!((last_words.uid.as_str(), last_words.phase), (UID, LivePhase::Succeeded));
}

#[test]
fn pods_of_each_framework_give_the_bits_of_a_local_run() {
    for framework in ["fedLLM: {}", "kdFedLLM: {distillationSteps: 2}", "splitFedLLM: {cutLayer: 1}"] {
        gives_the_bits_of_a_local_run(framework, "{name: silo, replicas: 2}");
    }
}
