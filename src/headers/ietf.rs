//! The rate limit headers of the IETF's drafts, from 03 on: structured fields ([RFC 9651](https://www.rfc-editor.org/rfc/rfc9651)).
//!
//! | drafts | headers |
//! |---|---|
//! | 03 to 06 | `RateLimit-Remaining: 0`, `RateLimit-Reset: 30` |
//! | 07 | `RateLimit: limit=100, remaining=0, reset=30` |
//! | 08 on | `RateLimit: "default";r=0;t=30`, a member for each policy |

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, Item, List, ListEntry, Parser};

use super::{Hint, HintSource, single};

/// What is left of a quota, and the seconds until there is more.
struct Quota {
    remaining: i64,
    reset: i64,
}

/// The time until there is more, where nothing is left, or where the answer was a 429 (`limited`) and names one quota only:
/// of several, the ones that are used up are meant, and the last of them to be filled again.
pub(super) fn hint(headers: &HeaderMap, limited: bool) -> Option<Hint> {
    let quotas = quotas(headers)?;
    let only = limited && quotas.len() == 1;
    let used_up = quotas.iter().filter(|quota| only || quota.remaining == 0);
    let seconds = used_up.map(|quota| quota.reset).max()?;
    Hint::new(
        Duration::from_secs(u64::try_from(seconds).ok()?),
        HintSource::RateLimit,
    )
}

fn quotas(headers: &HeaderMap) -> Option<Vec<Quota>> {
    let Some(text) = single(headers, &RATELIMIT) else {
        return separate(headers).map(|quota| vec![quota]);
    };
    if let Ok(members) = Parser::new(text).parse::<List>() {
        let quotas: Option<Vec<_>> = members.iter().map(member).collect();
        if quotas.as_ref().is_some_and(|quotas| !quotas.is_empty()) {
            return quotas;
        }
    }
    let members: Dictionary = Parser::new(text).parse().ok()?;
    let number = |key| integer(bare(members.get(key)?)?);
    Some(vec![Quota {
        remaining: number("remaining")?,
        reset: number("reset")?,
    }])
}

/// A policy's member, from draft 08 on.
fn member(entry: &ListEntry) -> Option<Quota> {
    let ListEntry::Item(item) = entry else {
        return None;
    };
    let number = |key| integer(item.params.get(key)?);
    Some(Quota {
        remaining: number("r")?,
        reset: number("t")?,
    })
}

/// A header for each number, up to draft 06.
fn separate(headers: &HeaderMap) -> Option<Quota> {
    let number = |name| {
        let item: Item = Parser::new(single(headers, name)?).parse().ok()?;
        integer(&item.bare_item)
    };
    Some(Quota {
        remaining: number(&RATELIMIT_REMAINING)?,
        reset: number(&RATELIMIT_RESET)?,
    })
}

const fn bare(entry: &ListEntry) -> Option<&BareItem> {
    match entry {
        ListEntry::Item(item) => Some(&item.bare_item),
        ListEntry::InnerList(_) => None,
    }
}

fn integer(item: &BareItem) -> Option<i64> {
    item.as_integer().map(i64::from)
}

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
