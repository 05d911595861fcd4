//! The run's CA and the certificates that it signs, as Secrets: made once, renewed at two thirds of their life.
//! Must not mount or print a key.

use fedtune_crds::server::ExposeKind;
use k8s_openapi::{
    ByteString,
    api::core::v1::{Secret, Service, ServiceStatus},
    jiff::Timestamp,
};
use kube::{Api, ResourceExt, api::PostParams};
use rcgen::KeyPair;

use super::{Apply, object};
use crate::{
    authority::{Authority, Bundle, Name, new_key, read_key},
    controller::{
        build::{groups, names, secret},
        child::{Child, Kind},
        hindrance::Hindrance,
        why::Trouble,
    },
};

/// When a certificate shall be renewed: caches hold a Secret's annotations and not the certificate.
pub const RENEW_AT: &str = "fedtune.io/renew-at";

/// A certificate lasts 90 days; after two thirds of them it is renewed.
const RENEWED_AFTER_SECONDS: i64 = 60 * 24 * 60 * 60;

/// Where clients from outside dial the server.
struct Outside {
    /// Names or addresses, the first of which goes into join bundles.
    hosts: Vec<String>,
    port: u16,
}

/// Who has a certificate.
#[derive(Clone, Copy)]
enum Paper<'a> {
    /// The server.
    Server,
    /// A group whose clients are pods.
    Managed(&'a str),
    /// A group whose clients join from outside.
    External(&'a str),
}

impl Apply<'_> {
    /// Makes the certificates that are `missing`. Where the CA itself was lost, all are made anew: an old one would not
    /// be believed by who knows the new CA only.
    pub(super) async fn make_certificates(self, missing: &[Child]) -> Result<(), Hindrance> {
        let lost = is_missing(missing, &names::ca(self.run));
        if lost {
            self.new_authority().await?;
        }
        let papers: Vec<_> =
            self.papers().into_iter().filter(|paper| lost || is_missing(missing, &self.name_of(*paper))).collect();
        if papers.is_empty() {
            return Ok(());
        }
        let (authority, outside) = (self.authority().await?, self.outside().await?);
        for paper in papers {
            if is_missing(missing, &self.name_of(paper)) {
                let (child, body) = object(Kind::Secret, &self.issue(paper, &authority, &outside, &new_key()?)?);
                self.make_one(&child, &body).await?;
            } else {
                self.renew_one(paper, &authority, &outside).await?;
            }
        }
        Ok(())
    }

    /// Makes the join bundles that are `missing`, once there is an address to dial.
    pub(super) async fn make_join_bundles(self, missing: &[Child]) -> Result<(), Hindrance> {
        let bundles: Vec<_> =
            self.bundles().into_iter().filter(|paper| is_missing(missing, &self.name_of(*paper))).collect();
        if bundles.is_empty() {
            return Ok(());
        }
        let (authority, outside) = (self.authority().await?, self.outside().await?);
        if outside.hosts.is_empty() {
            return Err(self.no_address());
        }
        // An address that the cluster gave after the server's certificate was made is not in that yet.
        self.renew_one(Paper::Server, &authority, &outside).await?;
        for paper in bundles {
            let (child, body) = object(Kind::Secret, &self.issue(paper, &authority, &outside, &new_key()?)?);
            self.make_one(&child, &body).await?;
        }
        Ok(())
    }

    /// Makes all certificates anew, signed by the same CA; pods read the files again at each handshake.
    ///
    /// # Errors
    /// Where the CA cannot be read or a Secret not written.
    pub async fn renew(self) -> Result<(), Hindrance> {
        let (authority, outside) = (self.authority().await?, self.outside().await?);
        for paper in self.papers().into_iter().chain(self.bundles()) {
            self.renew_one(paper, &authority, &outside).await?;
        }
        Ok(())
    }

    /// A new certificate for the key that is there: whoever reads the two files while they are exchanged has a pair that
    /// fits.
    async fn renew_one(self, paper: Paper<'_>, authority: &Authority, outside: &Outside) -> Result<(), Hindrance> {
        let name = self.name_of(paper);
        let child = Child { kind: Kind::Secret, name: name.clone() };
        self.must_be_ours(&child).await?;
        let found = self.secrets().get(&name).await;
        let found = found.map_err(|error| Hindrance::of(format!("{child} cannot be read"), error))?;
        let key = match paper {
            Paper::Server | Paper::Managed(_) => text(&found, secret::KEY),
            Paper::External(_) => text(&found, secret::JOIN).and_then(|text| Some(Bundle::read(text.as_bytes())?.key)),
        };
        let key = key.and_then(|pem| read_key(&pem).ok()).map_or_else(new_key, Ok)?;
        let renewed = self.issue(paper, authority, outside, &key)?;
        let replaced = self.secrets().replace(&name, &PostParams::default(), &renewed).await;
        replaced.map(drop).map_err(|error| Hindrance::of(format!("{child} cannot be renewed"), error))
    }

    /// Stores a new CA. Whoever stored one first wins.
    async fn new_authority(self) -> Result<(), Hindrance> {
        let authority = Authority::new(new_key()?, self.now.into())?;
        let (child, body) = object(Kind::Secret, &secret::ca(self.run, &authority));
        self.make_one(&child, &body).await
    }

    /// The CA in its Secret.
    async fn authority(self) -> Result<Authority, Hindrance> {
        let name = names::ca(self.run);
        let found = self.secrets().get(&name).await;
        let found = found.map_err(|error| Hindrance::of(format!("Secret {name} cannot be read"), error))?;
        let incomplete = || {
            let sentence = format!("Secret {name} is no CA; delete it to have another made");
            Hindrance::Refused(Trouble::new("Certificate", sentence))
        };
        let cert = text(&found, secret::CERT).ok_or_else(incomplete)?;
        let key = text(&found, secret::KEY).ok_or_else(incomplete)?;
        Ok(Authority::from_pem(cert, &key)?)
    }

    /// The server and the managed groups.
    fn papers(&self) -> Vec<Paper<'_>> {
        let groups = groups::managed(self.run).map(|(_, group)| Paper::Managed(&group.name));
        std::iter::once(Paper::Server).chain(groups).collect()
    }

    /// The groups that join from outside.
    fn bundles(&self) -> Vec<Paper<'_>> {
        groups::external(self.run).map(|(_, group)| Paper::External(&group.name)).collect()
    }

    fn name_of(self, paper: Paper<'_>) -> String {
        match paper {
            Paper::Server => names::server_tls(self.run),
            Paper::Managed(group) => names::tls(self.run, group),
            Paper::External(group) => names::join(self.run, group),
        }
    }

    /// The Secret with a certificate for `key`.
    fn issue(
        self,
        paper: Paper<'_>,
        authority: &Authority,
        outside: &Outside,
        key: &KeyPair,
    ) -> Result<Secret, Hindrance> {
        let now = self.now.into();
        let of_group = |group: &str| authority.certify(&self.group(group), &[], key, now);
        let secret = match paper {
            Paper::Server => {
                let mut hosts = names::server_hosts(self.run);
                hosts.extend(outside.hosts.iter().filter(|host| !hosts.contains(host)).cloned().collect::<Vec<_>>());
                let leaf = authority.certify(&Name::Server { run: self.uid() }, &hosts, key, now)?;
                secret::server(self.run, authority, &leaf)
            }
            Paper::Managed(group) => secret::group(self.run, group, authority, &of_group(group)?),
            Paper::External(group) => {
                let host = outside.hosts.first().ok_or_else(|| self.no_address())?;
                let bundle = Bundle::new(&self.uid(), group, (host, outside.port), authority, &of_group(group)?);
                secret::join(self.run, group, &bundle.to_json())
            }
        };
        Ok(self.dated(secret))
    }

    fn group(self, group: &str) -> Name {
        Name::Group { run: self.uid(), group: group.to_owned() }
    }

    fn dated(self, mut secret: Secret) -> Secret {
        let renew_at = Timestamp::from_second(self.now.as_second() + RENEWED_AFTER_SECONDS).unwrap_or(Timestamp::MAX);
        secret.annotations_mut().insert(RENEW_AT.to_owned(), renew_at.to_string());
        secret
    }

    /// What the spec says of it, else what the cluster gave the Service.
    async fn outside(self) -> Result<Outside, Hindrance> {
        let Some(expose) = &self.run.spec.server.expose else { return Ok(Outside { hosts: Vec::new(), port: 0 }) };
        let name = names::exposed(self.run);
        let services: Api<Service> = Api::namespaced(self.client.clone(), &self.namespace());
        let found = services.get_opt(&name).await;
        let found = found.map_err(|error| Hindrance::of(format!("Service {name} cannot be read"), error))?;
        let given = found.as_ref().and_then(|service| service.status.as_ref()).map(addresses).unwrap_or_default();
        let hosts = if expose.hosts.is_empty() { given } else { expose.hosts.clone() };
        let ports = found.and_then(|service| service.spec?.ports).unwrap_or_default();
        let port = match expose.kind {
            ExposeKind::LoadBalancer => names::GRPC_PORT,
            ExposeKind::NodePort => {
                ports.first().and_then(|port| u16::try_from(port.node_port?).ok()).unwrap_or(names::GRPC_PORT)
            }
        };
        Ok(Outside { hosts, port })
    }

    fn no_address(self) -> Hindrance {
        let sentence = format!(
            "Service {} has no address yet, which the join bundles of external groups need; \
             where the cluster gives none, a new resource names one in spec.server.expose.hosts",
            names::exposed(self.run)
        );
        Hindrance::Waiting(Trouble::new("AddressMissing", sentence))
    }

    fn secrets(self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace())
    }
}

fn is_missing(missing: &[Child], name: &str) -> bool {
    missing.iter().any(|child| child.kind == Kind::Secret && child.name == name)
}

/// When the certificate in a Secret is to be renewed, by the annotation.
pub fn renew_at(secret: &impl ResourceExt) -> Option<Timestamp> {
    secret.annotations().get(RENEW_AT)?.parse().ok()
}

/// What a load balancer gave a Service.
fn addresses(status: &ServiceStatus) -> Vec<String> {
    let ingress = status.load_balancer.iter().flat_map(|balancer| balancer.ingress.iter().flatten());
    ingress.filter_map(|ingress| ingress.hostname.clone().or_else(|| ingress.ip.clone())).collect()
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let ByteString(bytes) = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.clone()).ok()
}
