//! A group's Job: as many pods as it has clients, each known by its index.
//! Must not mount what another group may see: a group is a trust domain.

use fedtune_crds::clients::Group;
use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::{
    BuildError, Job, Run, Settings, credentials, groups,
    job::{OnConfigurationError, Order},
    labels::Part,
    mount::Mount,
    names,
    pod::{self, Pod, WORK_DIR},
    requests, sources,
};

/// Seconds that a client waits for a server that is away: it is likely to wait for a node, and whoever knows better, the
/// operator, ends the client with it.
const PATIENCE: u32 = 86_400;

/// The Jobs of all managed groups, in the order of the groups.
pub(super) fn jobs(run: &Run, settings: &Settings, config_map: &str) -> Result<Vec<Job>, BuildError> {
    groups::managed(run).map(|group| job(run, settings, config_map, group)).collect()
}

fn job(run: &Run, settings: &Settings, config_map: &str, (index, group): (usize, &Group)) -> Result<Job, BuildError> {
    Job::new(
        run,
        settings,
        Order {
            name: names::client_job(run, &group.name),
            part: Part::Group(&group.name),
            replicas: group.replicas,
            on_configuration_error: OnConfigurationError::FailIndex,
            template: template(run, settings, config_map, (index, group))?,
            requests: requests::of(&run.spec),
            overlay: group.template.as_ref(),
            path: format!("spec.clients.groups[{index}].template"),
        },
    )
}

fn template(
    run: &Run,
    settings: &Settings,
    config_map: &str,
    (index, group): (usize, &Group),
) -> Result<PodTemplateSpec, BuildError> {
    let pod = Pod {
        part: Part::Group(&group.name),
        config_map,
        tls: names::tls(run, &group.name),
        args: arguments(run, group),
        env: credentials::of(&format!("group {}", group.name), &sources::of_group(&run.spec, index), None)?,
        ports: Vec::new(),
        mounts: vec![state(run, group)],
    };
    Ok(pod::template(run, settings, pod))
}

fn arguments(run: &Run, group: &Group) -> Vec<String> {
    let client = format!("{}/$(JOB_COMPLETION_INDEX)", group.name);
    let flags = [("--client", client), ("--server", names::server_url(run)), ("--patience", PATIENCE.to_string())];
    let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
    ["client".to_owned(), pod::run_json()].into_iter().chain(flags).collect()
}

/// What must outlive a pod, in a folder that is this client's alone, in this run and in one that goes on from it.
fn state(run: &Run, group: &Group) -> Mount {
    let Some(state) = &group.state else { return Mount::empty_dir("work", WORK_DIR) };
    let uid = run.spec.resume_from.as_ref().map(|earlier| &earlier.uid).or(run.metadata.uid.as_ref());
    let folder = format!("{}/{}/$(JOB_COMPLETION_INDEX)", uid.map_or("", String::as_str), group.name);
    Mount::claim("work", WORK_DIR, &state.existing_claim).folder_of_variables(folder)
}
