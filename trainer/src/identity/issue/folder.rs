//! A folder of certificates for one run: made once, renewed under the same CA and the same keys each time after.
//! Must not leave a file half written, a certificate beside another's key, or a key that others can read.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rcgen::KeyPair;

use super::{Authority, IssueError, Validity};
use crate::{
    durable::{write_private, write_whole},
    identity::{Bundle, Name, PapersError, papers},
};

/// What certificates a run needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The run: its uid where it has one, else its name.
    pub run: String,
    /// Its groups.
    pub groups: Vec<String>,
    /// Names and addresses of the server beside this machine's own; clients are sent to the first.
    pub hosts: Vec<String>,
    /// The server's port.
    pub port: u16,
    /// Days that a certificate lasts, the CA's apart.
    pub days: u32,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Whether the CA was there already.
    pub renewed: bool,
    /// The server's folder.
    pub server: PathBuf,
    /// Each group with its folder and its join bundle.
    pub groups: Vec<(String, PathBuf, PathBuf)>,
    /// Where the bundles send clients.
    pub url: String,
}

/// Hosts that every server's certificate names.
const THIS_MACHINE: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Makes, or renews, all that `order` asks for below `folder`.
///
/// A certificate is renewed for the key that is there, so that one rename renews it; whoever wants another key removes
/// the old one first.
pub fn issue(folder: &Path, order: &Order, now: SystemTime) -> Result<Issued, IssueError> {
    if let Some(group) = order.groups.iter().find(|group| ["ca", "server"].contains(&group.as_str())) {
        return Err(IssueError::Group { group: group.clone() });
    }
    let (authority, renewed) = authority(&folder.join("ca"), now)?;
    let validity = Validity::days(order.days, now);
    let url = url(order);
    let server = folder.join("server");
    let this_machine = THIS_MACHINE.map(str::to_owned);
    let hosts: Vec<String> = this_machine.iter().chain(&order.hosts).cloned().collect();
    certify(&authority, &server, &Name::Server { run: order.run.clone() }, &hosts, validity)?;
    let mut groups = Vec::new();
    for group in &order.groups {
        let name = Name::Group { run: order.run.clone(), group: group.clone() };
        let own = folder.join(group);
        let (cert, key) = certify(&authority, &own, &name, &[], validity)?;
        let bundle = Bundle::new(&order.run, group, &url, authority.cert().to_owned(), cert, key);
        let path = folder.join(format!("{group}.join"));
        write(write_private, &path, &bundle.to_json())?;
        groups.push((group.clone(), own, path));
    }
    Ok(Issued { renewed, server, groups, url })
}

/// The CA in `folder`, and whether it was there already.
fn authority(folder: &Path, now: SystemTime) -> Result<(Authority, bool), IssueError> {
    let (cert, key_file) = (folder.join("cert.pem"), folder.join("key.pem"));
    if !cert.exists() {
        let authority = Authority::new(key(&key_file)?, now)?;
        write(write_whole, &cert, authority.cert())?;
        return Ok((authority, false));
    }
    let refused = |reason: String| IssueError::Authority { cert: cert.clone(), key: key_file.clone(), reason };
    let pem = fs::read_to_string(&cert).map_err(|reason| IssueError::File { path: cert.clone(), reason })?;
    let pair = read_key(&key_file)?.ok_or_else(|| refused("the key is not there".to_owned()))?;
    let authority = Authority::from_pem(pem, pair);
    let probe = Name::Group { run: "probe".to_owned(), group: "probe".to_owned() };
    let probe = authority.certify(&probe, &[], &KeyPair::generate()?, Validity::days(1, now))?;
    papers::check_authority(authority.cert(), &probe, now).map_err(|error| match error {
        PapersError::Expired { date, .. } => IssueError::Expired { path: cert.clone(), date },
        other => refused(other.to_string()),
    })?;
    Ok((authority, true))
}

/// Writes key, certificate and CA of `name` into `folder`; returns certificate and key.
fn certify(
    authority: &Authority,
    folder: &Path,
    name: &Name,
    hosts: &[String],
    validity: Validity,
) -> Result<(String, String), IssueError> {
    let pair = key(&folder.join("key.pem"))?;
    let cert = authority.certify(name, hosts, &pair, validity)?;
    write(write_whole, &folder.join("ca.pem"), authority.cert())?;
    write(write_whole, &folder.join("cert.pem"), &cert)?;
    Ok((cert, pair.serialize_pem()))
}

/// The key in `path`, or a new one that is there from now on.
fn key(path: &Path) -> Result<KeyPair, IssueError> {
    if let Some(key) = read_key(path)? {
        return Ok(key);
    }
    let key = KeyPair::generate()?;
    write(write_private, path, &key.serialize_pem())?;
    Ok(key)
}

fn read_key(path: &Path) -> Result<Option<KeyPair>, IssueError> {
    match fs::read_to_string(path) {
        Ok(pem) => match KeyPair::from_pem(&pem) {
            Ok(key) => Ok(Some(key)),
            Err(reason) => Err(IssueError::Key { path: path.to_owned(), reason }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(reason) => Err(IssueError::File { path: path.to_owned(), reason }),
    }
}

fn write(how: fn(&Path, &[u8]) -> io::Result<()>, path: &Path, text: &str) -> Result<(), IssueError> {
    how(path, text.as_bytes()).map_err(|reason| IssueError::File { path: path.to_owned(), reason })
}

fn url(order: &Order) -> String {
    let host = order.hosts.first().map_or("localhost", String::as_str);
    if host.contains(':') {
        format!("https://[{host}]:{}", order.port)
    } else {
        format!("https://{host}:{}", order.port)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::identity::Source;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn order() -> Order {
        let groups = vec!["silo-a".to_owned(), "silo-b".to_owned()];
        Order { run: "mail".to_owned(), groups, hosts: vec!["server.example".to_owned()], port: 7443, days: 90 }
    }

    fn files(folder: &Path) -> Source {
        let [cert, key, ca] = ["cert.pem", "key.pem", "ca.pem"].map(|file| folder.join(file));
        Source::Files { cert, key, ca }
    }

    #[test]
    fn what_is_issued_can_be_read_as_files_and_as_bundles_and_outlives_neither_its_days_nor_its_ca() {
        let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
        let issued = issue(folder.path(), &order(), now).unwrap();
        assert!(!issued.renewed);
        assert_eq!(issued.url, "https://server.example:7443");
        let server = files(&issued.server).read(now).unwrap();
        assert_eq!(*server.name(), Name::Server { run: "mail".to_owned() });
        assert!(server.not_after() > now + 89 * DAY && server.not_after() < now + 91 * DAY);
        for (group, own, bundle) in &issued.groups {
            let expected = Name::Group { run: "mail".to_owned(), group: group.clone() };
            assert_eq!(*files(own).read(now).unwrap().name(), expected);
            assert_eq!(*Source::Bundle(bundle.clone()).read(now).unwrap().name(), expected);
            let bundle = Bundle::read(bundle).unwrap();
            assert_eq!([bundle.run.as_str(), &bundle.group, &bundle.server], ["mail", group, &issued.url]);
        }
        let late = issue(folder.path(), &order(), now + 3700 * DAY).unwrap_err().to_string();
        assert!(late.contains(" expired on ") && late.contains("have another made"), "{late}");
    }

    #[test]
    fn renewing_keeps_the_ca_and_the_keys() {
        let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
        let first = issue(folder.path(), &order(), now).unwrap();
        let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
        let kept = ["ca/cert.pem", "ca/key.pem", "server/key.pem", "silo-a/key.pem", "silo-b/key.pem"];
        let (kept_before, cert_before) = (kept.map(read), read("silo-a/cert.pem"));
        let later = now + 80 * DAY;
        let renewed = issue(folder.path(), &order(), later).unwrap();
        assert_eq!(renewed, Issued { renewed: true, ..first });
        assert_eq!(kept.map(read), kept_before);
        assert_ne!(read("silo-a/cert.pem"), cert_before);
        let papers = files(&renewed.server).read(later).unwrap();
        assert!(papers.not_after() > later + 89 * DAY);
    }

    #[test]
    fn a_folder_that_was_left_half_made_is_finished() {
        let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
        issue(folder.path(), &order(), now).unwrap();
        fs::remove_file(folder.path().join("ca/cert.pem")).unwrap();
        fs::remove_file(folder.path().join("silo-a/cert.pem")).unwrap();
        let issued = issue(folder.path(), &order(), now).unwrap();
        assert!(!issued.renewed, "a key without a certificate is no CA yet");
        files(&issued.server).read(now).unwrap();
        files(&issued.groups[0].1).read(now).unwrap();
    }

    #[test]
    fn a_ca_with_anothers_key_and_a_host_that_is_none_are_refused() {
        let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
        issue(folder.path(), &order(), now).unwrap();
        fs::copy(folder.path().join("server/key.pem"), folder.path().join("ca/key.pem")).unwrap();
        let error = issue(folder.path(), &order(), now).unwrap_err();
        assert!(matches!(error, IssueError::Authority { .. }), "{error}");
        let odd = Order { hosts: vec!["http://a".to_owned()], ..order() };
        let error = issue(&folder.path().join("other"), &odd, now).unwrap_err();
        assert_eq!(error.to_string(), "\"http://a\" is neither a host's name nor an IP address");
    }

    #[test]
    fn a_group_does_not_get_the_cas_folder() {
        let folder = tempfile::tempdir().unwrap();
        let order = Order { groups: vec!["ca".to_owned()], ..order() };
        let error = issue(folder.path(), &order, SystemTime::now()).unwrap_err();
        assert!(matches!(error, IssueError::Group { .. }), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn keys_and_bundles_are_their_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        issue(folder.path(), &order(), SystemTime::now()).unwrap();
        for file in ["ca/key.pem", "server/key.pem", "silo-a/key.pem", "silo-a.join"] {
            let mode = fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }
}
