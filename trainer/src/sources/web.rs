//! The HTTP client of all sources, and what its answers and errors mean.
//! Must not use the process's default TLS provider, nor follow a redirect from https to http.

use std::{error::Error, io, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};
use reqwest::{
    Client, ClientBuilder, RequestBuilder, Response, StatusCode, Url,
    header::{
        ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName,
        IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE, RETRY_AFTER,
    },
    redirect::{Attempt, Policy},
};
use rustls::{CertificateError, ClientConfig, RootCertStore, crypto::ring};

use super::{
    SourceError,
    download::{Answer, Ask},
    hold::Version,
    tries::{Again, Fault},
};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(15);
/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// Redirects that are followed.
const REDIRECTS: usize = 10;

/// What is said of a status, by source.
#[derive(Debug, Clone)]
pub(super) struct Words {
    /// What to do about 401 and 403.
    pub(super) denied: String,
    /// What to do about 404.
    pub(super) missing: String,
    /// What to do about 404 with these values of `X-Error-Code`.
    pub(super) codes: &'static [(&'static str, &'static str)],
    /// What helps against 429; begins with `, ` or is empty.
    pub(super) busy: &'static str,
}

/// What drives one call that blocks.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, SourceError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| SourceError::Network(error.to_string()))
}

/// A client for servers such as that of `url`. This machine's own servers are not asked by way of a proxy.
pub(super) fn client(url: &str, redirects: bool) -> Result<Client, SourceError> {
    let policy = if redirects { Policy::custom(follow) } else { Policy::none() };
    let builder = Client::builder()
        .tls_backend_preconfigured(tls()?)
        .redirect(policy)
        // Whoever is redirected to need not know the address that signatures stand in.
        .referer(false)
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .user_agent(concat!("fedtune/", env!("CARGO_PKG_VERSION")));
    let builder = if is_loopback(url) { ClientBuilder::no_proxy(builder) } else { builder };
    builder.build().map_err(|error| SourceError::Network(deepest(&error)))
}

/// TLS on ring, with the CAs that this machine trusts.
fn tls() -> Result<ClientConfig, SourceError> {
    let mut roots = RootCertStore::empty();
    // Where some cannot be read, the others may do; where none can, the handshake says so.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| SourceError::Network(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn is_loopback(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let was_https = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if was_https && attempt.url().scheme() != "https" {
        return attempt.error("it redirects from https to http");
    }
    if attempt.previous().len() > REDIRECTS {
        return attempt.error("it redirects in a circle");
    }
    attempt.follow()
}

/// Asks for a file by a GET that is made already.
pub(super) async fn open(request: RequestBuilder, ask: &Ask<'_>, what: &str, words: &Words) -> Result<Answer, Fault> {
    // What is stored and hashed are the file's bytes, not a compressed form of them.
    let request = conditions(request.header(ACCEPT_ENCODING, "identity"), ask);
    let response = request.send().await.map_err(|error| fault(&error, what))?;
    let headers = response.headers();
    if let Some(encoding) = text(headers, &CONTENT_ENCODING).filter(|encoding| encoding != "identity") {
        let why = format!("the file compressed as {encoding}, which it was asked not to do");
        return Err(SourceError::Odd { what: what.to_owned(), why }.into());
    }
    let version = |length| Version { etag: text(headers, &ETAG), modified: text(headers, &LAST_MODIFIED), length };
    match response.status() {
        StatusCode::OK => {
            let length = text(headers, &CONTENT_LENGTH).and_then(|length| length.parse().ok());
            Ok(Answer::Content { version: version(length), from: 0, body: body(response, what.to_owned()) })
        }
        StatusCode::PARTIAL_CONTENT => {
            let range = text(headers, &CONTENT_RANGE).unwrap_or_default();
            let Some((from, length)) = parse_range(&range) else {
                let why = format!("a part of the file without saying which: {range:?}");
                return Err(SourceError::Odd { what: what.to_owned(), why }.into());
            };
            Ok(Answer::Content { version: version(length), from, body: body(response, what.to_owned()) })
        }
        StatusCode::NOT_MODIFIED if ask.known.is_some() => Ok(Answer::Unchanged),
        StatusCode::RANGE_NOT_SATISFIABLE if ask.from > 0 => Ok(Answer::Beyond),
        status => Err(refusal(status, headers, what, words)),
    }
}

fn conditions(request: RequestBuilder, ask: &Ask<'_>) -> RequestBuilder {
    if ask.from > 0 {
        let request = request.header(RANGE, format!("bytes={}-", ask.from));
        return match ask.part.guard() {
            Some(guard) => request.header(IF_RANGE, guard),
            None => request,
        };
    }
    match ask.known {
        Some(Version { etag: Some(etag), .. }) => request.header(IF_NONE_MATCH, etag),
        Some(Version { modified: Some(modified), .. }) => request.header(IF_MODIFIED_SINCE, modified),
        Some(_) | None => request,
    }
}

/// The first byte and the length of the whole of `bytes 5-9/10` (RFC 9110, 14.4); a length of `*` is not known.
fn parse_range(range: &str) -> Option<(u64, Option<u64>)> {
    let (bytes, length) = range.strip_prefix("bytes ")?.split_once('/')?;
    let from = bytes.split_once('-')?.0.parse().ok()?;
    if length == "*" { Some((from, None)) } else { Some((from, Some(length.parse().ok()?))) }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn body(response: Response, what: String) -> BoxStream<'static, Result<Bytes, Fault>> {
    let next = move |mut response: Response| {
        let what = what.clone();
        async move {
            let chunk = response.chunk().await.map_err(|error| fault(&error, &what))?;
            Ok(chunk.map(|chunk| (chunk, response)))
        }
    };
    stream::try_unfold(response, next).boxed()
}

/// The body of an answer that is read whole, of at most `most` bytes.
pub(super) async fn whole(request: RequestBuilder, most: usize, what: &str, words: &Words) -> Result<Vec<u8>, Fault> {
    let mut response = request.send().await.map_err(|error| fault(&error, what))?;
    if !response.status().is_success() {
        return Err(refusal(response.status(), response.headers(), what, words));
    }
    let mut whole = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| fault(&error, what))? {
        whole.extend_from_slice(&chunk);
        if whole.len() > most {
            let why = format!("more than {most} bytes where a list is expected");
            return Err(SourceError::Odd { what: what.to_owned(), why }.into());
        }
    }
    Ok(whole)
}

/// What a status that is no success means.
pub(super) fn refusal(status: StatusCode, headers: &HeaderMap, what: &str, words: &Words) -> Fault {
    let what = what.to_owned();
    let asked = text(headers, &RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
    let again = asked.map_or(Again::Soon, Again::After);
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            SourceError::Denied { what, help: words.denied.clone() }.into()
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            let code = text(headers, &HeaderName::from_static("x-error-code"));
            let known = words.codes.iter().find(|(name, _)| code.as_deref() == Some(name));
            let help = known.map_or_else(|| words.missing.clone(), |(_, help)| (*help).to_owned());
            SourceError::Missing { what, help }.into()
        }
        StatusCode::TOO_MANY_REQUESTS => {
            let wait = asked.map_or_else(|| "a while".to_owned(), |asked| format!("{} s", asked.as_secs()));
            Fault { error: SourceError::Busy { what, wait, help: words.busy }, again }
        }
        status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
            Fault { error: SourceError::Away { what, why: format!("the server says {status}") }, again }
        }
        status => SourceError::Odd { what, why: format!("with status {status}") }.into(),
    }
}

/// What an error of the client means.
pub(super) fn fault(error: &reqwest::Error, what: &str) -> Fault {
    let what = what.to_owned();
    if let Some(why) = causes(error).find_map(untrusted) {
        return SourceError::Untrusted { what, why }.into();
    }
    if error.is_redirect() || error.is_builder() {
        return SourceError::Odd { what, why: deepest(error) }.into();
    }
    let why = if error.is_timeout() { "it does not answer in time".to_owned() } else { deepest(error) };
    Fault::passing(SourceError::Away { what, why })
}

/// What TLS says about who is at the other end.
fn untrusted(cause: &(dyn Error + 'static)) -> Option<String> {
    let why = match tls_error(cause)? {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate is of a CA that this machine does not know".to_owned()
        }
        rustls::Error::InvalidCertificate(why) => format!("its certificate is not valid: {why}"),
        rustls::Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        other => other.to_string(),
    };
    Some(why)
}

/// An error of TLS, also where it is wrapped in errors of the system.
fn tls_error<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    cause.downcast_ref().or_else(|| tls_error(cause.downcast_ref::<io::Error>()?.get_ref()?))
}

/// An error and what caused it, outermost first.
pub(super) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// The words of the innermost cause, which say most.
pub(super) fn deepest(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_read_or_refused() {
        assert_eq!(parse_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_range("bytes 0-9/*"), Some((0, None)));
        for wrong in ["", "bytes", "bytes */10", "bytes 5-9", "items 5-9/10", "bytes -9/10", "bytes 5-9/ten"] {
            assert_eq!(parse_range(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn only_this_machines_own_servers_are_asked_without_a_proxy() {
        for url in ["http://127.0.0.1:9000/a", "http://localhost/a", "http://[::1]:1/"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in ["https://example.com/", "http://10.0.0.1/", "http://127.0.0.1@elsewhere/", "no address"] {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
