//! What a listing has handed out.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
};

use serde_json::Value;

/// What was handed out. Hashes: eight bytes for each of a million items are little.
#[derive(Debug, Default)]
pub(super) struct Seen {
    ids: HashSet<u64>,
    hasher: RandomState,
    /// That of the last page whose items have no ids.
    last_page: Option<u64>,
    /// How many pages in a row had nothing new.
    still: u8,
}

impl Seen {
    /// Whether an item was not handed out yet. Of one without an id nobody knows.
    pub(super) fn is_new(&mut self, item: &Value) -> bool {
        id(item).is_none_or(|id| self.ids.insert(self.hasher.hash_one(id)))
    }

    /// Whether the pages up to this one have not moved on.
    pub(super) fn stands_still(&mut self, page: &[Value]) -> bool {
        let known = |item: &Value| id(item).map(|id| self.ids.contains(&self.hasher.hash_one(id)));
        let nothing_new = if page.iter().any(|item| id(item).is_none()) {
            let page = self.hasher.hash_one(page);
            self.last_page.replace(page) == Some(page)
        } else {
            page.iter().all(|item| known(item) == Some(true))
        };
        self.still = if nothing_new {
            self.still.saturating_add(1)
        } else {
            0
        };
        self.still >= MAX_STILL
    }
}

fn id(item: &Value) -> Option<&str> {
    item.get("id")?.as_str()
}

/// One page with nothing new may be chance: as many items were created as a page has, while the one before came.
const MAX_STILL: u8 = 3;
