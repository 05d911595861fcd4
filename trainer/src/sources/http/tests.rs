//! Against servers on loopback that answer as a file server does, or break off, change, refuse.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring, pki_types::PrivateKeyDer};

use super::*;
use crate::sources::{
    Origin,
    testing::{Desk, Reply, Request, Server, contents},
};

const TEXT: &str = "text,label\nfine,good\ndull,bad\n";
const CSV: Wanted = Wanted::Table("csv");

fn origin(server: &Server) -> Origin {
    Origin::Http(Address { url: server.url("/data/mail.csv?key=secret"), sha256: None })
}

type Answering = fn(&Request) -> Reply;

/// Answers the first request with the first of these, and so on; the last one answers all that follow.
fn in_turn(answers: Vec<Answering>) -> impl Fn(&Request) -> Reply {
    let next = AtomicUsize::new(0);
    move |request| {
        let at = next.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        answers[at](request)
    }
}

fn read(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_file_is_brought_once_under_its_own_name_and_then_only_asked_for() {
    let server = Server::start(|request| Reply::file(request, TEXT, "\"a\""));
    let desk = Desk::new();
    let path = desk.fetch(&origin(&server), CSV).unwrap();
    assert_eq!((path.file_name().unwrap().to_str(), read(&path).as_str()), (Some("mail.csv"), TEXT));
    assert_eq!(server.requests()[0].target, "/data/mail.csv?key=secret");
    assert_eq!(desk.fetch(&origin(&server), CSV).unwrap(), path);
    let again = server.requests();
    assert_eq!((again.len(), again[0].header("if-none-match")), (1, Some("\"a\"")));
    // Nothing else is kept of it, and no secret in a name.
    let parts = path.ancestors().nth(2).unwrap().join("parts");
    assert_eq!(std::fs::read_dir(parts).unwrap().count(), 0);
    assert!(!path.display().to_string().contains("secret"));
}

#[test]
fn a_new_content_takes_the_place_of_the_old() {
    let server = Server::start(in_turn(vec![|request| Reply::file(request, TEXT, "\"a\""), |request| {
        Reply::file(request, "text,label\nnew,good\n", "\"b\"")
    }]));
    let desk = Desk::new();
    assert_eq!(read(&desk.fetch(&origin(&server), CSV).unwrap()), TEXT);
    assert_eq!(read(&desk.fetch(&origin(&server), CSV).unwrap()), "text,label\nnew,good\n");
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_was() {
    let server = Server::start(in_turn(vec![|request| Reply::file(request, TEXT, "\"a\"").cut(7), |request| {
        Reply::file(request, TEXT, "\"a\"")
    }]));
    let desk = Desk::new();
    assert_eq!(read(&desk.fetch(&origin(&server), CSV).unwrap()), TEXT);
    let second = &server.requests()[1];
    assert_eq!((second.header("range"), second.header("if-range")), (Some("bytes=7-"), Some("\"a\"")));
    assert_eq!(*desk.pauses.lock().unwrap(), [Duration::from_secs(1)]);
}

#[test]
fn another_process_goes_on_where_the_first_was_and_begins_anew_where_the_file_changed_since() {
    let first: Answering = |request| Reply::file(request, TEXT, "\"a\"").cut(7);
    let changed: Answering = |request| Reply::file(request, "text,label\nnew,bad\n", "\"b\"");
    let same: Answering = |request| Reply::file(request, TEXT, "\"a\"");
    for (then, content) in [(same, TEXT), (changed, "text,label\nnew,bad\n")] {
        let server = Server::start(in_turn(vec![first, then]));
        let mut desk = Desk::new();
        desk.access.tries = 1;
        let told = desk.error(&origin(&server), CSV);
        assert!(told.ends_with("/mail.csv breaks off after 7 of 30 bytes; what came is kept, try again"), "{told}");
        assert_eq!(read(&desk.fetch(&origin(&server), CSV).unwrap()), content);
        assert_eq!(server.requests()[1].header("range"), Some("bytes=7-"));
    }
}

#[test]
fn a_server_that_does_not_heed_the_guard_of_a_range_is_noticed_by_its_tag() {
    let server = Server::start(in_turn(vec![
        |request| Reply::file(request, TEXT, "\"a\"").cut(7),
        |_| {
            Reply { status: 206, ..Reply::body("another end") }
                .header("Content-Range", "bytes 7-17/18")
                .header("ETag", "\"b\"")
        },
        |request| Reply::file(request, "new", "\"b\""),
    ]));
    let mut desk = Desk::new();
    desk.access.tries = 1;
    assert!(desk.error(&origin(&server), CSV).contains("breaks off"));
    desk.access.tries = 2;
    assert_eq!(read(&desk.fetch(&origin(&server), CSV).unwrap()), "new");
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    let server = Server::start(in_turn(vec![|request| Reply::file(request, TEXT, "\"a\"").cut(7), |request| {
        Reply::file(request, TEXT, "\"b\"")
    }]));
    let told = Desk::new().error(&origin(&server), CSV);
    assert!(told.ends_with("/data/mail.csv changed while it was read; run again once nobody writes to it"), "{told}");
}

#[test]
fn a_weak_tag_is_no_reason_to_join_two_halves() {
    let server = Server::start(in_turn(vec![|request| Reply::file(request, TEXT, "W/\"a\"").cut(7), |request| {
        Reply::file(request, TEXT, "W/\"a\"")
    }]));
    assert_eq!(read(&Desk::new().fetch(&origin(&server), CSV).unwrap()), TEXT);
    assert_eq!(server.requests()[1].header("range"), None);
}

#[test]
fn a_server_that_always_breaks_off_is_given_up_and_what_came_is_kept() {
    let server = Server::start(|_| Reply::body(TEXT).cut(7));
    let desk = Desk::new();
    let told = desk.error(&origin(&server), CSV);
    assert!(told.contains("breaks off after 7 of 30 bytes"), "{told}");
    assert_eq!(server.requests().len(), 6);
    assert_eq!(desk.pauses.lock().unwrap().len(), 5);
}

#[test]
fn a_server_that_is_asked_too_often_is_left_alone_for_as_long_as_it_says() {
    let server = Server::start(in_turn(vec![
        |_| Reply::status(429).header("Retry-After", "20"),
        |_| Reply::status(503),
        |request| Reply::file(request, TEXT, "\"a\""),
    ]));
    let desk = Desk::new();
    assert_eq!(read(&desk.fetch(&origin(&server), CSV).unwrap()), TEXT);
    assert_eq!(*desk.pauses.lock().unwrap(), [20, 2].map(Duration::from_secs));
    let server = Server::start(|_| Reply::status(429).header("Retry-After", "3600"));
    let told = desk.error(&origin(&server), CSV);
    assert!(told.ends_with("the server has had too many requests and says to wait 3600 s; try again later"), "{told}");
}

#[test]
fn refusals_say_what_to_do_and_are_not_tried_again() {
    for (status, words) in [
        (401, "may not be read: the server wants to know who asks"),
        (403, "may not be read: the server wants to know who asks"),
        (404, "is not there: check the address"),
        (418, "the server answers what it should not: with status 418"),
    ] {
        let server = Server::start(move |_| Reply::status(status));
        let told = Desk::new().error(&origin(&server), CSV);
        assert!(told.starts_with(&server.url("/data/mail.csv")) && told.contains(words), "{told}");
        assert!(!told.contains("secret"), "{told}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn without_a_network_what_is_in_the_cache_is_used_and_said() {
    let desk = Desk::new();
    let server = Server::start(|request| Reply::file(request, TEXT, "\"a\""));
    let origin = origin(&server);
    let path = desk.fetch(&origin, CSV).unwrap();
    drop(server);
    assert_eq!(desk.fetch(&origin, CSV).unwrap(), path);
    let notes = desk.notes.lock().unwrap().join("\n");
    assert!(notes.contains("cannot be reached: ") && notes.contains("what was brought of http://"), "{notes}");
    // A file that is no longer as it was brought is not.
    std::fs::write(&path, "text,label\n").unwrap();
    let told = desk.error(&origin, CSV);
    assert!(told.ends_with("; check the address and the network, and try again"), "{told}");
}

#[test]
fn a_file_of_a_known_hash_is_checked_and_never_asked_for_again() {
    let server = Server::start(|request| Reply::file(request, TEXT, "\"a\""));
    let desk = Desk::new();
    let hash = |text: &str| fedtune_crds::hex(&<sha2::Sha256 as sha2::Digest>::digest(text));
    let origin = |sha256| Origin::Http(Address { url: server.url("/mail.csv"), sha256: Some(sha256) });
    let path = desk.fetch(&origin(hash(TEXT)), CSV).unwrap();
    assert_eq!(desk.fetch(&origin(hash(TEXT)), CSV).unwrap(), path);
    assert_eq!(server.requests().len(), 1);
    let told = desk.error(&origin(hash("other")), CSV);
    let words = format!("is not what it should be: its SHA-256 is {}, expected {}", hash(TEXT), hash("other"));
    assert!(told.ends_with(&words), "{told}");
}

#[test]
fn a_certificate_that_nobody_trusts_is_refused_with_what_to_do() {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let server = Server::start_with(
        |request| Reply::file(request, TEXT, "\"a\""),
        move |stream| {
            let tls = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
            Ok(Box::new(StreamOwned::new(tls, stream)))
        },
    );
    let url = format!("https://localhost:{}/mail.csv", server.address.port());
    let desk = Desk::new();
    let told = desk.error(&Origin::Http(Address { url: url.clone(), sha256: None }), CSV);
    assert!(told.starts_with(&format!("{url}: the server cannot be trusted: ")), "{told}");
    assert!(told.ends_with("name that CA's file in SSL_CERT_FILE"), "{told}");
    assert_eq!(desk.pauses.lock().unwrap().len(), 0);
}

#[test]
fn a_redirect_is_followed_but_not_in_a_circle() {
    let server = Server::start(|request| match request.target.as_str() {
        "/data/mail.csv?key=secret" => Reply::status(302).header("Location", "/elsewhere"),
        "/elsewhere" => Reply::file(request, TEXT, "\"a\""),
        _ => Reply::status(302).header("Location", "/round"),
    });
    let desk = Desk::new();
    assert_eq!(read(&desk.fetch(&origin(&server), CSV).unwrap()), TEXT);
    let told = desk.error(&Origin::Http(Address { url: server.url("/round.csv"), sha256: None }), CSV);
    assert!(told.ends_with("the server answers what it should not: it redirects in a circle"), "{told}");
}

#[test]
fn a_body_that_is_compressed_or_too_long_is_refused() {
    let server = Server::start(|_| Reply::body(TEXT).header("Content-Encoding", "gzip"));
    assert!(Desk::new().error(&origin(&server), CSV).contains("the file compressed as gzip"));
}

#[test]
fn what_one_file_cannot_be_is_refused_before_it_is_asked_for() {
    let server = Server::start(|_| Reply::status(200));
    let error =
        |path: &str, wanted| Desk::new().error(&Origin::Http(Address { url: server.url(path), sha256: None }), wanted);
    assert!(
        error("/model.safetensors", Wanted::Model).contains("a model there is a .gguf file, and its address ends so")
    );
    assert!(error("/mail.zip", Wanted::Folders).contains("format Folders is many"));
    assert!(error("/adapter", Wanted::Adapter).contains("an adapter is two"));
    assert!(error("/", CSV).ends_with("names no file: it ends with a host or a /"));
    assert!(error("?x", CSV).ends_with("names no file: it ends with a host or a /"));
    assert_eq!(server.requests().len(), 0);
    assert!(
        Desk::new().fetch(&Origin::Http(Address { url: server.url("/m.GGUF"), sha256: None }), Wanted::Model).is_ok()
    );
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let server = Server::start(|request| Reply::file(request, TEXT, "\"a\""));
    let desk = Desk::new();
    let taken = desk.cache.path().join("sources");
    std::fs::write(&taken, "a file where a folder should be").unwrap();
    let told = desk.error(&origin(&server), CSV);
    assert!(told.starts_with(&taken.display().to_string()), "{told}");
    assert!(told.ends_with("set --cache to a folder that this user may write to"), "{told}");
}

#[test]
fn without_a_cache_nothing_is_brought() {
    let fetcher = crate::sources::Fetcher::new(None, Desk::new().access, crate::events::Events::silent());
    let origin = Origin::Http(Address { url: "http://127.0.0.1:1/mail.csv".to_owned(), sha256: None });
    let told = fetcher.fetch(&origin, CSV).unwrap_err().to_string();
    assert_eq!(
        told,
        "http://127.0.0.1:1/mail.csv is not on this machine, and there is no folder to keep it in; set --cache to one"
    );
}

#[test]
fn one_call_asks_once_for_each_source() {
    let server = Server::start(in_turn(vec![|request| Reply::file(request, TEXT, "\"a\""), |request| {
        Reply::file(request, "changed", "\"b\"")
    }]));
    let desk = Desk::new();
    let fetcher = crate::sources::Fetcher::new(
        Some(desk.cache.path().to_owned()),
        desk.access.clone(),
        crate::events::Events::silent(),
    );
    let paths = [(); 2].map(|()| fetcher.fetch(&origin(&server), CSV).unwrap());
    assert_eq!((read(&paths[0]).as_str(), read(&paths[1]).as_str(), server.requests().len()), (TEXT, TEXT, 1));
    assert_eq!(contents(paths[0].parent().unwrap()).len(), 1);
}
