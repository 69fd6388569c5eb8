//! The public items, a line each: what a program that uses the crate can name, call or rely on.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The lines for rustdoc's JSON, with paths in the crate. What every type implements and parameters' names are left out.
pub(crate) fn lines(json: &Value) -> BTreeSet<String> {
    let (paths, uses) = (BTreeMap::new(), BTreeMap::new());
    let mut list = List { json, paths, uses };
    let mut lines = BTreeSet::new();
    list.add(&json["root"], "");
    // An item's home is its public module, or else where it is first re-exported.
    while let Some((path, import)) = list.uses.pop_first() {
        let home = import["id"].as_u64().and_then(|id| list.paths.get(&id));
        if home.is_none() && list.item(&import["id"]).is_object() {
            list.add(&import["id"], &path);
        } else {
            let source = import["source"].as_str().unwrap_or_default();
            lines.insert(format!("use {path} = {}", home.map_or(source, |path| path)));
        }
    }
    for (id, path) in &list.paths {
        lines.insert(list.line(list.item(&(*id).into()), path, &Value::Null));
    }
    let items = json["index"].as_object().into_iter().flatten();
    for (_, item) in items.filter(|(_, item)| item["crate_id"] == 0) {
        let written = &item["inner"]["impl"];
        if written["is_synthetic"] == false && written["blanket_impl"].is_null() {
            list.implementation(written, &mut lines);
        }
    }
    // The crate itself; and what the compiler and a macro make for themselves.
    let unnamed = ["StructuralPartialEq", "pin_project_lite::"];
    lines.retain(|line| line != "mod " && !unnamed.iter().any(|name| line.contains(name)));
    lines
}

struct List<'a> {
    json: &'a Value,
    /// Each item's path, by its number.
    paths: BTreeMap<u64, String>,
    uses: BTreeMap<String, &'a Value>,
}

impl<'a> List<'a> {
    fn item(&self, id: &Value) -> &'a Value {
        &self.json["index"][id.to_string()]
    }

    fn add(&mut self, id: &Value, path: &str) {
        let (kind, inner) = kind(&self.item(id)["inner"]);
        let shape = &inner["kind"];
        let members = match kind {
            "module" | "trait" => &inner["items"],
            "enum" => &inner["variants"],
            _ if shape["tuple"].is_array() => &shape["tuple"],
            "variant" => &shape["struct"]["fields"],
            _ => &shape["plain"]["fields"],
        };
        for id in many(members) {
            let item = self.item(id);
            if let Some(import) = item["inner"].get("use") {
                self.uses.insert(join(path, import), import);
            } else if item.is_object() {
                self.add(id, &join(path, item));
            }
        }
        self.paths
            .extend(id.as_u64().map(|id| (id, path.to_owned())));
    }

    /// `block` is the generics of the `impl` that the item is in.
    fn line(&self, item: &Value, path: &str, block: &Value) -> String {
        let (kind, inner) = kind(&item["inner"]);
        let (parameters, own) = self.generics(&inner["generics"]);
        let bounds = conditions(self.generics(block).1.into_iter().chain(own));
        let above = around(": ", &self.list(&inner["bounds"], " + "), "");
        let is_open = many(&item["attrs"]).any(|each| each == "non_exhaustive");
        let end = when(is_open, " #[non_exhaustive]");
        match kind {
            "module" => format!("mod {path}"),
            "function" => {
                let words = ["const", "async", "unsafe"].into_iter();
                let words = words.filter(|word| inner["header"][format!("is_{word}")] == true);
                let words: String = words.map(|word| format!("{word} ")).collect();
                // In a trait, what has a default need not be implemented.
                let has_default = item["visibility"] == "default" && inner["has_body"] == true;
                let default = when(has_default, " { .. }");
                let signature = self.signature(&inner["sig"]);
                format!("{words}fn {path}{parameters}{signature}{bounds}{default}")
            }
            "struct" => {
                let shape = &inner["kind"];
                let hides = shape["plain"]["has_stripped_fields"] == true
                    || many(&shape["tuple"]).any(Value::is_null);
                let hidden = when(hides, " { .. }");
                format!("struct {path}{parameters}{bounds}{hidden}{end}")
            }
            "struct_field" => format!("field {path}: {}", self.text(inner)),
            "constant" => format!("const {path}: {}", self.text(&inner["type"])),
            _ => {
                let of = around(" = ", &self.text(&inner["type"]), "");
                format!("{kind} {path}{parameters}{above}{of}{bounds}{end}")
            }
        }
    }

    /// A trait's is one line, with the types that it chooses; others are a line for each item.
    fn implementation(&self, written: &Value, lines: &mut BTreeSet<String>) {
        let of = self.text(&written["for"]);
        let items = many(&written["items"]).map(|id| self.item(id));
        if written["trait"].is_null() {
            let items = items.filter(|item| item.is_object());
            lines.extend(items.map(|item| self.line(item, &join(&of, item), &written["generics"])));
            return;
        }
        let types = items.filter_map(|item| {
            let value = self.text(&item["inner"].get("assoc_type")?["type"]);
            Some(format!("{} = {value}", item["name"].as_str()?))
        });
        let types = around(" with ", &joined(types, ", "), "");
        let bounds = conditions(self.generics(&written["generics"]).1);
        let written = self.text(&written["trait"]);
        lines.insert(format!("impl {written} for {of}{types}{bounds}"));
    }

    /// Parameters in angle brackets; and all bounds, wherever they were written.
    fn generics(&self, value: &Value) -> (String, Vec<String>) {
        let (mut names, mut bounds) = (Vec::new(), Vec::new());
        let named =
            many(&value["params"]).filter(|each| each["kind"]["type"]["is_synthetic"] != true);
        for each in named {
            let (_, inner) = kind(&each["kind"]);
            let name = self.text(&each["name"]);
            let above = self.list(&inner["bounds"], " + ");
            bounds.extend((!above.is_empty()).then(|| format!("{name}: {above}")));
            names.push(name + &around(" = ", &self.text(&inner["default"]), ""));
        }
        bounds.extend(many(&value["where_predicates"]).map(|each| self.text(each)));
        (around("<", &names.join(", "), ">"), bounds)
    }

    fn signature(&self, value: &Value) -> String {
        let inputs = many(&value["inputs"]).map(|each| match each[0].as_str() {
            Some("self") => self.text(&each[1]).replace("Self", "self"),
            Some(_) => self.text(&each[1]),
            None => self.text(each),
        });
        let output = around(" -> ", &self.text(&value["output"]), "");
        format!("({}){output}", joined(inputs, ", "))
    }

    fn list(&self, value: &Value, between: &str) -> String {
        joined(many(value).map(|each| self.text(each)), between)
    }

    /// A type, a bound, or a part of one.
    fn text(&self, value: &Value) -> String {
        let (kind, inner) = kind(value);
        let text = |key: &str| self.text(&inner[key]);
        match kind {
            _ if value["path"].is_string() => self.path(value) + &self.text(&value["args"]),
            "angle_bracketed" => {
                let parts = [text("args"), text("constraints")];
                around("<", &joined(parts, ", "), ">")
            }
            "args" => self.text(&value["name"]) + &self.text(&value["binding"]),
            "array" => format!("[{}; {}]", text("type"), text("len")),
            "borrowed_ref" => {
                let lifetime = around("", &text("lifetime"), " ");
                let is_mut = when(inner["is_mutable"] == true, "mut ");
                format!("&{lifetime}{is_mut}{}", text("type"))
            }
            "bound_predicate" => {
                format!("{}: {}", text("type"), self.list(&inner["bounds"], " + "))
            }
            "constraint" => format!(": {}", self.list(inner, " + ")),
            "dyn_trait" => {
                let lifetime = around(" + ", &text("lifetime"), "");
                format!("(dyn {}{lifetime})", self.list(&inner["traits"], " + "))
            }
            "equality" => format!(" = {}", self.text(inner)),
            "function_pointer" => format!("fn{}", self.signature(&inner["sig"])),
            "generic_params" => {
                let maybe = when(value["modifier"] == "maybe", "?");
                format!("{maybe}{}", self.text(&value["trait"]))
            }
            "impl_trait" => format!("impl {}", self.list(inner, " + ")),
            "parenthesized" => self.signature(inner),
            "qualified_path" => {
                let (of, written) = (text("self_type"), text("trait"));
                format!("<{of} as {written}>::{}", text("name"))
            }
            "slice" => format!("[{}]", self.text(inner)),
            "tuple" => format!("({})", self.list(inner, ", ")),
            word if value.is_string() => word.to_owned(),
            _ if value.is_object() => self.text(inner),
            _ => self.list(value, ", "),
        }
    }

    /// A path in this crate, or a crate and a name; of the standard library's, whose modules may move, the name.
    fn path(&self, value: &Value) -> String {
        let home = value["id"].as_u64().and_then(|id| self.paths.get(&id));
        let path = &self.json["paths"][value["id"].to_string()]["path"];
        let path: Vec<_> = many(path).filter_map(Value::as_str).collect();
        match (home, path.as_slice()) {
            (Some(home), _) => home.clone(),
            (_, ["core" | "alloc" | "std", .., name]) => (*name).to_owned(),
            (_, [source, .., name]) => format!("{source}::{name}"),
            _ => self.text(&value["path"]),
        }
    }
}

/// An enum's variant and what is in it; one with nothing in it is its own.
fn kind(value: &Value) -> (&str, &Value) {
    let first = value.as_object().and_then(|object| object.iter().next());
    let bare = (value.as_str().unwrap_or_default(), value);
    first.map_or(bare, |(kind, inner)| (kind, inner))
}

fn many(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn join(path: &str, item: &Value) -> String {
    let name = item["name"].as_str().unwrap_or_default();
    around("", path, "::") + name
}

const fn when(is_so: bool, text: &'static str) -> &'static str {
    if is_so { text } else { "" }
}

/// Nothing around nothing.
fn around(before: &str, text: &str, after: &str) -> String {
    let parts = if text.is_empty() {
        [""; 3]
    } else {
        [before, text, after]
    };
    parts.concat()
}

fn joined(parts: impl IntoIterator<Item = String>, between: &str) -> String {
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(between)
}

fn conditions(bounds: impl IntoIterator<Item = String>) -> String {
    let bounds: BTreeSet<_> = bounds.into_iter().collect();
    around(" where ", &joined(bounds, ", "), "")
}
