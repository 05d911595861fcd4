//! Brings models and data from where they are: the Hugging Face hub, http and https addresses, S3-compatible stores; and
//! takes results to such a store.
//! Must not read what it brings, nor hand out half of anything: a file is whole and checked, or not there.
//!
//! ```text
//! Origin --list--> items --select--> what is wanted --download--> the source's hold in the cache --> a local path
//! ```
//!
//! | file | one thing |
//! |---|---|
//! | `origin.rs` | where something is, parsed once from the resource |
//! | `access.rs` | tokens, keys, and how patiently it is tried: from the environment, once |
//! | `fetcher.rs` | an origin to a local path, once a call |
//! | `select.rs` | which files of a listing are a model, an adapter, a table |
//! | `hold.rs` | one source's folder in the cache: whole files, what is known of them, parts of files |
//! | `download.rs` | one file, resumed and checked |
//! | `errand.rs` | all files of a source, some at a time |
//! | `tries.rs` | what is tried again, how often and after which pause |
//! | `web.rs` | the HTTP client, and what its errors mean |
//! | `hub.rs`, `http.rs`, `s3.rs` | what is each source's own |

#![cfg_attr(
    not(all(feature = "hub", feature = "http", feature = "s3")),
    allow(dead_code, reason = "what one source does without, another needs")
)]

use std::path::Path;

mod access;
#[cfg(any(feature = "hub", feature = "http", feature = "s3"))]
mod download;
#[cfg(any(feature = "hub", feature = "http", feature = "s3"))]
mod errand;
mod error;
mod fetcher;
#[cfg(any(feature = "hub", feature = "http", feature = "s3"))]
mod hold;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "hub")]
mod hub;
mod origin;
#[cfg(feature = "s3")]
mod s3;
#[cfg(any(feature = "hub", feature = "s3"))]
mod select;
#[cfg(test)]
mod testing;
#[cfg(any(feature = "hub", feature = "http", feature = "s3"))]
mod tries;
#[cfg(any(feature = "hub", feature = "http", feature = "s3"))]
mod web;

pub use access::Access;
pub use error::SourceError;
pub use fetcher::Fetcher;
pub use origin::{Address, Origin, Repository, Store};

/// Puts each of `files`, a name below the store's prefix and what lies where, in this order. Blocks; not to be called on a
/// runtime's thread.
///
/// # Errors
/// A sentence that says what to do.
#[cfg(feature = "s3")]
pub fn send(store: &Store, access: &Access, files: &[(String, &Path)]) -> Result<(), SourceError> {
    web::runtime()?.block_on(s3::upload(store, access, files))
}

/// Nothing is sent by a program without the feature `s3`.
///
/// # Errors
/// Always.
#[cfg(not(feature = "s3"))]
pub fn send(store: &Store, _: &Access, _: &[(String, &Path)]) -> Result<(), SourceError> {
    Err(SourceError::NoFeature { what: store.to_string(), feature: "s3" })
}

/// What is wanted of a source; it decides which of its files are brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// A base model with its tokenizer, or one GGUF file.
    Model,
    /// An adapter in PEFT's format.
    Adapter,
    /// Files of data whose names end so, without the dot.
    Table(&'static str),
    /// Text files in folders, `<folder>/*.txt`.
    Folders,
}
