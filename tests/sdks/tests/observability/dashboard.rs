//! The dashboard in the documents asks for what there is, in the way of its kind.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;
use tower_ploton::metrics::{ALL, BUCKETS, Kind, Metric};

use crate::{
    recording::{Recording, everything},
    scrape::Scrape,
};

fn dashboard() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/grafana.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The queries of all panels, with their panel's title.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        let Some(targets) = panel["targets"].as_array() else {
            assert_eq!(panel["type"], "row", "{title} asks for nothing");
            continue;
        };
        for target in targets {
            let query = target["expr"].as_str().unwrap();
            found.push((title.to_owned(), query.to_owned()));
        }
    }
    found
}

/// What a query says of a metric: its name, the labels that it is chosen by, and what stands directly before it.
struct Asked {
    name: String,
    labels: BTreeSet<String>,
    within: String,
}

fn asked(query: &str) -> Vec<Asked> {
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(at) = rest.find("ploton_") {
        let (before, after) = rest.split_at(at);
        let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let (name, after) = after.split_at(end.unwrap_or(after.len()));
        let selector = after
            .strip_prefix('{')
            .and_then(|rest| rest.split_once('}'));
        let (selector, after) = selector.expect("a metric of any job is asked for");
        let labels = selector.split(", ").map(|label| {
            let end = label.find(['=', '!']).expect(label);
            label[..end].to_owned()
        });
        let within = before.strip_suffix('(').unwrap_or_default();
        let begin = within.rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        found.push(Asked {
            name: name.to_owned(),
            labels: labels.collect(),
            within: within[begin.map_or(0, |begin| begin + 1)..].to_owned(),
        });
        rest = after;
    }
    found
}

/// The labels by which a query groups.
fn grouped_by(query: &str) -> BTreeSet<String> {
    let mut groups = query.split("by (").skip(1);
    let mut labels = BTreeSet::new();
    for group in &mut groups {
        let (group, _) = group.split_once(')').unwrap();
        labels.extend(group.split(", ").map(str::to_owned));
    }
    labels
}

async fn scrape() -> Scrape {
    let recording = Recording::start();
    everything().await;
    recording.scrape()
}

/// What Prometheus and its scrapes add.
const TARGET: [&str; 2] = ["instance", "job"];

#[tokio::test(start_paused = true)]
async fn every_query_names_a_metric_that_exists_and_its_labels() {
    let scrape = scrape().await;
    let mut samples: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for sample in &scrape.samples {
        let labels = sample.labels.keys().map(String::as_str);
        samples.entry(&sample.name).or_default().extend(labels);
    }
    let queries = queries(&dashboard());
    assert!(queries.len() > 20, "{}", queries.len());
    for (title, query) in &queries {
        let asked = asked(query);
        assert!(!asked.is_empty(), "{title}: {query}");
        let mut labels_of_all = BTreeSet::from(TARGET);
        for asked in &asked {
            let labels = samples.get(&*asked.name);
            let labels = labels.unwrap_or_else(|| panic!("{title}: no {} in a scrape", asked.name));
            for label in &asked.labels {
                let known = labels.contains(&**label) || TARGET.contains(&&**label);
                assert!(known, "{title}: {} has no {label}", asked.name);
            }
            labels_of_all.extend(labels);
        }
        for label in grouped_by(query) {
            assert!(labels_of_all.contains(&*label), "{title}: by {label}");
        }
    }
}

/// A counter by its rate; a histogram by the rate of its buckets, whose bounds are kept; a gauge as it is.
#[tokio::test(start_paused = true)]
async fn every_query_fits_the_kind_of_its_metric() {
    let scrape = scrape().await;
    for (title, query) in queries(&dashboard()) {
        let open = query.matches(['(', '{', '[']).count();
        let closed = query.matches([')', '}', ']']).count();
        assert_eq!(open, closed, "{title}: {query}");
        for Asked { name, within, .. } in asked(&query) {
            let metric = scrape.metric(&name);
            match scrape.types[metric].as_str() {
                "counter" => assert_eq!(within, "rate", "{title}: {name}"),
                "gauge" => assert_ne!(within, "rate", "{title}: {name}"),
                "histogram" => {
                    assert_eq!(within, "rate", "{title}: {name}");
                    assert_ne!(metric, name, "{title}: a histogram has no value of its own");
                    if name.ends_with("_bucket") {
                        assert!(query.starts_with("histogram_quantile("), "{title}");
                        assert!(grouped_by(&query).contains("le"), "{title}: {query}");
                    }
                }
                other => panic!("{title}: {name} is a {other}"),
            }
        }
        let rates = query.matches("rate(").count();
        let intervals = query.matches("[$__rate_interval]").count();
        assert_eq!(rates, intervals, "{title}: {query}");
    }
}

#[test]
fn every_metric_is_on_the_dashboard() {
    let queries = queries(&dashboard());
    let shown: BTreeSet<_> = queries
        .iter()
        .flat_map(|(_, query)| asked(query))
        .map(|asked| asked.name)
        .collect();
    for &Metric { name, kind, .. } in ALL {
        let is_shown = match kind {
            Kind::Histogram => shown.contains(&format!("{name}_bucket")),
            _ => shown.contains(name),
        };
        assert!(is_shown, "{name}");
    }
}

#[test]
fn no_panel_lies_on_another_and_each_has_a_number_of_its_own() {
    let dashboard = dashboard();
    let (mut taken, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        for x in place("x")..place("x") + place("w") {
            assert!(x < 24, "{panel:#}");
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{panel:#}");
            }
        }
        assert!(numbers.insert(panel["id"].as_u64().unwrap()), "{panel:#}");
    }
}

/// An exporter without buckets makes summaries, whose quantiles can't be added up: the dashboard would be empty.
#[test]
fn the_buckets_rise() {
    assert!(BUCKETS.windows(2).all(|pair| pair[0] < pair[1]));
}
