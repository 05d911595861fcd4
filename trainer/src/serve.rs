//! The results in a folder over plain HTTP, for reading: how they are fetched from a claim that only pods can mount.
//! Must not write, nor give anything but results.

use std::{
    io,
    path::{Path, PathBuf},
};

use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use tokio::{net::TcpListener, task::spawn_blocking};
use tower_http::services::ServeDir;

use crate::deliver;

/// One result.
#[derive(Debug, Serialize)]
struct Entry {
    /// Below the folder, as `/files/` has it.
    path: String,
    /// Its size.
    bytes: u64,
}

/// Serves `folder` until it is dropped: its results by name at `/`, each below `/files/`.
///
/// # Errors
/// Where connections cannot be had any more.
pub async fn serve(folder: PathBuf, listener: TcpListener) -> io::Result<()> {
    axum::serve(listener, router(&folder)).await
}

fn router(folder: &Path) -> Router {
    let listed = folder.to_owned();
    Router::new()
        .route("/", get(move || list(listed.clone())))
        .nest_service("/files", ServeDir::new(folder).append_index_html_on_directories(false))
}

async fn list(folder: PathBuf) -> Response {
    let listed = spawn_blocking(move || entries(&folder)).await;
    match listed.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(entries) => {
            let json = serde_json::to_string(&entries).expect("names and sizes are plain data");
            ([(CONTENT_TYPE, "application/json")], json).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn entries(folder: &Path) -> io::Result<Vec<Entry>> {
    let results =
        deliver::results(folder).map_err(|(path, error)| io::Error::other(format!("{}: {error}", path.display())))?;
    let entry = |file: &PathBuf| {
        let path = file.strip_prefix(folder).unwrap_or(file).to_string_lossy().into_owned();
        Ok(Entry { path, bytes: file.metadata()?.len() })
    };
    results.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn get(router: &Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).expect("a path is a request");
        let response = router.clone().oneshot(request).await.expect("it always answers");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body can be read").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn results_are_listed_and_given_and_nothing_else_is() {
        let outer = tempfile::tempdir().expect("a temporary folder can be made");
        let folder = outer.path().join("run");
        fs::create_dir_all(folder.join("adapter")).expect("it can be made");
        for (file, text) in [("run/adapter/a.safetensors", "12345"), ("run/results.json", "{}"), ("secret", "no")] {
            fs::write(outer.path().join(file), text).expect("it can be written");
        }
        let router = router(&folder);
        let listed = r#"[{"path":"adapter/a.safetensors","bytes":5},{"path":"results.json","bytes":2}]"#;
        assert_eq!(get(&router, "/").await, (StatusCode::OK, listed.to_owned()));
        assert_eq!(get(&router, "/files/adapter/a.safetensors").await, (StatusCode::OK, "12345".to_owned()));
        for path in ["/files/../secret", "/files/%2e%2e/secret", "/files/adapter/%2e%2e/%2e%2e/secret", "/secret"] {
            assert_eq!(get(&router, path).await.0, StatusCode::NOT_FOUND, "{path}");
        }
    }
}
