//! Does what was decided, in that order, up to the first step that is hindered.
//! Must not decide.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::{
    Context,
    apply::{Apply, objects},
    build::{self, Children, Run, run_hash},
    child::{Child, Kind, expected},
    decide::{Act, current_attempt},
    hindrance::Hindrance,
    observe::Observed,
    status::{begun, write::write},
    validate::validate,
    why::Trouble,
};

/// Carries `acts` out.
pub(super) async fn carry_out(
    run: &Run,
    seen: &Observed,
    acts: &[Act],
    context: &Context,
    now: Timestamp,
) -> Result<(), Hindrance> {
    let apply = Apply::new(&context.client, &context.memories, run, now);
    for act in acts {
        match act {
            Act::Begin => begin(run, context, now).await?,
            Act::Complete => complete(run, seen, context, now).await?,
            Act::Renew => apply.renew().await?,
            Act::Suspend { job, suspend } => apply.suspend(job, *suspend).await?,
            Act::DeleteJob { name, uid } => apply.delete_job(name, uid).await?,
            Act::DeleteRun => apply.delete_run().await?,
        }
    }
    Ok(())
}

/// Checks all that can be checked, then freezes the spec, then makes the children. From the freezing on, an edit of the
/// spec is refused by the API server, so that none can slip in between.
async fn begin(run: &Run, context: &Context, now: Timestamp) -> Result<(), Hindrance> {
    let children = build::children(run, &context.settings)?;
    validate(run, &children, &context.client).await?;
    let before = run.status.clone().unwrap_or_default();
    let run = write(&context.client, &context.memories, run, begun(run, &run_hash(run), now)).await?;
    context.events.tell(&run, &before, run.status.as_ref().unwrap_or(&before)).await;
    let all = everything(&run, &children);
    Apply::new(&context.client, &context.memories, &run, now).make(&children, &all).await
}

/// Makes what is missing of a run that has begun, as it was when it began.
async fn complete(run: &Run, seen: &Observed, context: &Context, now: Timestamp) -> Result<(), Hindrance> {
    let run = &at_its_attempt(run);
    let apply = Apply::new(&context.client, &context.memories, run, now);
    let frozen = match &seen.config_map {
        Some(name) => apply.frozen(name).await?,
        None => as_it_began(run, seen)?,
    };
    let children = build::children(&frozen, &context.settings)?;
    check_the_rebuilt(&children, seen)?;
    let rebuilt = Child { kind: Kind::ConfigMap, name: children.config_map.name_any() };
    let named = |child: &Child| if child.kind == Kind::ConfigMap { rebuilt.clone() } else { child.clone() };
    let missing: Vec<_> = seen.missing.iter().map(named).collect();
    apply.make(&children, &missing).await
}

/// An attempt that was raised in mid-run waits until the present one has failed.
fn at_its_attempt(run: &Run) -> Run {
    let mut run = run.clone();
    run.spec.attempt = current_attempt(&run);
    run
}

/// The run without its `ConfigMap`: the spec is frozen, and what is in use tells the image.
fn as_it_began(run: &Run, seen: &Observed) -> Result<Run, Hindrance> {
    let hash = run.status.as_ref().and_then(|status| status.run_hash.as_deref());
    if hash.is_some_and(|hash| hash != run_hash(run)) {
        let sentence =
            "the spec is not the one that the run began with, by status.runHash; give a new resource the new values";
        return Err(Hindrance::Refused(Trouble::new("RunHashDiffers", sentence)));
    }
    let mut run = run.clone();
    if let Some(image) = seen.server.as_ref().and_then(|server| server.image.clone()) {
        run.spec.image = Some(image);
    }
    Ok(run)
}

/// A pod mounts its `ConfigMap` by the hash of what is in it, so another content would never be found.
fn check_the_rebuilt(children: &Children, seen: &Observed) -> Result<(), Hindrance> {
    let rebuilt = children.config_map.name_any();
    let mounted = seen.server.as_ref().and_then(|server| server.config_map.as_ref());
    match mounted.filter(|mounted| seen.config_map.is_none() && **mounted != rebuilt) {
        None => Ok(()),
        Some(mounted) => {
            let sentence = format!(
                "ConfigMap {mounted} was deleted, and this operator would write it differently ({rebuilt}); \
                 restore it, or delete the run's Jobs to have them made anew"
            );
            Err(Hindrance::Refused(Trouble::new("ConfigMapLost", sentence)))
        }
    }
}

/// All children that a run begins with.
fn everything(run: &Run, children: &Children) -> Vec<Child> {
    let made_by_build = objects(children).into_iter().map(|(child, _)| child);
    let secrets = expected(run).into_iter().filter(|child| child.kind == Kind::Secret);
    made_by_build.chain(secrets).collect()
}
