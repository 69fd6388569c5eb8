//! The page that shows all these clients shows the code that is tested here, and the versions that it is tested with.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

use std::{collections::BTreeMap, fs, path::PathBuf};

use http::{Request, Response};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn, util::BoxCloneService};
use tower_ploton::PlotonStack;
use tower_ploton_sdks::{key, plan};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page() -> String {
    fs::read_to_string(root().join("docs/plugging-in.md")).unwrap()
}

/// The code of each snippet, by its file's name. What a file says of itself is on the page in other words.
fn snippets() -> BTreeMap<String, String> {
    let files = root().join("tests/sdks/snippets").read_dir().unwrap();
    let code = files.map(|file| {
        let path = file.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let code: Vec<_> = text
            .lines()
            .skip_while(|line| line.starts_with("//!"))
            .collect();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, code.join("\n").trim().to_owned())
    });
    code.collect()
}

/// The page's blocks of Rust.
fn shown(page: &str) -> Vec<&str> {
    let blocks = page.split("```rust\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap().trim())
        .collect()
}

/// The rows of the page's tables: their cells.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let lines = page.lines().filter(|line| line.starts_with('|'));
    lines
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

/// The versions of each package in Cargo.lock.
fn locked() -> BTreeMap<String, Vec<String>> {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let mut versions = BTreeMap::<_, Vec<_>>::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap().trim_matches('"').to_owned()
        };
        versions
            .entry(value("name = "))
            .or_default()
            .push(value("version = "));
    }
    versions
}

#[test]
fn the_page_shows_each_snippet_as_it_is_tested_and_no_other() {
    let page = page();
    let (shown, snippets) = (shown(&page), snippets());
    assert!(!snippets.is_empty());
    for (name, code) in &snippets {
        let is_shown = shown.contains(&code.as_str());
        assert!(is_shown, "{name}.rs is not on the page as it is");
    }
    for code in shown {
        let known = snippets.values().any(|snippet| snippet == code);
        assert!(known, "not of a file in tests/sdks/snippets:\n{code}");
    }
}

#[test]
fn the_versions_on_the_page_are_those_of_the_tests() {
    let (page, locked) = (page(), locked());
    let mut with_snippet = 0;
    for row in rows(&page) {
        if !row[1].starts_with(|first: char| first.is_ascii_digit()) {
            continue;
        }
        let linked = row[0].strip_prefix('[');
        with_snippet += usize::from(linked.is_some());
        let client = linked.unwrap_or(row[0]).split(']').next().unwrap();
        let versions = locked.get(client);
        let versions = versions.unwrap_or_else(|| panic!("{client} is not in Cargo.lock"));
        let is_locked = versions.iter().any(|version| version == row[1]);
        assert!(is_locked, "{client} is at {versions:?}");
    }
    assert_eq!(with_snippet, snippets().len());
}

/// What the page says of the compiler's word on errors that are boxed.
#[test]
fn a_service_whose_error_is_boxed_is_sent_along_where_its_type_does_not_say_so() {
    fn service()
    -> impl Service<Request<String>, Response = Response<String>, Error = BoxError, Future: Send>
    + Clone
    + Send {
        let answer = async |_| Ok::<_, BoxError>(Response::new(String::new()));
        BoxCloneService::new(service_fn(answer))
    }
    fn is_send<T: Send>(_: T) {}
    let stack = PlotonStack::new(key(), plan()).layer(service());
    is_send(async move { stack.oneshot(Request::new(String::new())).await });
}
