//! The pages in `docs/`: each is in the table of contents, and what they link to is there.
//! Must not ask the network.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace holds the crate").to_owned()
}

fn parse(text: &str) -> Parser<'_> {
    Parser::new_ext(text, Options::ENABLE_TABLES)
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// All pages that people read.
fn pages() -> Vec<PathBuf> {
    let listed = root().join("docs").read_dir().expect("there are docs");
    let docs = listed.map(|entry| entry.expect("a folder can be listed").path());
    let others = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "bench/README.md", "charts/fedtune/README.md"];
    let all = docs.chain(others.map(|page| root().join(page)));
    all.filter(|page| page.extension().is_some_and(|ending| ending == "md")).collect()
}

/// Where the links of a page lead that stay in the tree.
fn links(text: &str) -> Vec<String> {
    let destination = |event: Event<'_>| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => Some(dest_url.into_string()),
        _ => None,
    };
    parse(text).filter_map(destination).filter(|link| !link.contains("://")).collect()
}

/// What `#` may lead to: headings in small letters, words joined by `-`.
fn anchors(text: &str) -> BTreeSet<String> {
    let (mut found, mut heading) = (BTreeSet::new(), None::<String>);
    for event in parse(text) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(words) | Event::Code(words) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&words);
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                let words = heading.take().unwrap_or_default().to_lowercase().replace(' ', "-");
                found.insert(words.chars().filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_').collect());
            }
            _ => {}
        }
    }
    found
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_are_there() {
    for page in pages() {
        let text = read(&page);
        for link in links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { page.clone() } else { page.with_file_name(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            let is_there = anchor.is_empty() || anchors(&read(&target)).contains(anchor);
            assert!(is_there, "{}: {} has no heading #{anchor}", page.display(), target.display());
        }
    }
}

#[test]
fn every_page_is_in_the_table_of_contents_once() {
    let folder = root().join("docs");
    let mut listed = links(&read(&folder.join("SUMMARY.md")));
    listed.sort();
    let mut there: Vec<String> = pages()
        .iter()
        .filter(|page| page.parent() == Some(&folder))
        .map(|page| page.file_name().expect("a page has a name").to_string_lossy().into_owned())
        .filter(|name| name != "SUMMARY.md")
        .collect();
    there.sort();
    assert_eq!(listed, there);
}
