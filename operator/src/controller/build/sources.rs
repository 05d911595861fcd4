//! Which sources a pod reads, so that it gets their secrets and may reach them, and no others.
//! Must not read one: the trainer does, by the same rules.

use fedtune_crds::{
    FederatedFineTuneSpec,
    clients::Group,
    data::HeldOut,
    source::{S3, Source},
};

/// A source and where in the spec it stands.
pub(super) type Placed<'a> = (String, &'a Source);

/// What the server reads: the model, what everyone is judged on, and all data where it trains itself.
pub(super) fn of_server(spec: &FederatedFineTuneSpec) -> Vec<Placed<'_>> {
    let central = spec.framework.central.is_some();
    let groups = spec.clients.groups.iter().enumerate().filter(|_| central);
    let mut read = of_everyone(spec);
    read.extend(evaluation(spec));
    if central || holds_out(spec, true) {
        read.push(common(spec));
    }
    read.extend(groups.filter_map(|(index, group)| own(index, group)));
    read
}

/// What the clients of a group read: the model, their own data, and what is public.
pub(super) fn of_group(spec: &FederatedFineTuneSpec, index: usize) -> Vec<Placed<'_>> {
    let own = own(index, &spec.clients.groups[index]);
    let evaluates = clients_evaluate(spec);
    let mut read = of_everyone(spec);
    read.extend(evaluation(spec).filter(|_| evaluates));
    if own.is_none() || holds_out(spec, evaluates) {
        read.push(common(spec));
    }
    read.extend(own);
    read
}

fn of_everyone(spec: &FederatedFineTuneSpec) -> Vec<Placed<'_>> {
    let adapter = spec.tuning.lora.initial_adapter.as_ref();
    let public = spec.data.public.as_ref().and_then(|public| public.source.as_ref());
    [
        Some(("spec.model.source".to_owned(), &spec.model.source)),
        adapter.map(|adapter| ("spec.tuning.lora.initialAdapter".to_owned(), adapter)),
        public.map(|public| ("spec.data.public.source".to_owned(), public)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn evaluation(spec: &FederatedFineTuneSpec) -> Option<Placed<'_>> {
    Some(("spec.data.evaluation.source".to_owned(), spec.data.evaluation.source.as_ref()?))
}

fn common(spec: &FederatedFineTuneSpec) -> Placed<'_> {
    ("spec.data.source".to_owned(), &spec.data.source)
}

fn own(index: usize, group: &Group) -> Option<Placed<'_>> {
    Some((format!("spec.clients.groups[{index}].data.source"), &group.data.as_ref()?.source))
}

/// Whether a pod takes public or, where it evaluates, held-out examples out of the common source.
fn holds_out(spec: &FederatedFineTuneSpec, evaluates: bool) -> bool {
    let of_source = |held_out: &HeldOut| held_out.source.is_none();
    (evaluates && of_source(&spec.data.evaluation)) || spec.data.public.as_ref().is_some_and(of_source)
}

/// Whether clients judge models of their own.
fn clients_evaluate(spec: &FederatedFineTuneSpec) -> bool {
    spec.framework.kd_fed_llm.is_some() || spec.framework.local_only.is_some()
}

/// TCP ports by which `sources` and a store are reached: that of each address, 443 where it names none.
pub(super) fn remote_ports(sources: &[Placed<'_>], output: Option<&S3>) -> Vec<u16> {
    let mut ports: Vec<u16> =
        sources.iter().filter_map(|(_, source)| remote_port(source)).chain(output.map(store_port)).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn remote_port(source: &Source) -> Option<u16> {
    match source {
        Source { hugging_face: Some(_), .. } => Some(HTTPS),
        Source { http: Some(http), .. } => Some(port_of(&http.url)),
        Source { s3: Some(store), .. } => Some(store_port(store)),
        Source { path: _, hugging_face: None, http: None, s3: None } => None,
    }
}

const HTTP: u16 = 80;
const HTTPS: u16 = 443;

fn store_port(store: &S3) -> u16 {
    store.endpoint.as_deref().map_or(HTTPS, port_of)
}

/// The port in `http[s]://[user@]host[:port][/path]`.
fn port_of(url: &str) -> u16 {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    // An address of version 6 has colons of its own, in brackets.
    let after = host.rsplit(']').next().unwrap_or_default();
    let named = after.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    named.unwrap_or(if scheme == "http" { HTTP } else { HTTPS })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_reached_by_the_port_that_it_names_or_its_schemes_own() {
        for (url, port) in [
            ("https://example.com/a:1/b", 443),
            ("http://example.com", 80),
            ("http://minio.storage:9000/bucket", 9000),
            ("https://[2001:db8::1]:8443/", 8443),
            ("https://[2001:db8::1]/", 443),
            ("https://user:7@example.com?x=:9", 443),
        ] {
            assert_eq!(port_of(url), port, "{url}");
        }
    }
}
