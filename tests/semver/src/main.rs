//! Compares the public API, as rustdoc knows it, with `docs/public-api.txt`, and other crates' types in it with those that
//! `docs/semver.md` names.
//!
//! Arguments: rustdoc's JSON, the page, the list, and `--write` where the list is to be written.
#![allow(
    clippy::indexing_slicing,
    reason = "what JSON does not have is null: that panics nowhere"
)]

mod list;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    error::Error,
    fs,
    process::ExitCode,
};

use serde_json::Value;

/// Rust's own; and a macro's, which only writes bounds that nobody can name.
const OMITTED: [&str; 4] = ["core", "alloc", "std", "pin_project_lite"];

/// Types by their crates.
type Types = BTreeMap<String, BTreeSet<String>>;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (json, page, list, writes) = match arguments.as_slice() {
        [json, page, list] => (json, page, list, false),
        [json, page, list, "--write"] => (json, page, list, true),
        _ => return Err("tower-ploton-semver JSON PAGE LIST [--write]".into()),
    };
    let json = serde_json::from_str(&fs::read_to_string(json)?)?;
    let public = public(&json);
    let named = named(&fs::read_to_string(page)?);
    if public.is_empty() {
        return Err("no type of another crate: is this rustdoc's JSON?".into());
    }

    let mut equal = listed(&list::lines(&json), list, writes)?;
    for (types, others, what) in [
        (&public, &named, "is not on the page"),
        (&named, &public, "is on the page, and not in the API"),
    ] {
        for (name, types) in types {
            let none = BTreeSet::new();
            for each in types.difference(others.get(name).unwrap_or(&none)) {
                equal = false;
                eprintln!("{name}: {each} {what}");
            }
        }
    }
    for (name, types) in &public {
        let types: Vec<_> = types.iter().map(String::as_str).collect();
        println!("{name}: {}", types.join(", "));
    }
    Ok(if equal {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Whether these are the list's lines: those that are not are shown. If it `writes`, they are from then on.
fn listed(lines: &BTreeSet<String>, list: &str, writes: bool) -> Result<bool, Box<dyn Error>> {
    if writes {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(list, text)?;
    }
    let text = fs::read_to_string(list)?;
    let before: BTreeSet<_> = text.lines().map(str::to_owned).collect();
    for line in before.difference(lines) {
        eprintln!("- {line}");
    }
    for line in lines.difference(&before) {
        eprintln!("+ {line}");
    }
    let equal = before == *lines;
    if !equal {
        eprintln!("{list} is not the public API. Where it is to change so: scripts/semver --write");
    }
    Ok(equal)
}

/// Those in signatures, fields and trait implementations of what is public.
fn public(json: &Value) -> Types {
    let mut types = Types::new();
    let items = json["index"].as_object().into_iter().flatten();
    for (_, item) in items.filter(|(_, item)| item["crate_id"] == 0) {
        // What every type implements is written by nobody here.
        let written = &item["inner"]["impl"];
        if written["is_synthetic"] == true || !written["blanket_impl"].is_null() {
            continue;
        }
        visit(&item["inner"], &mut |id| {
            let path = &json["paths"][id];
            let Some(number) = path["crate_id"].as_u64().filter(|number| *number != 0) else {
                return;
            };
            let source = json["external_crates"][number.to_string()]["name"].as_str();
            let name = path["path"].as_array().and_then(|path| path.last());
            match (source, name.and_then(Value::as_str)) {
                (Some(source), Some(name)) if !OMITTED.contains(&source) => {
                    let of_crate = types.entry(source.to_owned()).or_default();
                    of_crate.insert(name.to_owned());
                }
                _ => {}
            }
        });
    }
    types
}

/// Gives `seen` the number of each type and trait that `value` refers to.
fn visit(value: &Value, seen: &mut impl FnMut(&str)) {
    match value {
        Value::Object(object) => {
            let is_reference = object.contains_key("path") || object.contains_key("source");
            if let (true, Some(id)) = (is_reference, object.get("id").and_then(Value::as_u64)) {
                seen(&id.to_string());
            }
            object.values().for_each(|value| visit(value, seen));
        }
        Value::Array(values) => values.iter().for_each(|value| visit(value, seen)),
        _ => {}
    }
}

/// Those in the page's table: a crate in the first column, its types in the second, all in backticks.
fn named(page: &str) -> Types {
    let code = |cell: &str| -> Vec<String> {
        let parts = cell.split('`').skip(1).step_by(2);
        parts.map(str::to_owned).collect()
    };
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.filter_map(|row| {
        let mut cells = row.split('|').skip(1);
        let name = code(cells.next()?).first()?.replace('-', "_");
        Some((name, code(cells.next()?).into_iter().collect()))
    })
    .collect()
}
