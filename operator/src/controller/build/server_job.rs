//! The server's Job: one pod with the checkpoint, which starts again until it succeeds.
//! Must not mount what only clients may see.

use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::{
    BuildError, Job, Run, Settings, credentials,
    job::{OnConfigurationError, Order},
    labels::Part,
    mount::Mount,
    names::{self, GRPC_PORT},
    pod::{self, Pod, WORK_DIR},
    requests, sources, volume,
};

/// Where the results go, if to a claim.
const OUTPUT_DIR: &str = "/output";

/// The server's Job.
pub(super) fn job(run: &Run, settings: &Settings, config_map: &str) -> Result<Job, BuildError> {
    Job::new(
        run,
        settings,
        Order {
            name: names::server_job(run),
            part: Part::Server,
            replicas: 1,
            on_configuration_error: OnConfigurationError::FailJob,
            template: template(run, settings, config_map)?,
            requests: requests::of(&run.spec),
            overlay: run.spec.server.template.as_ref(),
            path: "spec.server.template".to_owned(),
        },
    )
}

fn template(run: &Run, settings: &Settings, config_map: &str) -> Result<PodTemplateSpec, BuildError> {
    let output = run.spec.output.as_ref().and_then(|output| output.s3.as_ref());
    let pod = Pod {
        part: Part::Server,
        config_map,
        tls: names::server_tls(run),
        args: arguments(run),
        env: credentials::of("the server", &sources::of_server(&run.spec), output)?,
        ports: vec![pod::port("grpc", GRPC_PORT)],
        mounts: [Some(Mount::claim("work", WORK_DIR, &volume::checkpoint_claim(run))), results(run)]
            .into_iter()
            .flatten()
            .collect(),
    };
    Ok(pod::template(run, settings, pod))
}

fn arguments(run: &Run) -> Vec<String> {
    let mut arguments =
        vec!["server".to_owned(), pod::run_json(), "--listen".to_owned(), format!("0.0.0.0:{GRPC_PORT}")];
    if results(run).is_some() {
        arguments.extend(["--output".to_owned(), OUTPUT_DIR.to_owned()]);
    }
    if run.spec.attempt > 0 {
        // The one field that is not in the spec's file and yet in the report.
        arguments.extend(["--set".to_owned(), format!("attempt={}", run.spec.attempt)]);
    }
    arguments
}

/// The claim that results are copied to; to a store the trainer brings them by what the spec says.
fn results(run: &Run) -> Option<Mount> {
    let volume = run.spec.output.as_ref()?.volume.as_ref()?;
    let folder = volume.path.as_deref().or(run.metadata.name.as_deref()).unwrap_or_default();
    Some(Mount::claim("output", OUTPUT_DIR, &volume.existing_claim).folder(folder))
}
