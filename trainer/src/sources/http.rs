//! One file behind an http or https address.
//! Must not ask anything for a file whose SHA-256 the spec says and which is there.

use std::path::PathBuf;

use reqwest::Client;

use super::{
    Address, SourceError, Wanted,
    download::{Answer, Ask, Item, Remote},
    errand::Errand,
    hold::{Hold, Version},
    origin::shown_url,
    tries::Fault,
    web::{self, Words},
};

/// Brings the file, and gives its path.
pub(super) async fn fetch(address: &Address, wanted: Wanted, errand: &Errand<'_>) -> Result<PathBuf, SourceError> {
    let name = local_name(&address.url, wanted)?;
    let what = shown_url(&address.url);
    let hold = Hold::open(errand.cache, "http", &name, &[&address.url], errand.events)?;
    let item = Item {
        remote: address.url.clone(),
        local: name.clone(),
        version: Version::default(),
        sha256: address.sha256.clone(),
        id: None,
    };
    let file = File { client: web::client(&address.url, true)?, words: words() };
    match errand.bring(&file, &what, &[item], &hold).await {
        Ok(()) => hold.seal(&[&name], true),
        Err(error) => errand.kept(&hold, &what, error),
    }
}

struct File {
    client: Client,
    words: Words,
}

impl Remote for File {
    fn name(&self, item: &Item) -> String {
        shown_url(&item.remote)
    }

    async fn open(&self, item: &Item, ask: &Ask<'_>) -> Result<Answer, Fault> {
        web::open(self.client.get(&item.remote), ask, &self.name(item), &self.words).await
    }
}

fn words() -> Words {
    Words {
        denied: "the server wants to know who asks; an address may carry that, as in https://user:password@host/file"
            .to_owned(),
        missing: "check the address".to_owned(),
        codes: &[],
        busy: "",
    }
}

/// The last part of the path, by which the file is kept: what is wanted decides what it must look like.
fn local_name(url: &str, wanted: Wanted) -> Result<String, SourceError> {
    let choice = |problem: &str| Err(SourceError::Choice { what: shown_url(url), problem: problem.to_owned() });
    let shown = shown_url(url);
    let path = shown.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    let last = path.rsplit('/').next().unwrap_or_default();
    let plain = |letter: char| if letter.is_alphanumeric() || "-_.+=@%".contains(letter) { letter } else { '-' };
    let name: String = last.chars().take(150).map(plain).collect();
    let name = name.trim_start_matches('.');
    match wanted {
        Wanted::Model if name.rsplit_once('.').is_none_or(|(_, ending)| !ending.eq_ignore_ascii_case("gguf")) => {
            choice(
                "is one file, so a model there is a .gguf file, and its address ends so; other models come from huggingFace, s3 or a path",
            )
        }
        Wanted::Adapter => choice("is one file, and an adapter is two; give a path, huggingFace or s3"),
        Wanted::Folders => {
            choice("is one file, and format Folders is many; give a path, huggingFace or s3, or set another format")
        }
        Wanted::Model | Wanted::Table(_) if name.is_empty() => choice("names no file: it ends with a host or a /"),
        Wanted::Model | Wanted::Table(_) => Ok(name.to_owned()),
    }
}

#[cfg(test)]
mod tests;
